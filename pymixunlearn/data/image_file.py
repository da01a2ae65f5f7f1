"""File of images that is written one by one and read through a memory map: safetensors with a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pymixunlearn.cores import usable_cores
from pymixunlearn.files import atomic_path

START = 1024
"""Bytes before the first image: the header, whose length must be known before the images are."""

_NAME, _TEXTS = "images", "texts"
_HASHED_AT_ONCE = 2**22


class Hashed(NamedTuple):
    """Image and the SHA-256 of its bytes.

    Attributes:
        pixels: uint8, contiguous.
        sha256: 32 bytes.
    """

    pixels: NDArray[np.uint8]
    sha256: bytes


def hashed(pixels: NDArray[np.uint8]) -> Hashed:
    """Return an image and its hash; in threads, several are hashed at once."""
    whole = np.ascontiguousarray(pixels)
    return Hashed(whole, hashlib.sha256(whole.data).digest())


class MappedImages(NamedTuple):
    """Content of a file of images.

    Attributes:
        images: uint8 ``[N, C, H, W]``, whose pages are read from the file when they are touched.
        names: One per image.
        details: Further JSON-able facts that were saved with them.
    """

    images: Tensor
    names: list[str]
    details: Any


def write_images(
    path: Path, images: Iterable[Hashed], shape: tuple[int, ...], names: list[str], details: Any = None
) -> None:
    """Write images; the file appears whole or not at all, and no more than one image is in memory.

    It is not waited for until the disk has all of it: after a power cut, its hash may say that it is damaged.

    Args:
        path: The file.
        images: N images [C, H, W], see :func:`hashed`.
        shape: (N, C, H, W).
        names: One per image.
        details: Anything JSON-able to save with them.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_path(path, lasting=False) as partial, partial.open("w+b") as file:
        file.seek(START)
        hashes = []
        for image in images:
            file.write(image.pixels.data)
            hashes.append(image.sha256)
        finish_images(file, hashes, shape, names, details)


def finish_images(
    file: BinaryIO, hashes: Iterable[bytes], shape: tuple[int, ...], names: list[str], details: Any = None
) -> None:
    """Make a file of images from one that has them already, one after the other, from byte :data:`START` on.

    Args:
        file: Open for writing; what follows the images is cut off.
        hashes: The SHA-256 of each image.
        shape: (N, C, H, W).
        names: One per image.
        details: Anything JSON-able to save with them.

    Raises:
        OSError: The file cannot be written.
    """
    texts = json.dumps({"paths": names, "details": details}).encode()
    size = math.prod(shape)
    file.seek(START + size)
    file.truncate()
    file.write(texts)
    tensors = {
        _NAME: {"dtype": "U8", "shape": shape, "data_offsets": [0, size]},
        _TEXTS: {"dtype": "U8", "shape": [len(texts)], "data_offsets": [size, size + len(texts)]},
    }
    digest = _started_hash(texts, shape)
    for image in hashes:
        digest.update(image)
    header = json.dumps({"__metadata__": {"sha256": digest.hexdigest()}, **tensors}).encode()
    file.seek(0)
    file.write((START - 8).to_bytes(8, "little") + header.ljust(START - 8))


def map_images(path: Path) -> MappedImages | None:
    """Map what :func:`write_images` wrote; None where the file is missing or not what was written."""
    if not path.is_file():
        return None
    try:
        # Checks the header against the length of the file.
        with safe_open(path, framework="np") as file:
            expected = file.metadata()["sha256"]
            shape = tuple(file.get_slice(_NAME).get_shape())
            texts = file.get_tensor(_TEXTS).tobytes()
        # Copy-on-write: PyTorch has no tensors that cannot be written to; the file itself is never changed.
        pixels = np.memmap(path, np.uint8, mode="c", offset=START, shape=shape)
        digest = _started_hash(texts, shape)
        for image in _hashes(pixels):
            digest.update(image)
        if digest.hexdigest() != expected:
            return None
        found = json.loads(texts)
        return MappedImages(torch.from_numpy(pixels), found["paths"], found["details"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _started_hash(texts: bytes, shape: tuple[int, ...]) -> hashlib._Hash:
    """Hash of shape and texts; the hashes of the images are to follow."""
    return hashlib.sha256(json.dumps(list(shape)).encode() + texts)


def _hashes(images: NDArray[np.uint8]) -> Iterator[bytes]:
    """Return the hash of each image, made in several threads."""
    count = 1 + _HASHED_AT_ONCE // (1 + math.prod(images.shape[1:]))

    def some(first: int) -> list[bytes]:
        return [hashed(image).sha256 for image in images[first : first + count]]

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="hash") as pool:
        return chain.from_iterable(pool.map(some, range(0, len(images), count)))
