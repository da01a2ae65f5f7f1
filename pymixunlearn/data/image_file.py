"""File of images that is written one by one and read through a memory map: safetensors with one tensor and a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pymixunlearn.cores import usable_cores
from pymixunlearn.files import atomic_path

_NAME = "images"
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
    texts = {"paths": json.dumps(names), "details": json.dumps(details)}
    digest = _started_hash(texts, shape)
    with atomic_path(path, lasting=False) as partial, partial.open("wb") as file:
        file.write(_header(texts, shape, "0" * 2 * digest.digest_size))
        for image in images:
            digest.update(image.sha256)
            file.write(image.pixels.data)
        file.seek(0)
        file.write(_header(texts, shape, digest.hexdigest()))


def map_images(path: Path) -> MappedImages | None:
    """Map what :func:`write_images` wrote; None where the file is missing or not what was written."""
    if not path.is_file():
        return None
    try:
        # Checks the header against the length of the file.
        with safe_open(path, framework="np") as file:
            texts = dict(file.metadata())
            shape = tuple(file.get_slice(_NAME).get_shape())
        with path.open("rb") as content:
            start = 8 + int.from_bytes(content.read(8), "little")
        # Copy-on-write: PyTorch has no tensors that cannot be written to; the file itself is never changed.
        pixels = np.memmap(path, np.uint8, mode="c", offset=start, shape=shape)
        expected = texts.pop("sha256")
        digest = _started_hash(texts, shape)
        for image in _hashes(pixels):
            digest.update(image)
        if digest.hexdigest() != expected:
            return None
        return MappedImages(torch.from_numpy(pixels), json.loads(texts["paths"]), json.loads(texts["details"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _header(texts: Mapping[str, str], shape: tuple[int, ...], sha256: str) -> bytes:
    """Length and header of the file, as long for one hash as for another."""
    tensor = {"dtype": "U8", "shape": shape, "data_offsets": [0, int(np.prod(shape, dtype=np.int64))]}
    header = json.dumps({"__metadata__": {**texts, "sha256": sha256}, _NAME: tensor}).encode()
    header += b" " * (-len(header) % 8)  # the format wants the data aligned
    return len(header).to_bytes(8, "little") + header


def _started_hash(texts: Mapping[str, str], shape: tuple[int, ...]) -> hashlib._Hash:
    """Hash of all that the header says; the hashes of the images are to follow."""
    return hashlib.sha256(json.dumps([dict(sorted(texts.items())), list(shape)]).encode())


def _hashes(images: NDArray[np.uint8]) -> Iterator[bytes]:
    """Return the hash of each image, made in several threads."""
    count = 1 + _HASHED_AT_ONCE // (1 + math.prod(images.shape[1:]))

    def some(first: int) -> list[bytes]:
        return [hashed(image).sha256 for image in images[first : first + count]]

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="hash") as pool:
        return chain.from_iterable(pool.map(some, range(0, len(images), count)))
