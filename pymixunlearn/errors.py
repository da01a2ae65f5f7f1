"""Errors that are a user's to mend.

Everything that a caller can get wrong (a name, a path, a value) raises :class:`UserError` with one sentence; the
command line prints that sentence and exits, library users catch it like any ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake of the user, described in one sentence."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not registered, suggesting the nearest one.

    Args:
        kind: What the name stands for, as a user would say it ("dataset", "method").
        name: The name that was given.
        known: Every name that would have been accepted; one that comes twice is named once.

    Example:
        >>> str(unknown_name("method", "scrubs", ["scrub", "salun", "scrub"]))
        "unknown method 'scrubs'; expected one of salun, scrub. Did you mean 'scrub'?"
    """
    names = sorted(set(known))
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return UserError(f"unknown {kind} '{name}'; expected one of {', '.join(names)}.{hint}")


def reason_of(error: Exception) -> str:
    """Return what went wrong, without the path that an OSError repeats."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
