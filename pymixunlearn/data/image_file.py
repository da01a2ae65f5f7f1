"""Images in one file that is written row by row and read through a memory map: a safetensors file of one tensor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pymixunlearn.files import atomic_path

_NAME = "images"


class MappedImages(NamedTuple):
    """uint8 images [N, C, H, W], whose pages are read from the file when they are touched, and the name of each."""

    images: Tensor
    names: list[str]


def write_images(path: Path, rows: Iterable[NDArray[np.uint8]], shape: tuple[int, ...], names: list[str]) -> None:
    """Write images; the file appears whole or not at all, and no more than one row of it is in memory.

    Args:
        path: The file.
        rows: N arrays [C, H, W].
        shape: (N, C, H, W).
        names: One per image.

    Raises:
        OSError: The file cannot be written.
    """
    tensor = {"dtype": "U8", "shape": shape, "data_offsets": [0, int(np.prod(shape, dtype=np.int64))]}
    header = json.dumps({"__metadata__": {"paths": json.dumps(names)}, _NAME: tensor}).encode()
    header += b" " * (-len(header) % 8)  # the format wants the data aligned
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for row in rows:
            file.write(np.ascontiguousarray(row).data)


def map_images(path: Path) -> MappedImages | None:
    """Map what :func:`write_images` wrote; None if nothing was, or if the file is not whole."""
    if not path.is_file():
        return None
    try:
        # Checks the header against the length of the file.
        with safe_open(path, framework="np") as file:
            names = json.loads(file.metadata()["paths"])
            shape = file.get_slice(_NAME).get_shape()
        with path.open("rb") as content:
            start = 8 + int.from_bytes(content.read(8), "little")
        # Copy-on-write: PyTorch has no tensors that cannot be written to; the file itself is never changed.
        pixels = np.memmap(path, np.uint8, mode="c", offset=start, shape=tuple(shape))
        return MappedImages(torch.from_numpy(pixels), names)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
