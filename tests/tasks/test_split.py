from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pymixunlearn import tasks
from pymixunlearn.data import Dataset, UnlabelledImages, from_tensors
from pymixunlearn.errors import UserError
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.indices import to_indices


def toy(count: int = 100, shift: int = 0) -> Dataset:
    """``count`` training images, labelled 0..9 in turn."""
    images = torch.arange(shift, shift + count).remainder(256).to(torch.uint8).view(-1, 1, 1, 1)
    targets = torch.arange(count) % 10
    return from_tensors(images, targets, images[:20], targets[:20], classes=list("0123456789"), name="toy")


def test_class_split() -> None:
    dataset = toy()
    split = tasks.class_split(dataset, [7, 2])
    assert split.task == "class" and split.forget_classes == (2, 7) and split.params == {"classes": [2, 7]}
    assert set(split.forget.targets.tolist()) == {2, 7} and len(split.forget) == 20
    assert len(split.retain) == 80 and not {2, 7} & set(split.retain.targets.tolist())
    together = torch.cat([split.forget_indices, split.retain_indices]).sort().values
    assert torch.equal(together, torch.arange(100))
    assert split.train is dataset.train and split.test is dataset.test and split.preprocess is dataset.preprocess
    assert split.num_classes == 10
    assert tasks.class_split(dataset).forget_classes == (0,)


def test_data_split_takes_its_share_of_the_named_classes() -> None:
    split = tasks.data_split(toy(), fraction=0.4)
    assert len(split.forget) == 20 and set(split.forget.targets.tolist()) <= {5, 6, 7, 8, 9}
    assert split.forget_classes == () and split.params == {"fraction": 0.4, "classes": [5, 6, 7, 8, 9]}
    assert torch.equal(split.forget_indices, split.forget_indices.unique())
    torch.manual_seed(9)
    assert torch.equal(tasks.data_split(toy(), fraction=0.4).forget_indices, split.forget_indices)
    assert not torch.equal(tasks.data_split(toy(), fraction=0.4, seed=1).forget_indices, split.forget_indices)
    assert len(tasks.data_split(toy(), fraction=1.0, classes=[3]).forget) == 10


