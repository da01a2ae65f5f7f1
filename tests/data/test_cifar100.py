from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pymixunlearn import data
from pymixunlearn.data import cifar100
from pymixunlearn.errors import UserError


def some_parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        name: (random.integers(0, 256, (count, 3072), dtype=np.uint8), np.arange(count, dtype=np.uint8) * 9)
        for name, count in (("train", 11), ("test", 4))
    }


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in some_parts().items():
        coarse = np.full_like(labels, 7)
        (folder / f"{name}.bin").write_bytes(np.column_stack([coarse, labels, pixels]).tobytes())


def check(dataset: data.Dataset) -> None:
    expected = some_parts()
    assert np.array_equal(dataset.train.images.numpy(), expected["train"][0].reshape(11, 3, 32, 32))
    assert dataset.train.targets.tolist() == [9 * number for number in range(11)]
    assert np.array_equal(dataset.test.images.numpy(), expected["test"][0].reshape(4, 3, 32, 32))
    assert dataset.num_classes == 100 and dataset.train.classes[9] == "bottle" and dataset.train.classes[99] == "worm"


@pytest.mark.parametrize("below", ["cifar-100-binary", ""])
def test_binary_version(tmp_path: Path, below: str) -> None:
    write_binary(tmp_path / "data" / below)
    check(data.load("cifar100", data_dir=tmp_path / "data", download=False))


def test_python_version_whose_checksums_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, (pixels, labels) in some_parts().items():
        content = pickle.dumps({"data": pixels, "fine_labels": labels.tolist(), "coarse_labels": [0] * len(labels)})
        (folder / name).write_bytes(content)
        monkeypatch.setitem(cifar100._PYTHON_MD5, name, hashlib.md5(content).hexdigest())
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    check(data.load("cifar100", data_dir=tmp_path, download=False))
    for path in folder.iterdir():
        path.unlink()
    check(data.load("cifar100", data_dir=tmp_path, download=False))


def test_no_other_pickle_is_opened(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="is not the published file: expected md5 16019d7e"):
        data.load("cifar100", data_dir=tmp_path, download=False)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write_binary(tmp_path / "data")
    (tmp_path / "data" / "test.bin").write_bytes(b"123")
    with pytest.raises(UserError, match="is damaged: expected records of 3074 bytes, got 3 bytes"):
        data.load("cifar100", data_dir=tmp_path / "data", download=False)
