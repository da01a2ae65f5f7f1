"""What is known of the methods: what each asks for, what was measured of it, and which is recommended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pymixunlearn.experiments.unlearn.inputs import RECOMMENDED

from . import names
from .columns import paragraph, table

_HEADING = ("method", "labels", "D_r", "D_f", "accepted", "time")


def advice(methods: Sequence[str]) -> Iterator[str]:
    """Yield a table of built-in methods, and which to take for deletion requests, unless that alone is in it."""
    yield from table(_HEADING, [(name, *names.ADVICE[name]) for name in methods])
    if list(methods) != [RECOMMENDED]:
        *_, accepted, _ = names.ADVICE[RECOMMENDED]
        yield from paragraph(
            f"For deletion requests {RECOMMENDED} is recommended: the acceptance test accepted it in {accepted} runs "
            "(docs/choosing.md).",
            "  ",
            0,
        )