def test_index_split_sorts_what_it_is_given() -> None:
    for indices in ([9, 3, 5], torch.tensor([9, 3, 5]), torch.tensor([9, 3, 5], dtype=torch.int32)):
        split = tasks.index_split(toy(), indices)
        assert split.forget_indices.tolist() == [3, 5, 9] and split.forget_indices.dtype == torch.int64
        assert split.task == "indices" and split.forget_classes == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: tasks.class_split(d, [10]), r"class 10 does not exist: 'toy' has classes 0\.\.9"),
        (lambda d: tasks.class_split(d, [-1]), "class -1 does not exist"),
        (lambda d: tasks.class_split(d, [1, 1]), "every class must be given once, got '.*' more than once"),
        (lambda d: tasks.class_split(d, []), "at least one class"),
        (lambda d: tasks.class_split(d, range(10)), "retain set must have at least one"),
        (lambda d: tasks.data_split(d, fraction=0), r"fraction must be above 0 and at most 1, got 0"),
        (lambda d: tasks.data_split(d, fraction=1.01), "fraction must be above 0"),
        (lambda d: tasks.data_split(d, fraction=float("nan")), "fraction must be above 0"),
        (lambda d: tasks.data_split(d, fraction=0.001), "forget set must have at least one"),
        (lambda d: tasks.data_split(d, fraction=1, classes=range(10)), "retain set must have at least one"),
        (lambda d: tasks.data_split(d, classes=[12]), "class 12 does not exist"),
        (lambda d: tasks.index_split(d, []), "forget set must have at least one"),
        (lambda d: tasks.index_split(d, [100]), r"index out of range: expected 0\.\.99 .* got 100"),
        (lambda d: tasks.index_split(d, [-1, 4]), "got -1"),
        (lambda d: tasks.index_split(d, [4, 5, 4]), "every index must be given once, got 4"),
        (lambda d: tasks.index_split(d, [1.5]), "an index must be an integer, got 1.5"),
        (lambda d: tasks.index_split(d, torch.tensor([0.0])), "indices must be integers"),
        (lambda d: tasks.index_split(d, torch.tensor([[0]])), r"of shape \[1, 1\]"),
        (lambda d: tasks.index_split(d, range(100)), "retain set must have at least one"),
        (lambda d: Split(d, "clas", torch.tensor([0]), 0, {}), "unknown task 'clas'.*Did you mean 'class'"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(toy())


def test_a_class_without_samples_cannot_be_forgotten() -> None:
    images = torch.zeros(4, 1, 2, 2)
    dataset = from_tensors(images, torch.tensor([0, 0, 1, 1]), images, torch.zeros(4).long(), classes=["a", "b", "c"])
    with pytest.raises(UserError, match="forget set must have at least one"):
        tasks.class_split(dataset, [2])


def test_manifest() -> None:
    dataset = toy()
    manifest: Any = tasks.data_split(dataset, seed=4).manifest()
    assert manifest["format"] == "pymixunlearn-split/1"
    assert manifest["dataset"] == {"name": "toy", "fingerprint": dataset.fingerprint(), "train": 100, "test": 20}
    assert (manifest["task"], manifest["seed"]) == ("data", 4)
    assert manifest["forget"]["count"] == len(manifest["forget"]["indices"]) == 20
    assert manifest["retain"]["count"] == 80 and len(manifest["retain"]["sha256"]) == 64
    assert json.loads(json.dumps(manifest)) == manifest


def test_indices_sha256_is_that_of_little_endian_integers() -> None:
    expected = hashlib.sha256(bytes([1] + [0] * 7 + [0, 1] + [0] * 6)).hexdigest()
    assert tasks.indices_sha256(torch.tensor([1, 256])) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda d: tasks.class_split(d, [1, 3], seed=2),
        lambda d: tasks.data_split(d, fraction=0.3, seed=5),
        lambda d: tasks.index_split(d, [1, 2, 3]),
    ],
)
def test_save_and_load(tmp_path: Path, make: Any) -> None:
    split = make(toy())
    split.save(tmp_path / "split.json")
    again = Split.load(tmp_path / "split.json", toy())
    assert again.manifest() == split.manifest()
    assert again.forget_classes == split.forget_classes
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_a_manifest_belongs_to_its_data(tmp_path: Path) -> None:
    tasks.class_split(toy()).save(tmp_path / "split.json")
    with pytest.raises(UserError, match="made for other data: expected the dataset 'toy'"):
        Split.load(tmp_path / "split.json", toy(shift=1))


