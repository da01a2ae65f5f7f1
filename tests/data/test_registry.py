from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch

from pymixunlearn import data
from pymixunlearn.data import download, optional, registry
from pymixunlearn.data.registry import source_of
from pymixunlearn.errors import UserError


def offer(monkeypatch: pytest.MonkeyPatch, **datasets: object) -> None:
    """Put a module in the place of torchvision.datasets."""
    monkeypatch.setattr(download, "require", lambda *_, **__: SimpleNamespace(**datasets))


def test_every_dataset_of_the_contract_is_there() -> None:
    assert data.available() == ("cifar10", "cifar100", "digits", "fashion-mnist", "imagefolder", "mnist", "svhn")


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="unknown dataset 'minst'.*Did you mean 'mnist'"):
        data.load("minst")
    with pytest.raises(UserError, match="image_size must be at least 1, got 0"):
        data.load("digits", image_size=0)


def test_a_part_has_always_the_same_training_images_and_all_test_images() -> None:
    whole, part, again = (data.load(name) for name in ("digits", "digits@200", "digits@200"))
    assert part.name == "digits@200" and len(part.train) == 200
    assert part.fingerprint() == again.fingerprint() != whole.fingerprint()
    assert torch.equal(part.test.images, whole.test.images) and part.train.targets.bincount().min() > 5
    pixels = {tuple(image.flatten().tolist()) for image in whole.train.images}
    assert all(tuple(image.flatten().tolist()) in pixels for image in part.train.images)
    assert whole.validation is None and part.validation is not None and len(part.validation) == 1438 - 200
    known = {bytes(image) for image in part.train.images.numpy()}
    unseen = [bytes(image) for image in part.validation.images.numpy()]
    assert sum(image in known for image in unseen) == 0  # digits has no two equal images
    assert data.load("digits@1438").train.fingerprint() == whole.train.fingerprint()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits@0", "'digits@0' asks for 0 training images; expected 1 to 1438"),
        ("digits@1439", "'digits@1439' asks for 1439 training images; expected 1 to 1438"),
        ("digits@", "dataset is 'digits@'; expected a whole number of training images behind the @"),
        ("digits@1e3", "dataset is 'digits@1e3'; expected a whole number"),
        ("digist@10", "unknown dataset 'digist'.*Did you mean 'digits'"),
    ],
)
def test_parts_that_do_not_exist_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.load(name)


def test_digits_need_no_files_and_no_network() -> None:
    dataset = data.load("digits")
    assert dataset.train.images.shape == (1438, 1, 8, 8) and len(dataset.test) == 359
    assert dataset.train.images.dtype == torch.uint8 and dataset.train.images.max() == 255
    assert dataset.num_classes == 10 and dataset.image_size == 8
    counts = dataset.test.targets.bincount()
    assert counts.min() >= 35 and counts.max() <= 37
    assert dataset.fingerprint() == data.load("digits").fingerprint()
    assert data.load("digits", image_size=16).image_size == 16
    with pytest.raises(UserError, match="data_dir has no meaning for the dataset 'digits'"):
        data.load("digits", data_dir="somewhere")


def test_a_dataset_of_ones_own_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    images = torch.zeros(2, 1, 8, 8)
    toy = data.from_tensors(images, torch.tensor([0, 1]), images, torch.tensor([0, 1]), name="toy")
    data.register("toy")(lambda request: toy)
    loaded = data.load("toy")
    assert loaded.train is toy.train and loaded.source == "toy" and "toy" in data.available()


@pytest.mark.parametrize("given", [True, False])
def test_missing_files_are_downloaded_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
    write_mnist: Callable[..., object],
    given: bool,
) -> None:
    calls: list[Path] = []

    def mnist(root: Path, download: bool) -> None:
        assert download
        calls.append(root)
        write_mnist(root / "MNIST" / "raw", gz=True)

    offer(monkeypatch, MNIST=mnist)
    root = tmp_path / "new" / "folder" if given else own_cache / "datasets"
    for _ in range(2):
        assert len(data.load("mnist", data_dir=root if given else None).train) == 20
    assert len(calls) == 1
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    assert len(list((root / "MNIST" / "raw").iterdir())) == 4


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def svhn_file(url: str, root: Path, filename: str, md5: str) -> None:
        (Path(root) / filename).write_bytes(b"half of it")
        raise error

    split_list = {part: [f"http://x/{part}", f"{part}_32x32.mat", "md5"] for part in ("train", "test")}
    offer(monkeypatch, SVHN=SimpleNamespace(split_list=split_list), utils=SimpleNamespace(download_url=svhn_file))
    root = tmp_path / "svhn-data"
    with pytest.raises(UserError, match="expected the files train_32x32.mat .*; downloading them failed"):
        data.load("svhn", data_dir=root)
    assert not root.exists()
    root.mkdir()
    with pytest.raises(UserError, match="downloading them failed"):
        data.load("svhn", data_dir=root)
    assert list(root.iterdir()) == []


def test_a_download_that_brings_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CIFAR10=lambda root, download: None)
    with pytest.raises(UserError, match="the download did not bring them"):
        data.load("cifar10", data_dir=tmp_path)


def test_without_torchvision_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(optional, "import_module", broken)
    with pytest.raises(UserError, match="cannot be imported .operator torchvision::nms does not exist.; install"):
        data.load("mnist", data_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "own"))
    assert data.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("PYMIXUNLEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.cache_dir() == tmp_path / "xdg" / "pymixunlearn"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG standard has relative paths ignored
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.cache_dir() == tmp_path / "home" / ".cache" / "pymixunlearn"


def test_the_source_of_data_is_one_for_all_ways_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    place = str((tmp_path / "photos").resolve())
    assert source_of("imagefolder", tmp_path / "photos") == source_of(str(tmp_path / "link")) == place
    assert source_of(f"{tmp_path / 'photos'}@100") == place
    assert source_of("mnist@10000") == source_of("mnist", tmp_path) == "mnist"
    images = torch.zeros(2, 1, 8, 8)
    made = data.from_tensors(images, torch.tensor([0, 1]), images, torch.tensor([0, 1]), name="toy")
    assert made.source is None and made.place.startswith("in memory: toy, ")
    assert data.load("digits@100").place == "digits"
