"""Errors that end a command with a code of their own: wrong usage, and an answer that is no."""

from __future__ import annotations

from collections.abc import Iterable

from pymixunlearn.errors import UserError, unknown_name


class BadRequest(UserError):
    """Inputs that name something unknown or contradict each other: wrong usage rather than a failed run."""


class AnswerIsNo(UserError):
    """The command ran, and what it was to find out is not so."""


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise :class:`BadRequest`, suggesting the nearest name, unless ``name`` is known."""
    names = list(known)
    if name not in names:
        raise BadRequest(str(unknown_name(kind, name, names)))
