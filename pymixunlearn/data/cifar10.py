"""CIFAR-10 from its published batches: the "python" version, checked before it is unpickled, or the "binary" one."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.download import find_or_download
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import natural_images
from pymixunlearn.data.registry import Request, register
from pymixunlearn.errors import UserError

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
PIXELS = 3 * SIDE * SIDE

# md5 of the published files. A pickle runs whatever its author wrote, so no other file is ever unpickled.
_PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_PYTHON_NAMES = tuple(_PYTHON_MD5)
_BINARY_NAMES = tuple(f"{name}.bin" for name in _PYTHON_NAMES)

_Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


@register("cifar10")
def load_cifar10(request: Request) -> Dataset:
    """Load CIFAR-10: 50 000 + 10 000 colour images of 32 x 32."""

    def fetch(datasets: Any, root: Path) -> None:
        datasets.CIFAR10(root, download=True)

    expected = (
        "the folder cifar-10-batches-py or cifar-10-batches-bin with data_batch_1 to data_batch_5 and test_batch, "
        "or cifar-10-python.tar.gz or cifar-10-binary.tar.gz"
    )
    source = find_or_download(request, _find, expected, fetch)
    names, parse = _version(source)
    content = read_files(source, names)
    parts = [parse(content[name], source / name) for name in names]
    return Dataset(request.name, _join(parts[:-1]), _join(parts[-1:]), natural_images(request.resize_from(SIDE)))


def _find(root: Path) -> Path | None:
    """The folder that holds every batch of one version, or an archive of it."""
    folders = (root / "cifar-10-batches-py", root / "cifar-10-batches-bin", root)
    for folder in folders:
        if any(all((folder / name).is_file() for name in names) for names in (_PYTHON_NAMES, _BINARY_NAMES)):
            return folder
    archives = (root / "cifar-10-python.tar.gz", root / "cifar-10-binary.tar.gz")
    return next((archive for archive in archives if archive.is_file()), None)


def _version(source: Path) -> tuple[tuple[str, ...], Callable[[bytes, Path], _Batch]]:
    python = "python" in source.name if source.is_file() else (source / _PYTHON_NAMES[0]).is_file()
    return (_PYTHON_NAMES, _parse_python) if python else (_BINARY_NAMES, _parse_binary)


def read_files(source: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Read files of a folder or of a tar archive, where any folder may be around them.

    Raises:
        UserError: The archive or a file cannot be read, or files are missing.
    """
    return _read_archive(source, names) if source.is_file() else _read_folder(source, names)


def _read_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise UserError(f"'{folder}' cannot be read ({error})") from error


def _read_archive(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                file = archive.extractfile(member) if member.isfile() and name in names else None
                if file is not None:
                    content[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read as a tar archive ({error})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise UserError(f"'{path}' is incomplete: expected {', '.join(names)} in it, {', '.join(missing)} is missing")
    return content


def checked_pickle(content: bytes, path: Path, expected: str) -> None:
    """Check that a pickle is the published one, before it is opened.

    Raises:
        UserError: It is another file.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise UserError(
            f"'{path}' is not the published file: expected md5 {expected}, got {found}; it is a pickle, which is not "
            "opened unless it is known"
        )


def _parse_python(content: bytes, path: Path) -> _Batch:
    checked_pickle(content, path, _PYTHON_MD5[path.name])
    batch = pickle.loads(content, encoding="latin1")
    return np.asarray(batch["data"], np.uint8), np.asarray(batch["labels"], np.int64)


def _parse_binary(content: bytes, path: Path) -> _Batch:
    """Records of one label byte and 3072 pixels, channel by channel."""
    if not content or len(content) % (1 + PIXELS):
        raise UserError(f"'{path}' is damaged: expected records of {1 + PIXELS} bytes, got {len(content)} bytes in all")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    if records[:, 0].max() >= len(_CLASSES):
        raise UserError(f"'{path}' is damaged: expected labels 0..{len(_CLASSES) - 1}, got {records[:, 0].max()}")
    return records[:, 1:], records[:, 0].astype(np.int64)


def _join(parts: list[_Batch]) -> ImageSet:
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, SIDE, SIDE)
    labels = np.concatenate([labels for _, labels in parts])
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), _CLASSES)
