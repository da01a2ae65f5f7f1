"""Sample indices: checked and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError


def indices_sha256(indices: Tensor) -> str:
    """Return the sha256 (hex) of indices written as little-endian 64-bit integers.

    Example:
        >>> import torch
        >>> from pymixunlearn import tasks
        >>> tasks.indices_sha256(torch.tensor([3, 14, 159]))[:8]
        '0db043a3'
    """
    return hashlib.sha256(indices.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def items_of(forget: Any) -> list[Any]:
    """Return the items of a sequence, an array or a tensor as Python's own numbers and texts.

    Raises:
        UserError: It has no items.
    """
    if not isinstance(forget, Iterable):
        raise UserError(f"forget is {a_type(forget)}; expected indices or ids, a file, a DeletionList or a Split")
    return [item.item() if hasattr(item, "item") else item for item in forget]


def to_indices(values: Any, where: str) -> Tensor:
    """Integers as an int64 tensor; JSON's true and false are no integers, though Python's are."""
    if not isinstance(values, list):
        raise UserError(f"{where} must hold a list of indices, got {type(values).__name__}")
    for value in values:
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or abs(value) >= 2**63:
            raise UserError(f"{where}: an index must be an integer, got {value!r}")
    return torch.tensor(values, dtype=torch.int64)
