"""A request means what its author thinks: lists in any form, files by name, classes by name or index."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pymixunlearn import tasks
from pymixunlearn.data import Dataset, ImageSet, Preprocess, from_tensors
from pymixunlearn.errors import UserError
from pymixunlearn.tasks import DeletionList, Split
from pymixunlearn.tasks.samples import class_index


def part(paths: list[str], first: int) -> ImageSet:
    images = torch.arange(first, first + len(paths), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(images, torch.arange(len(paths)) % 2, ("cat", "dog"), tuple(paths))


def photos() -> Dataset:
    train = ["train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "train/dog/caf\u00e9.png"]
    return Dataset(
        "photos",
        part(train, 0),
        part(["test/cat/0.png", "test/dog/7.png", "test/dog/8.png"], 10),
        Preprocess(),
        validation=part(["val/cat/9.png", "val/dog/10.png"], 20),
    )


def written(tmp_path: Path, content: bytes | str, name: str = "list.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Lists


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16", "utf-16 big end", "utf-32", "utf-16 of Windows"],
)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "3\n1\n2\n"),
        ("a.txt", "3, 1,2"),
        ("a.json", "[3, 1, 2]"),
        ("a.csv", "index\n3\n1\n2\n"),
        ("a.csv", "sep=;\nwho;index\nx;3\ny;1\nz;2\n"),
        ("a.csv", "index,who\n3,x\n1,y\n,\n2,z\n"),
        ("a.tsv", "who\tIndex \nx\t3\ny\t1\nz\t2\n\n"),
        ("a", 'who;"index"\n"a;b";3\nb;1\nc;2\n'),
    ],
)
def test_indices_in_any_form(tmp_path: Path, name: str, text: str, encode: Any) -> None:
    assert tasks.read_indices(written(tmp_path, encode(text), name)).tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n1_0\n", "line 2: an index must be an integer, got '1_0'"),
        ("1\n\u0661\n", "line 2: an index must be an integer"),
        ("index\n4\n1,234\n", "line 3: expected 1 cells, got 2"),
        ('index,x\n4,\n"1,234",\n', "line 3: an index must be an integer, got '1,234'"),
        ("index;x\n1.0;\n", "line 2: an index must be an integer, got '1.0'"),
        ("sep=;\nindex;x\n3;\n1_0;\n", "line 4: an index must be an integer, got '1_0'"),
        ("index,index\n1,2\n", "the column 'index' is there 2 times"),
        ('index,x\n1,"open\n2,y\n3,z\n', "unexpected end of data"),
        ("index,file\n1,a\n2\n", "1 rows lack a file"),
        (b"1\n\xe4\n", "it is not in UTF-8, at byte 2; save it in UTF-8"),
        ("1\n2\n".encode("utf-16-le"), "save it in UTF-8, or in UTF-16 with a byte order mark"),
        ("file\na.png\n", "names files; expected indices alone"),
        ("7\n1,000\n", "line 2: '1,000' may be one index with a thousands comma, or several"),
        ("1,234,567", "line 1: '1,234,567' may be one index with a thousands comma, or several"),
        ("0,12\n1,15\n", "has 2 lines of 2 numbers each and no heading, so that it is not clear which"),
        (",0\n5,12\n6,15\n", "line 1: expected an index before the first comma, got ',0'"),
        ("12 3\n\n15 4\n17 3\n", "has 3 lines of 2 numbers each and no heading"),
    ],
)
def test_what_is_no_list_is_refused_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        tasks.read_indices(written(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("1, 234, 567", [1, 234, 567]),
        ("100,200,300,400", [100, 200, 300, 400]),  # no number of a milliard and more is an index
        ("1,23", [1, 23]),
        ("1,2,3\n4,5\n", [1, 2, 3, 4, 5]),
    ],
)
def test_lists_that_can_be_read_in_one_way_only(tmp_path: Path, text: str, indices: list[int]) -> None:
    assert tasks.read_indices(written(tmp_path, text)).tolist() == indices


def test_two_rows_for_one_image_are_one_image_with_two_ids(tmp_path: Path) -> None:
    by_index = tasks.read_deletion_list(written(tmp_path, "index,person\n1,ann\n2,bob\n1,bob\n"), "person")
    by_file = tasks.read_deletion_list(written(tmp_path, "file;person\n1.png;ann\n2.png;bob\n1.png;bob\n"), "person")
    for request in (by_index, by_file):
        split = tasks.index_split(photos(), request)
        assert len(request) == 3 and split.forget_indices.tolist() == [1, 2]
        params: Any = split.params
        assert params["count"] == 2 and params["ids"]["count"] == 2
    with pytest.raises(
        UserError, match="every sample must be listed once, got the index 1 more than once; with an id column"
    ):
        tasks.index_split(photos(), DeletionList((1, 2, 1)))


# Files


@pytest.mark.parametrize(
    ("name", "index"),
    [("train/cat/1.png", 1), ("cat/1.png", 1), ("1.png", 1), ("./train/dog/2.png", 2), ("dog\\2.png", 2)]
    + [("cafe\u0301.png", 3), ("train/cat/0.png", 0)],
)
def test_a_file_by_its_path_or_the_end_of_it(name: str, index: int) -> None:
    assert tasks.index_split(photos(), DeletionList((), files=(name,))).forget_indices.tolist() == [index]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("x.png", "1.png", "at/1.png"), "2 of the listed files are not in the data 'photos': 'x.png', 'at/1.png'"),
        (
            ("0.png",),
            "several paths in the data 'photos': '0.png' ('train/cat/0.png' (train) or ",
        ),
        (("/other/train/cat/1.png",), "are not in the data"),
        (("7.png",), "none of the 1 listed samples is a training image"),
        (("/train/cat/1.png",), "are not in the data"),
        (("1.png", "cat/1.png"), "every sample must be listed once, got 'train/cat/1.png' more than once"),
        (("1.png\x1b[31m",), "'1.png\\x1b[31m'"),
    ],
)
def test_files_that_are_not_one_sample_are_listed(files: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        tasks.index_split(photos(), DeletionList((), files=files))
    assert message in str(caught.value)


def test_a_path_from_elsewhere_leads_to_the_file() -> None:
    stored = replace(photos(), source="/home/ann/photos")
    for name in (
        "/home/ann/photos/train/cat/1.png",
        "photos/train/cat/1.png",
        "./train/cat/1.png",
        "train\\cat\\1.png",
    ):
        assert tasks.index_split(stored, DeletionList((), files=(name,))).forget_indices.tolist() == [1]
    for name in ("/home/eve/photos/train/cat/1.png", "/photos/train/cat/1.png", "tos/train/cat/1.png"):
        with pytest.raises(UserError, match="are not in the data"):
            tasks.index_split(stored, DeletionList((), files=(name,)))


def test_a_name_with_spaces_around_it_is_found(tmp_path: Path) -> None:
    dataset = Dataset(
        "odd", part(["train/ a.png", "train/a.png", "train/b.png"], 0), part(["test/c.png"], 9), Preprocess()
    )
    listed = tasks.read_deletion_list(written(tmp_path, "file,person\ntrain/ a.png,p\n b.png ,q\n"), "person")
    assert tasks.index_split(dataset, listed).forget_indices.tolist() == [0, 2]


def test_a_plain_list_of_files_says_how_files_are_listed(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="line 1: an index must be an integer, got 'cat/1.png'; files are listed under a"
    ):
        tasks.read_deletion_list(written(tmp_path, "cat/1.png\n", "list.txt"))


def test_an_index_beside_a_file_must_be_its_own() -> None:
    assert tasks.index_split(photos(), DeletionList((1,), files=("1.png",))).forget_indices.tolist() == [1]
    with pytest.raises(UserError, match="row 2 of the list names '2.png', which is train image 2, and the index 3"):
        tasks.index_split(photos(), DeletionList((1, 3), files=("1.png", "2.png")))


def test_data_without_files_take_indices_only() -> None:
    images = torch.zeros(4, 1, 2, 2)
    plain = from_tensors(images, torch.tensor([0, 1, 0, 1]), images, torch.tensor([0, 1, 0, 1]))
    with pytest.raises(UserError, match="the images of 'custom' are no files; expected a list of indices"):
        tasks.index_split(plain, DeletionList((), files=("0.png",)))


def test_test_and_validation_images_are_taken_out_where_they_are(tmp_path: Path) -> None:
    request = DeletionList((), files=("1.png", "test/dog/7.png", "9.png"))
    split = tasks.index_split(photos(), request)
    assert split.forget_indices.tolist() == [1]
    assert split.test.paths == ("test/cat/0.png", "test/dog/8.png")
    assert split.dataset.validation is not None and split.dataset.validation.paths == ("val/dog/10.png",)
    manifest: Any = split.manifest()
    assert manifest["dataset"]["fingerprint"] == photos().fingerprint()
    assert manifest["removed"]["test"]["indices"] == [1] and manifest["removed"]["validation"]["indices"] == [0]
    split.save(tmp_path / "split.json")
    again = Split.load(tmp_path / "split.json", photos())
    assert again.manifest() == manifest and again.test.paths == split.test.paths
    manifest["removed"]["test"]["indices"] = [2]
    (tmp_path / "split.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="its removed test images do not have the sha256"):
        Split.load(tmp_path / "split.json", photos())


# Samples that were forgotten before


def test_excluded_samples_are_in_neither_set(tmp_path: Path) -> None:
    split = Split(photos(), "indices", torch.tensor([1]), 0, {"count": 1}, excluded_indices=torch.tensor([3]))
    assert split.retain_indices.tolist() == [0, 2] and len(split.training_set.labelled) == 3
    assert len(split.retained_training_set.labelled) == 2
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json", photos()).manifest() == split.manifest()
    with pytest.raises(UserError, match="the forget set holds samples that were forgotten before"):
        Split(photos(), "indices", torch.tensor([1]), 0, {}, excluded_indices=torch.tensor([1]))
    with pytest.raises(UserError, match="retain set must have at least one"):
        Split(photos(), "indices", torch.tensor([1]), 0, {}, excluded_indices=torch.tensor([0, 2, 3]))


# Copies


def test_exact_copies_that_remain_are_named() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    images[[2, 4]] = images[0].clone()
    test = torch.full_like(images, 100)
    test[5] = images[0]
    dataset = from_tensors(images, torch.arange(6) % 2, test, torch.arange(6) % 2)
    split = tasks.index_split(dataset, [0, 2])
    assert {name: indices.tolist() for name, indices in split.copies.items()} == {"retain": [4], "test": [5]}
    manifest: Any = split.manifest()
    assert manifest["copies"]["retain"]["indices"] == [4] and manifest["copies"]["test"]["count"] == 1
    assert "copies" not in tasks.index_split(dataset, [1]).manifest()
    watched = replace(dataset, validation=dataset.train.subset(torch.tensor([3, 4])))
    assert tasks.index_split(watched, [0, 2]).copies["validation"].tolist() == [1]


# Classes


def numbered() -> Dataset:
    images = torch.zeros(8, 1, 2, 2)
    labels = torch.arange(8) % 4
    return from_tensors(images, labels, images, labels, classes=("1", "10", "2", "3"))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("10", 1),
        ("name:1", 0),
        ("index:1", 1),
        ("name:3", 3),
        ("index:3", 3),
        ("2", 2),
        ("3", 3),
        ("0", 0),
        (2, 2),
        (torch.tensor(3), 3),
    ],
)
def test_a_class_by_name_or_index(name: Any, index: int) -> None:
    assert class_index(name, numbered()) == index
    assert tasks.class_split(numbered(), [name]).forget_classes == (index,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1", "'1' is the name of class 0 and the index of class 1, '10'; expected 'name:1' or 'index:1'"),
        ("4", "class 4 does not exist"),
        ("1_0", "unknown class of 'custom' '1_0'"),
        (" 1", "unknown class of 'custom' ' 1'"),
        ("name:4", "unknown class of 'custom' 'name:4'"),
        ("index:x", "unknown class of 'custom' 'x'"),
        (1.0, "a class must be an index or a name, got 1.0"),
        (True, "class True does not exist"),
        ("-1", "class -1 does not exist"),
    ],
)
def test_a_class_that_could_be_another_is_refused(name: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        class_index(name, numbered())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("names", "text", "outcome"),
    [
        (("01", "02", "03"), "1", "'1' may mean class 0, '01', or the index of class 1, '02'; expected 'name:01' or"),
        (("01", "02", "03"), "index:1", 1),
        (("01", "02", "03"), "name:01", 0),
        (("01", "02", "10"), "02", "'02' is the name of class 1 and the index of class 2, '10'"),
        (("00", "01", "02"), "1", 1),  # either way the same class
        (("010", "020", "030"), "2", 2),  # twenty is another number
    ],
)
def test_leading_zeros_do_not_make_another_class(names: tuple[str, ...], text: str, outcome: int | str) -> None:
    images, labels = torch.zeros(6, 1, 2, 2), torch.arange(6) % 3
    dataset = from_tensors(images, labels, images, labels, classes=names)
    if isinstance(outcome, int):
        assert class_index(text, dataset) == outcome
        return
    with pytest.raises(UserError) as caught:
        class_index(text, dataset)
    assert outcome in str(caught.value)


# Listing


def test_the_samples_of_a_data_set_are_listed_by_index() -> None:
    listed = list(tasks.list_samples(photos()))
    assert listed[2] == tasks.Sample(2, "cat", "train/dog/2.png") and [sample.index for sample in listed] == [
        0,
        1,
        2,
        3,
    ]
    assert [sample.index for sample in tasks.list_samples(photos(), ["dog"])] == [1, 3]
    assert [sample.index for sample in tasks.list_samples(photos(), [0, "index:1"])] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="unknown class of 'photos' 'bird'"):
        tasks.list_samples(photos(), ["bird"])


def test_a_file_is_found_under_the_name_that_it_is_shown_by(tmp_path: Path) -> None:
    paths = ["train/a\x1b[31m.png", "train/line\nbreak.png", "train/\udcff.png", "train/d.png"]
    dataset = Dataset("odd", part(paths, 0), part(["test/e.png"], 10), Preprocess())
    shown = ["train/a\\x1b[31m.png", "train/line\\x0abreak.png", "train/\\xff.png"]
    for index, (path, name) in enumerate(zip(paths, shown, strict=False)):
        for text in (path, name):
            split = tasks.index_split(dataset, DeletionList((), files=(text,)))
            assert split.forget_indices.tolist() == [index]


def test_a_number_that_is_no_index_is_a_name_alone() -> None:
    images, labels = torch.zeros(6, 1, 2, 2), torch.arange(6) % 3
    shoes = from_tensors(images, labels, images, labels, classes=("3", "40", "41"))
    assert class_index("3", shoes) == 0  # three classes: 0, 1 and 2 are indices


@pytest.mark.parametrize(("count", "more"), [(20, ""), (21, " and 1 more"), (25, " and 5 more")])
def test_of_many_missing_files_the_first_are_listed(count: int, more: str) -> None:
    with pytest.raises(UserError) as caught:
        tasks.index_split(photos(), DeletionList((), files=tuple(f"x{number}.png" for number in range(count))))
    assert str(caught.value).endswith(f"'x19.png'{more}") and f"{count} of the listed files" in str(caught.value)
