"""CIFAR-100 from its published files: the "python" version, checked before it is unpickled, or the "binary" one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pymixunlearn.data.cifar10 import PIXELS, SIDE, checked_pickle, read_files
from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.download import find_or_download
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import natural_images
from pymixunlearn.data.registry import Request, register
from pymixunlearn.errors import UserError

_CLASSES = tuple(
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
    "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
    "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm".split()
)

# md5 of the published files. A pickle runs whatever its author wrote, so no other file is ever unpickled.
_PYTHON_MD5 = {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
_BINARY_NAMES = ("train.bin", "test.bin")


@register("cifar100")
def load_cifar100(request: Request) -> Dataset:
    """Load CIFAR-100 with its 100 fine classes: 50 000 + 10 000 colour images of 32 x 32."""

    def fetch(datasets: Any, root: Path) -> None:
        datasets.CIFAR100(root, download=True)

    expected = (
        "the folder cifar-100-python or cifar-100-binary with train and test, or cifar-100-python.tar.gz or "
        "cifar-100-binary.tar.gz"
    )
    source = find_or_download(request, _find, expected, fetch)
    python = "python" in source.name if source.is_file() else (source / "train").is_file()
    names = tuple(_PYTHON_MD5) if python else _BINARY_NAMES
    content = read_files(source, names)
    parse = _parse_python if python else _parse_binary
    train, test = (parse(content[name], source / name) for name in names)
    return Dataset(request.name, train, test, natural_images(request.resize_from(SIDE)))


def _find(root: Path) -> Path | None:
    """The folder that holds both parts of one version, or an archive of it."""
    for folder in (root / "cifar-100-python", root / "cifar-100-binary", root):
        for names in (tuple(_PYTHON_MD5), _BINARY_NAMES):
            if all((folder / name).is_file() for name in names):
                return folder
    archives = (root / "cifar-100-python.tar.gz", root / "cifar-100-binary.tar.gz")
    return next((archive for archive in archives if archive.is_file()), None)


def _parse_python(content: bytes, path: Path) -> ImageSet:
    checked_pickle(content, path, _PYTHON_MD5[path.name])
    batch = pickle.loads(content, encoding="latin1")
    return _image_set(np.asarray(batch["data"], np.uint8), np.asarray(batch["fine_labels"], np.int64))


def _parse_binary(content: bytes, path: Path) -> ImageSet:
    """Records of a coarse and a fine label, a byte each, and 3072 pixels, channel by channel."""
    if not content or len(content) % (2 + PIXELS):
        raise UserError(f"'{path}' is damaged: expected records of {2 + PIXELS} bytes, got {len(content)} bytes in all")
    records = np.frombuffer(content, np.uint8).reshape(-1, 2 + PIXELS)
    if records[:, 1].max() >= len(_CLASSES):
        raise UserError(f"'{path}' is damaged: expected labels 0..{len(_CLASSES) - 1}, got {records[:, 1].max()}")
    return _image_set(records[:, 2:], records[:, 1].astype(np.int64))


def _image_set(pixels: Any, labels: Any) -> ImageSet:
    images = np.ascontiguousarray(pixels).reshape(-1, 3, SIDE, SIDE)
    return ImageSet(torch.from_numpy(images.copy()), torch.from_numpy(labels), _CLASSES)
