"""Validation set V of a data set: images that no model is trained or tested on."""

from __future__ import annotations

from dataclasses import replace

from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.errors import UserError

NONE = "none"


def parse_share(validation: float | str | None) -> float | str | None:
    """Return the share to hold out, :data:`NONE`, or None where nothing was given.

    Raises:
        UserError: It is neither a share nor "none".

    Example:
        >>> from pymixunlearn.data.validation import parse_share
        >>> parse_share("0.1"), parse_share("none")
        (0.1, 'none')
    """
    if validation is None or validation == NONE:
        return validation
    try:
        share = float(validation)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"validation is '{validation}'; expected a share above 0 and below 1, or '{NONE}'")
    return share


def with_validation(dataset: Dataset, validation: float | str | None) -> Dataset:
    """Return ``dataset`` with the requested validation set; None leaves it as it is.

    Raises:
        UserError: ``validation`` is no share, or the data have a validation set already.
    """
    share = parse_share(validation)
    if share is None:
        return dataset
    if isinstance(share, str):
        return with_none(dataset, share)
    if dataset.validation is not None:
        raise UserError(
            f"'{dataset.name}' has a validation set of its own ({len(dataset.validation)} images); expected no share, "
            f"or '{NONE}'"
        )
    train, held_out = hold_out(dataset.train, fraction=share, purpose="validation")
    if not len(held_out):
        raise UserError(f"validation is {share}, but no class of '{dataset.name}' has two images; expected '{NONE}'")
    return replace(dataset, train=train, validation=held_out)


def with_none(dataset: Dataset, validation: float | str | None) -> Dataset:
    """Return ``dataset`` without a validation set if ``validation`` is :data:`NONE`, and as it is otherwise."""
    return replace(dataset, validation=None) if validation == NONE else dataset
