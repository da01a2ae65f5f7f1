"""Street View House Numbers from its MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.download import find_or_download
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.optional import require
from pymixunlearn.data.preprocess import natural_images
from pymixunlearn.data.registry import Request, register
from pymixunlearn.errors import UserError

_SIDE = 32
_PARTS = ("train", "test")


@register("svhn")
def load_svhn(request: Request) -> Dataset:
    """Load SVHN: 73 257 + 26 032 colour images of 32 x 32, the digit in the middle being the label."""

    def find(root: Path) -> Path | None:
        folders = (root, root / "SVHN", root / "svhn")
        return next((folder for folder in folders if all(_file(folder, part).is_file() for part in _PARTS)), None)

    def fetch(datasets: Any, root: Path) -> None:
        for part in _PARTS:
            url, filename, md5 = datasets.SVHN.split_list[part]
            datasets.utils.download_url(url, root, filename, md5)

    folder = find_or_download(request, find, "the files train_32x32.mat and test_32x32.mat in it or in SVHN", fetch)
    train, test = (_read(_file(folder, part)) for part in _PARTS)
    return Dataset(request.name, train, test, natural_images(request.resize_from(_SIDE)))


def _file(folder: Path, part: str) -> Path:
    return folder / f"{part}_32x32.mat"


def _read(path: Path) -> ImageSet:
    """Read one file: X uint8 [32, 32, 3, N] and y [N, 1] with labels 1..10, where 10 stands for the digit 0."""
    loadmat = require("scipy.io", purpose="the dataset 'svhn'", remedy="install scipy").loadmat
    try:
        content = loadmat(path, variable_names=("X", "y"))
    # scipy has no common class for what a damaged file makes it raise, from ValueError to IndexError and zlib.error.
    except Exception as error:
        raise UserError(f"'{path}' cannot be read as a MATLAB file ({error})") from error
    images, labels = (np.asarray(content.get(name, ())) for name in ("X", "y"))
    if images.ndim != 4 or images.shape[:3] != (_SIDE, _SIDE, 3) or images.dtype != np.uint8:
        raise UserError(
            f"'{path}' must hold X, uint8 of shape [32, 32, 3, N], got {images.dtype} of shape {list(images.shape)}"
        )
    if labels.size != images.shape[3] or labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
        raise UserError(f"'{path}' must hold y, one label in 1..10 for each of its {images.shape[3]} images")
    pixels = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    targets = torch.from_numpy(labels.astype(np.int64).reshape(-1) % 10)
    return ImageSet(torch.from_numpy(pixels), targets, tuple("0123456789"))
