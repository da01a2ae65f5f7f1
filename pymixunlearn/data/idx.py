"""The IDX format of the MNIST family: a header of big-endian sizes, then the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymixunlearn.errors import UserError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped (named ``*.gz``) or not.

    Args:
        path: The file.
        dimensions: How many axes it must have: 3 for images [N, H, W], 1 for labels [N].

    Raises:
        UserError: The file cannot be read, is not such an IDX file, or is cut short or too long.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read ({error}); expected an IDX file") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise UserError(
            f"'{path}' must be an IDX file of unsigned bytes with {dimensions} dimension(s), "
            f"got a file that starts with {content[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise UserError(
            f"'{path}' is damaged: its header announces {math.prod(shape)} bytes of data, got {len(content) - header}"
        )
    # Copied because what views an immutable buffer can never be handed to torch as writable memory.
    values: NDArray[np.uint8] = np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
    return values
