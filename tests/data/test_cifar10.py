from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pymixunlearn import data
from pymixunlearn.data import cifar10
from pymixunlearn.errors import UserError

NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def some_batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        name: (random.integers(0, 256, (4, 3072), dtype=np.uint8), random.integers(0, 10, 4, dtype=np.uint8))
        for name in NAMES
    }


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in some_batches().items():
        (folder / f"{name}.bin").write_bytes(np.column_stack([labels, pixels]).tobytes())


def write_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches pickled as the published ones are; their checksums take the place of the published."""
    folder.mkdir(parents=True)
    for name, (pixels, labels) in some_batches().items():
        content = pickle.dumps({"data": pixels, "labels": labels.tolist()})
        (folder / name).write_bytes(content)
        monkeypatch.setitem(cifar10._PYTHON_MD5, name, hashlib.md5(content).hexdigest())


def check(dataset: data.Dataset) -> None:
    expected = some_batches()
    pixels = np.concatenate([expected[name][0] for name in NAMES[:-1]]).reshape(20, 3, 32, 32)
    assert np.array_equal(dataset.train.images.numpy(), pixels)
    assert dataset.train.targets.tolist() == [int(k) for name in NAMES[:-1] for k in expected[name][1]]
    assert np.array_equal(dataset.test.images.numpy(), expected["test_batch"][0].reshape(4, 3, 32, 32))
    assert dataset.train.classes[0] == "airplane" and dataset.num_classes == 10


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", ""])
def test_binary_version(tmp_path: Path, below: str) -> None:
    write_binary(tmp_path / "data" / below)
    check(data.load("cifar10", data_dir=tmp_path / "data", download=False))


def test_python_version_whose_checksums_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_python(tmp_path / "cifar-10-batches-py", monkeypatch)
    check(data.load("cifar10", data_dir=tmp_path, download=False))


@pytest.mark.parametrize("version", ["python", "binary"])
def test_archives_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    folder = tmp_path / "unpacked"
    if version == "python":
        write_python(folder, monkeypatch)
    else:
        write_binary(folder)
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / f"cifar-10-{version}.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches")
    check(data.load("cifar10", data_dir=tmp_path / "data", download=False))
    assert [path.name for path in (tmp_path / "data").iterdir()] == [f"cifar-10-{version}.tar.gz"]


class Trap:
    """Unpickling this leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_an_unknown_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, trace = tmp_path / "cifar-10-batches-py", tmp_path / "trace"
    write_python(folder, monkeypatch)
    (folder / "data_batch_1").write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(UserError, match="data_batch_1' is not the published file: expected md5"):
        data.load("cifar10", data_dir=tmp_path, download=False)
    assert not trace.exists()


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_binary(folder)
    whole = (folder / "test_batch.bin").read_bytes()
    (folder / "test_batch.bin").write_bytes(whole[:-1])
    with pytest.raises(UserError, match="test_batch.bin' is damaged: expected records of 3073 bytes"):
        data.load("cifar10", data_dir=folder, download=False)
    (folder / "test_batch.bin").write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(UserError, match=r"expected labels 0\.\.9, got 10"):
        data.load("cifar10", data_dir=folder, download=False)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(UserError, match="does not hold the dataset 'cifar10': expected the folder"):
        data.load("cifar10", data_dir=folder, download=False)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"not an archive")
    with pytest.raises(UserError, match="cifar-10-binary.tar.gz' cannot be read as a tar archive"):
        data.load("cifar10", data_dir=tmp_path, download=False)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar/data_batch_1.bin"))
    with pytest.raises(UserError, match="is incomplete: .*data_batch_2.bin"):
        data.load("cifar10", data_dir=tmp_path, download=False)


def test_presets(tmp_path: Path) -> None:
    write_binary(tmp_path / "data")
    native = data.load("cifar10", data_dir=tmp_path / "data", download=False)
    assert native.image_size == 32 and native.preprocess == data.natural_images()
    assert data.load("cifar10", data_dir=tmp_path / "data", download=False, image_size=32).preprocess.size is None
    paper = data.load("cifar10", data_dir=tmp_path / "data", download=False, image_size=224)
    assert paper.image_size == 224 and paper.preprocess.random_crop and paper.preprocess.flip
    assert paper.preprocess.evaluation(paper.test.images[:2]).shape == (2, 3, 224, 224)
    assert paper.train.images.dtype == torch.uint8 and paper.train.images.shape[-1] == 32