def damaged(**changes: Any) -> str:
    manifest: Any = tasks.class_split(toy()).manifest()
    for path, value in changes.items():
        *outer, last = path.split("__")
        part = manifest
        for key in outer:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
    return json.dumps(manifest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as a split manifest"),
        ("[]", "is not a split manifest: expected a JSON object with format"),
        (damaged(format="pymixunlearn-split/9"), "format 'pymixunlearn-split/1'"),
        (damaged(seed="x"), "expected 'seed' to be of type int"),
        (damaged(retain=None), "expected 'retain' to be of type dict"),
        (damaged(forget__sha256=None), "expected 'sha256' in 'forget'"),
        (damaged(forget__sha256="0" * 64), "its forget indices do not have the sha256"),
        (damaged(retain__sha256="0" * 64), "its retain indices do not have the sha256"),
        (damaged(forget__indices=[0, 1]), "its forget indices do not have the sha256"),
        (damaged(forget__indices=[0, "1"]), "an index must be an integer, got '1'"),
        (damaged(forget__indices=3), "must hold a list of indices, got int"),
        (damaged(task="everything"), "unknown task 'everything'"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        Split.load(path, toy())


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (5, "must be integers or a DeletionList .read_deletion_list reads files., got an int"),
        (Path("list.csv"), "got a PosixPath"),
        ("12", "got a str"),
        ({3: "x"}, "got a dict"),
        (torch.tensor(5), r"must be integers of shape \[N\], got torch.int64 of shape \[\]"),
        (torch.tensor([1 + 0j]), "got torch.complex64"),
        (torch.tensor([True, False]), "got torch.bool"),
        ([True, False], "an index must be an integer, got True"),
        ([-1], r"index out of range: expected 0..99 \(100 training samples\), got -1"),
    ],
)
def test_what_are_no_indices_is_refused(indices: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tasks.index_split(toy(100), indices)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.json' cannot be read as a split manifest: No such file"):
        Split.load(tmp_path / "none.json", toy())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", "3\n1\n\n2\n"),
        ("ids.csv", "3,1,2"),
        ("ids", " 3, 1\r\n2 "),
        ("ids.json", "[3, 1, 2]"),
    ],
)
def test_read_indices_from_text(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    indices = tasks.read_indices(tmp_path / name)
    assert indices.dtype == torch.int64 and indices.tolist() == [3, 1, 2]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_read_indices_from_numpy(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "ids.npy", np.array([3, 1, 2], dtype))
    assert tasks.read_indices(tmp_path / "ids.npy").tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ids.txt", b"1\ntwo\n", "ids.txt', line 2: an index must be an integer, got 'two'"),
        ("ids.txt", b"1.5", "got '1.5'"),
        ("ids.txt", b"99999999999999999999", "an index must be an integer"),
        ("ids.txt", b"\xff\xfe\x00", "cannot be read as a file of indices"),
        ("ids.json", b"[1, true]", "an index must be an integer, got True"),
        ("ids.json", b"{}", "must hold a list of indices, got dict"),
        ("ids.json", b"[1,", "cannot be read as a file of indices"),
        ("ids.npy", b"1, 2", "cannot be read as a file of indices"),
        ("ids.npy", b"", "cannot be read as a file of indices"),
    ],
)
def test_files_that_hold_no_indices(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        tasks.read_indices(tmp_path / name)


def test_arrays_that_hold_no_indices(tmp_path: Path) -> None:
    for array in (np.zeros(3), np.zeros((2, 2), np.int64), np.array([True])):
        np.save(tmp_path / "ids.npy", array)
        with pytest.raises(UserError, match="must hold integers in one dimension"):
            tasks.read_indices(tmp_path / "ids.npy")
    np.save(tmp_path / "ids.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read as a file of indices"):
        tasks.read_indices(tmp_path / "ids.npy")
    with pytest.raises(UserError, match="none.txt' cannot be read as a file of indices: No such file"):
        tasks.read_indices(tmp_path / "none.txt")


def test_an_empty_file_asks_to_forget_nothing(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\n")
    with pytest.raises(UserError, match="forget set must have at least one"):
        tasks.index_split(toy(), tasks.read_indices(tmp_path / "ids.txt"))


# Wrong labels


def test_noisy_split_forgets_what_it_mislabels() -> None:
    dataset = toy(1000)
    split = tasks.noisy_split(dataset)
    true, given = dataset.train.targets, split.train.targets
    assert len(split.forget) == 300  # 60 % of the 500 labelled 0 to 4
    assert set(true[split.forget_indices].tolist()) == {0, 1, 2, 3, 4}
    assert bool((given != true)[split.forget_indices].all())
    assert torch.equal(given[split.retain_indices], true[split.retain_indices])
    # Any other class: 30 of each class kept its images, of 300 labels some 33 go to each class.
    counts = torch.bincount(split.forget.targets, minlength=10)
    assert counts.min() > 10 and counts[5:].sum() > counts[:5].sum()
    assert split.test is dataset.test and split.origin is dataset and split.forget_classes == ()
    assert split.params == {"fraction": 0.6, "classes": [0, 1, 2, 3, 4]}
    assert torch.equal(split.train.images, dataset.train.images)


def test_wrong_labels_follow_the_seed_alone() -> None:
    first, again, other = (tasks.noisy_split(toy(), fraction=0.5, classes=[3, 4], seed=seed) for seed in (1, 1, 2))
    assert len(first.forget) == 10
    assert torch.equal(first.forget.targets, again.forget.targets)
    assert torch.equal(first.forget_indices, again.forget_indices)
    assert not torch.equal(first.forget_indices, other.forget_indices)
    assert first.dataset.fingerprint() == again.dataset.fingerprint() != other.dataset.fingerprint()


def test_a_wrong_label_needs_another_class() -> None:
    images = torch.zeros(4, 1, 2, 2)
    dataset = from_tensors(images, torch.zeros(4).long(), images, torch.zeros(4).long())
    with pytest.raises(UserError, match="a wrong label needs another class, but 'custom' has only one"):
        tasks.noisy_split(dataset, classes=[0])


def test_a_manifest_gives_the_wrong_labels_back(tmp_path: Path) -> None:
    split = tasks.noisy_split(toy(), seed=3)
    split.save(tmp_path / "split.json")
    manifest: Any = split.manifest()
    assert manifest["dataset"]["fingerprint"] == toy().fingerprint()  # of the data as anyone can load them
    assert manifest["labels"]["targets"] == split.forget.targets.tolist()
    again = Split.load(tmp_path / "split.json", toy())
    assert again.manifest() == manifest
    assert again.dataset.fingerprint() == split.dataset.fingerprint() != toy().fingerprint()


def noisy_manifest(**labels: Any) -> str:
    manifest: Any = tasks.noisy_split(toy()).manifest()
    manifest["labels"].update(labels)
    return json.dumps({key: value for key, value in manifest.items() if key != "labels" or labels != {"targets": None}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (noisy_manifest(targets=None), "expected 'labels' to be of type dict"),
        (noisy_manifest(sha256="0" * 64), "is damaged: its labels do not have the sha256"),
        (noisy_manifest(targets=[1] * 30), "is damaged: its labels do not have the sha256"),
        (noisy_manifest(targets=[1] * 29), "labels must be one per sample to forget, 30, got 29"),
        (noisy_manifest(targets=[10] * 30), r"targets must lie in 0\.\.9"),
        (noisy_manifest(targets=["1"] * 30), "an index must be an integer, got '1'"),
    ],
)
def test_damaged_labels_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match=message):
        Split.load(tmp_path / "split.json", toy())


# Labels withheld


def test_semi_supervised_split_forgets_labelled_samples_only() -> None:
    dataset = toy(1000)
    split = tasks.semi_supervised_split(dataset)
    unlabelled = split.unlabelled_indices
    assert unlabelled is not None and len(unlabelled) == 600
    among = set(unlabelled.tolist())
    labelled = [index for index in range(1000) if index not in among]
    eligible = [index for index in labelled if index % 10 >= 5]
    assert len(split.forget) == round(0.4 * len(eligible)) and set(split.forget_indices.tolist()) <= set(eligible)
    assert set(split.labelled_retain_indices.tolist()) == set(labelled) - set(split.forget_indices.tolist())
    assert set(split.retain_indices.tolist()) == set(range(1000)) - set(split.forget_indices.tolist())
    assert split.params == {"labelled": 0.4, "fraction": 0.4, "classes": [5, 6, 7, 8, 9]} and split.forget_classes == ()
    fewer = tasks.semi_supervised_split(dataset, labelled=0.1, fraction=0.1, classes=[2])
    assert fewer.unlabelled_indices is not None and len(fewer.unlabelled_indices) == 900
    assert set(fewer.forget.targets.tolist()) == {2}


def test_the_trainings_of_a_semi_supervised_split_get_no_withheld_label() -> None:
    split = tasks.semi_supervised_split(toy(100))
    everything, retained = split.training_set, split.retained_training_set
    assert split.unlabelled_indices is not None
    for images in (everything, retained):
        assert isinstance(images.unlabelled, UnlabelledImages) and not hasattr(images.unlabelled, "targets")
        assert torch.equal(images.unlabelled.images, split.train.images[split.unlabelled_indices])
    known = torch.cat([split.forget_indices, split.labelled_retain_indices]).sort().values
    assert torch.equal(everything.labelled.images, split.train.images[known])
    assert torch.equal(everything.labelled.targets, split.train.targets[known])
    assert torch.equal(retained.labelled.images, split.train.images[split.labelled_retain_indices])
    assert everything.fingerprint() != retained.fingerprint()
    plain = tasks.class_split(toy(100))
    assert plain.training_set.unlabelled is None and plain.retained_training_set.labelled is plain.retain
    assert plain.training_set.fingerprint() == plain.train.fingerprint()


def test_which_labels_are_withheld_follows_the_seed_alone() -> None:
    first, again, other = (tasks.semi_supervised_split(toy(), seed=seed) for seed in (1, 1, 2))
    assert first.manifest() == again.manifest()
    assert first.manifest()["unlabelled"] != other.manifest()["unlabelled"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: tasks.semi_supervised_split(d, labelled=0), "labelled must be a share above 0 and below 1, got 0"),
        (lambda d: tasks.semi_supervised_split(d, labelled=1.0), "labelled must be a share above 0 and below 1, got 1"),
        (lambda d: tasks.semi_supervised_split(d, labelled=0.001), "the forget set must have at least one"),
        (lambda d: tasks.semi_supervised_split(d, labelled=0.999), "the unlabelled set must have at least one"),
        (lambda d: tasks.semi_supervised_split(d, fraction=0), "fraction must be above 0"),
        (
            lambda d: tasks.semi_supervised_split(d, fraction=1, classes=range(10)),
            "the retain set must have at least one labelled sample, got none",
        ),
        (
            lambda d: Split(d, "semi", torch.tensor([0]), 0, {}),
            "unlabelled_indices belong to the task 'semi' and to no other, got the task 'semi'",
        ),
        (
            lambda d: Split(d, "data", torch.tensor([0]), 0, {}, unlabelled_indices=torch.tensor([1])),
            "unlabelled_indices belong to the task 'semi' and to no other, got the task 'data'",
        ),
        (
            lambda d: Split(d, "semi", torch.tensor([0]), 0, {}, unlabelled_indices=torch.tensor([0, 1])),
            "the forget set must have labels, got samples of it among the unlabelled ones",
        ),
    ],
)
def test_semi_supervised_splits_that_make_no_sense(make: Callable[[Dataset], Split], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(toy())


def test_a_manifest_gives_the_withheld_labels_back(tmp_path: Path) -> None:
    split = tasks.semi_supervised_split(toy(), seed=3)
    split.save(tmp_path / "split.json")
    again = Split.load(tmp_path / "split.json", toy())
    assert again.manifest() == split.manifest()
    assert again.training_set.fingerprint() == split.training_set.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.pop("unlabelled"), "expected 'unlabelled' to be of type dict"),
        (lambda manifest: manifest["unlabelled"].pop("indices"), "expected 'indices' in 'unlabelled'"),
        (lambda manifest: manifest["unlabelled"]["indices"].pop(), "its unlabelled indices do not have the sha256"),
    ],
)
def test_a_damaged_list_of_withheld_labels_is_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    manifest: Any = tasks.semi_supervised_split(toy()).manifest()
    change(manifest)
    (tmp_path / "split.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        Split.load(tmp_path / "split.json", toy())


SAMPLES: dict[str, tuple[Callable[[Dataset], Split], str]] = {
    "data": (lambda d: tasks.data_split(d), "forget"),
    "noisy": (lambda d: tasks.noisy_split(d), "forget"),
    "noisy, labels": (lambda d: tasks.noisy_split(d), "labels"),
    "semi": (lambda d: tasks.semi_supervised_split(d, labelled=0.5), "forget"),
    "semi, withheld": (lambda d: tasks.semi_supervised_split(d, labelled=0.5), "unlabelled"),
}
"""Splits by a seed, and the part of their manifest that it decides."""


def drawn(name: str) -> str:
    make, part = SAMPLES[name]
    manifest: dict[str, Any] = make(toy()).manifest()
    return str(manifest[part]["sha256"])[:12]


def test_a_seed_draws_the_same_samples_in_every_version() -> None:
    assert {name: drawn(name) for name in SAMPLES} == {
        "data": "5e0705d66166",
        "noisy": "3fa84fc2eed0",
        "noisy, labels": "5945ead0332f",
        "semi": "d7fcec866edc",
        "semi, withheld": "11bd30cc2b4a",
    }


def test_two_classes_are_enough_for_a_wrong_label() -> None:
    images, labels = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2
    dataset = from_tensors(images, labels, images, labels, classes=("a", "b"))
    split = tasks.noisy_split(dataset, fraction=0.5, classes=(0, 1))
    assert torch.equal(split.forget.targets, 1 - labels[split.forget_indices])


def test_an_index_beyond_the_samples_is_named_and_not_the_lowest() -> None:
    with pytest.raises(UserError, match="got 100$"):
        tasks.index_split(toy(), [1, 3, 100])
    with pytest.raises(UserError, match="got -1$"):
        tasks.index_split(toy(), [-1, 3, 100])


def test_images_are_taken_out_of_the_test_set_once_more() -> None:
    once = tasks.index_split(toy(), [1, 2]).without({"test": torch.tensor([4, 2])})
    twice = once.without({"test": torch.tensor([9, 2])})
    assert twice.removed["test"].tolist() == [2, 4, 9] and len(twice.test) == 17
    with pytest.raises(UserError, match="got 20$"):
        once.without({"test": torch.tensor([20])})


def test_a_split_is_not_read_beside_another_validation_set(tmp_path: Path) -> None:
    plain, path = toy(), tmp_path / "split.json"
    some = plain.test.subset(torch.arange(6))
    dataset = replace(plain, validation=some)
    tasks.index_split(dataset, [1, 2]).save(path)
    assert Split.load(path, dataset).dataset.validation is some
    assert Split.load(path, plain).dataset.validation is None
    with pytest.raises(UserError, match="was made beside another validation set: expected one with fingerprint"):
        Split.load(path, replace(plain, validation=plain.test.subset(torch.arange(5))))


@pytest.mark.parametrize("part", ["excluded", "removed"])
def test_what_was_forgotten_before_and_taken_out_comes_back_and_is_checked(part: str, tmp_path: Path) -> None:
    dataset, path = toy(), tmp_path / "split.json"
    split = replace(tasks.index_split(dataset, [1, 2]), excluded_indices=torch.tensor([50, 40]).sort().values)
    split.without({"test": torch.tensor([4, 2])}).save(path)
    back = Split.load(path, dataset)
    assert back.excluded_indices is not None and back.excluded_indices.tolist() == [40, 50]
    assert back.removed["test"].tolist() == [2, 4] and len(back.test) == 18 and len(back.retain) == 96

    manifest = json.loads(path.read_text())
    damaged = manifest["excluded"] if part == "excluded" else manifest["removed"]["test"]
    damaged["indices"] = damaged["indices"][:1]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is damaged: its (retain indices|removed test images)"):
        Split.load(path, dataset)
    del damaged["sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is not a split manifest"):
        Split.load(path, dataset)


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**63)])
def test_an_index_that_has_no_place_in_64_bits_is_refused(value: int) -> None:
    assert to_indices([2**63 - 1], "list").tolist() == [2**63 - 1]
    with pytest.raises(UserError, match="list: an index must be an integer"):
        to_indices([value], "list")
