from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pymixunlearn import data
from pymixunlearn.errors import UserError


def write_part(path: Path, count: int, **changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A file in the published format: X is [32, 32, 3, N], y is [N, 1] with 10 for the digit 0."""
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    labels = (np.arange(count, dtype=np.uint8) % 10 + 1).reshape(-1, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"X": images, "y": labels} | changes, do_compression=True)
    return images, labels


@pytest.mark.parametrize("below", ["", "SVHN", "svhn"])
def test_original_format(tmp_path: Path, below: str) -> None:
    images, labels = write_part(tmp_path / below / "train_32x32.mat", 12)
    write_part(tmp_path / below / "test_32x32.mat", 1)
    dataset = data.load("svhn", data_dir=tmp_path, download=False)
    assert dataset.train.images.shape == (12, 3, 32, 32) and dataset.train.images.is_contiguous()
    assert np.array_equal(dataset.train.images[5].numpy(), images[..., 5].transpose(2, 0, 1))
    assert dataset.train.targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert dataset.test.targets.tolist() == [1]
    assert dataset.preprocess == data.natural_images() and dataset.train.classes == tuple("0123456789")
    assert data.load("svhn", data_dir=tmp_path, download=False, image_size=224).image_size == 224


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 4))}, "must hold X, uint8 .* got float64"),
        ({"X": np.zeros((28, 28, 1, 4), np.uint8)}, r"must hold X, .* \[28, 28, 1, 4\]"),
        ({"y": np.ones((3, 1), np.uint8)}, r"must hold y, one label in 1\.\.10 for each of its 4 images"),
        ({"y": np.full((4, 1), 11, np.uint8)}, r"must hold y, one label in 1\.\.10"),
        ({"y": np.zeros((4, 1), np.uint8)}, r"must hold y, one label in 1\.\.10"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    write_part(tmp_path / "train_32x32.mat", 4)
    write_part(tmp_path / "test_32x32.mat", 4, **changes)
    with pytest.raises(UserError, match=f"test_32x32.mat' {message}"):
        data.load("svhn", data_dir=tmp_path, download=False)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_part(tmp_path / "train_32x32.mat", 4)
    write_part(tmp_path / "test_32x32.mat", 4)
    path = tmp_path / "train_32x32.mat"
    whole = path.read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="train_32x32.mat' cannot be read as a MATLAB file"):
            data.load("svhn", data_dir=tmp_path, download=False)
    path.unlink()
    with pytest.raises(UserError, match="does not hold the dataset 'svhn': expected the files train_32x32.mat"):
        data.load("svhn", data_dir=tmp_path, download=False)
