"""Checks of the arguments of an audit: finite numbers, and masks that say yes or no.

A NaN compares as false with everything, so that an attack would call it a member or no member without a word; a mask of
integers would choose rows by number instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit.margins import Array, Mask


def finite(name: str, values: Any, *, dimensions: int = 1) -> Array:
    """Return ``values`` as float64.

    Args:
        name: The argument's name, for the error.
        values: Numbers, at least one.
        dimensions: How many dimensions they are to have.

    Raises:
        UserError: They have another number of dimensions, are none or complex, or one is NaN or infinite.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "fiub":
        raise UserError(f"{name} is an array of {given.dtype}; expected real numbers")
    if given.ndim != dimensions or given.size == 0:
        shape = "x".join(map(str, given.shape)) or "a single number"
        raise UserError(f"{name} has the shape {shape}; expected {dimensions} dimension(s) and at least one number")
    array: Array = given.astype(np.float64, copy=False)
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise UserError(f"{name} has {wrong} of {array.size} numbers that are NaN or infinite; expected finite numbers")
    return array


def mask(name: str, values: Any, shape: tuple[int, ...]) -> Mask:
    """Return ``values`` as booleans.

    Args:
        name: The argument's name, for the error.
        values: Booleans, or numbers that are all 0 or 1.
        shape: The shape to have.

    Raises:
        UserError: The shape is another, or a value is neither 0 nor 1.
    """
    given = np.asarray(values)
    if given.shape != shape:
        raise UserError(f"{name} has the shape {list(given.shape)}; expected {list(shape)}")
    if given.dtype == bool:
        return given
    if given.dtype.kind not in "fiu" or not np.isin(given, (0, 1)).all():
        raise UserError(f"{name} is an array of {given.dtype} with other values than 0 and 1; expected true or false")
    chosen: Mask = given.astype(bool)
    return chosen


def share(name: str, value: float) -> float:
    """Return ``value``, a number in 0..1.

    Raises:
        UserError: It is outside, or NaN.
    """
    if not 0 <= value <= 1:
        raise UserError(f"{name} is {value:g}; expected a number from 0 to 1")
    return value


def at_least(name: str, counts: np.ndarray, least: int) -> None:
    """Check that a mask chooses so many models for every sample.

    Raises:
        UserError: It chooses fewer.
    """
    if counts.size and counts.min() < least:
        raise UserError(f"{name} chooses {int(counts.min())} models for a sample; expected at least {least} for each")
