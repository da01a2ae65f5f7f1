from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pymixunlearn import data
from pymixunlearn.data.idx import read_idx
from pymixunlearn.errors import UserError

WriteMnist = Callable[..., dict[str, np.ndarray]]

NINE_LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(9)
ONE_BY_ONE = bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0])


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("below", ["MNIST/raw", "raw", "MNIST", "."])
def test_every_place_and_form_of_the_files(tmp_path: Path, write_mnist: WriteMnist, below: str, gz: bool) -> None:
    arrays = write_mnist(tmp_path / below, gz=gz)
    dataset = data.load("mnist", data_dir=tmp_path, download=False)
    assert dataset.train.images.shape == (20, 1, 28, 28) and dataset.train.images.dtype == torch.uint8
    assert np.array_equal(dataset.train.images[:, 0].numpy(), arrays["train-images-idx3"])
    assert np.array_equal(dataset.test.targets.numpy(), arrays["t10k-labels-idx1"])
    assert dataset.train.classes == tuple("0123456789")
    assert dataset.preprocess == data.Preprocess()


def test_fashion_mnist_and_another_image_size(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path / "FashionMNIST" / "raw", gz=True)
    dataset = data.load("fashion-mnist", data_dir=tmp_path, download=False, image_size=32)
    assert dataset.name == "fashion-mnist" and dataset.train.classes[9] == "Ankle boot"
    assert dataset.image_size == 32 and dataset.preprocess == data.Preprocess(size=32)
    same = data.load("fashion-mnist", data_dir=tmp_path, download=False, image_size=28)
    assert same.preprocess == data.Preprocess()


def test_missing_files_are_named(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path / "raw", gz=True)
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="does not hold the dataset 'mnist': expected .*t10k-labels-idx1") as caught:
        data.load("mnist", data_dir=tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unsigned bytes with 1 dimension.* nothing"),
        (b"<html>not found</html>", "unsigned bytes with 1 dimension.* 3c 68 74 6d"),
        (ONE_BY_ONE, "with 1 dimension"),
        (NINE_LABELS[:-1], "damaged: its header announces 9 bytes of data, got 8"),
        (NINE_LABELS + b"x", "damaged: its header announces 9 bytes of data, got 10"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    for path, stored in ((tmp_path / "labels", content), (tmp_path / "labels.gz", gzip.compress(content))):
        path.write_bytes(stored)
        with pytest.raises(UserError, match=message) as caught:
            read_idx(path, 1)
        assert str(path) in str(caught.value)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(NINE_LABELS + bytes(range(200)))
    for name, content in (
        ("cut.gz", whole[:-20]),
        ("plain.gz", b"no gzip at all"),
        ("flipped.gz", whole[:30] + b"?" * 9),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}' cannot be read"):
            read_idx(tmp_path / name, 1)


def test_labels_must_fit_the_images(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path, gz=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 19]) + bytes(19))
    with pytest.raises(UserError, match="one label per image of .* got 19"):
        data.load("mnist", data_dir=tmp_path, download=False)
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes([10]) * 20)
    with pytest.raises(UserError, match=r"labels 0\.\.9, got 10"):
        data.load("mnist", data_dir=tmp_path, download=False)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_data(real_data: Path, name: str) -> None:
    dataset = data.load(name, data_dir=real_data, download=False)
    assert dataset.train.images.shape == (60_000, 1, 28, 28)
    assert dataset.test.images.shape == (10_000, 1, 28, 28)
    counts = dataset.train.targets.bincount()
    assert counts.tolist() == [6000] * 10 if name == "fashion-mnist" else counts[0] == 5923
