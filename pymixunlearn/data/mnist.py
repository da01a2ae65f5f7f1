"""MNIST and Fashion-MNIST from their IDX files, gzipped or unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.download import find_or_download
from pymixunlearn.data.idx import read_idx
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.registry import Request, register
from pymixunlearn.errors import UserError

_PARTS = {"train": "train", "test": "t10k"}
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@register("mnist")
def load_mnist(request: Request) -> Dataset:
    """Load MNIST: 60 000 + 10 000 digits of 28 x 28."""
    return _load(request, "MNIST", tuple("0123456789"))


@register("fashion-mnist")
def load_fashion_mnist(request: Request) -> Dataset:
    """Load Fashion-MNIST: 60 000 + 10 000 pieces of clothing, 28 x 28."""
    return _load(request, "FashionMNIST", _FASHION_CLASSES)


def _load(request: Request, torchvision_name: str, classes: Sequence[str]) -> Dataset:
    def find(root: Path) -> Path | None:
        folders = (root / torchvision_name / "raw", root / torchvision_name, root / "raw", root)
        return next((folder for folder in folders if _is_complete(folder)), None)

    def fetch(datasets: Any, root: Path) -> None:
        getattr(datasets, torchvision_name)(root, download=True)

    names = ", ".join(f"{prefix}-{kind}" for prefix in _PARTS.values() for kind in ("images-idx3", "labels-idx1"))
    expected = f"the files {names} (each -ubyte or -ubyte.gz) in it, in raw or in {torchvision_name}/raw"
    folder = find_or_download(request, find, expected, fetch)
    train, test = (_read(folder, prefix, tuple(classes)) for prefix in _PARTS.values())
    return Dataset(request.name, train, test, Preprocess(request.resize_from(train.images.shape[-1])))


def _file(folder: Path, prefix: str, kind: str) -> Path | None:
    """The unpacked file if there is one, since it reads faster, else the gzipped one."""
    plain = folder / f"{prefix}-{kind}-ubyte"
    return next((path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()), None)


def _is_complete(folder: Path) -> bool:
    return all(_file(folder, prefix, kind) for prefix in _PARTS.values() for kind in ("images-idx3", "labels-idx1"))


def _read(folder: Path, prefix: str, classes: tuple[str, ...]) -> ImageSet:
    image_file, label_file = _file(folder, prefix, "images-idx3"), _file(folder, prefix, "labels-idx1")
    assert image_file is not None and label_file is not None  # _is_complete has seen them
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if len(images) != len(labels):
        raise UserError(
            f"'{label_file}' must have one label per image of '{image_file}' ({len(images)}), got {len(labels)}"
        )
    if labels.size and labels.max() >= len(classes):
        raise UserError(f"'{label_file}' must hold labels 0..{len(classes) - 1}, got {labels.max()}")
    return ImageSet(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).to(torch.int64), classes)
