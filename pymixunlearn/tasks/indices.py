"""Sample indices: read from files, and hashed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.errors import UserError, reason_of


def read_indices(path: Path | str) -> Tensor:
    r"""Read sample indices from a file: int64 ``[N]``, in the file's order.

    ``.npy`` holds an integer array of one dimension, ``.json`` a list of integers; any other file is text with one
    index per line or separated by commas.

    Raises:
        UserError: The file is missing, cannot be read, or holds anything but integers.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pymixunlearn import tasks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "forget.txt"
        ...     _ = path.write_text("3, 14\n159\n")
        ...     tasks.read_indices(path)
        tensor([  3,  14, 159])
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise UserError(
                    f"'{path}' must hold integers in one dimension, got {array.dtype} of shape {list(array.shape)}"
                )
            return torch.from_numpy(array.astype(np.int64))
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return to_indices(json.loads(text), f"'{path}'")
    except UserError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"'{path}' cannot be read as a file of indices: {reason_of(error)}") from error
    return _parse_lines(text, path)


def indices_sha256(indices: Tensor) -> str:
    """Return the sha256 (hex) of indices written as little-endian 64-bit integers.

    Example:
        >>> import torch
        >>> from pymixunlearn import tasks
        >>> tasks.indices_sha256(torch.tensor([3, 14, 159]))[:8]
        '0db043a3'
    """
    return hashlib.sha256(indices.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def _parse_lines(text: str, path: Path) -> Tensor:
    values: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        for word in line.replace(",", " ").split():
            try:
                values.append(int(word))
            except ValueError:
                raise UserError(f"'{path}', line {number}: an index must be an integer, got '{word}'") from None
    return to_indices(values, f"'{path}'")


def to_indices(values: Any, where: str) -> Tensor:
    """Integers as an int64 tensor; JSON's true and false are no integers, though Python's are."""
    if not isinstance(values, list):
        raise UserError(f"{where} must hold a list of indices, got {type(values).__name__}")
    for value in values:
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or abs(value) >= 2**63:
            raise UserError(f"{where}: an index must be an integer, got {value!r}")
    return torch.tensor(values, dtype=torch.int64)
