"""Processes of torchrun: the first runs the command, the others help it to train."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress

import click

from pymixunlearn.interrupts import never_lost

TOGETHER = ("unlearn", "train", "retrain", "evaluate")
"""Commands that several processes may be started for."""


def takes_part() -> bool:
    """Do the work of a process that is not the first, if this is one; tell whether it was."""
    if _count() == 1 or os.environ.get("RANK", "0") == "0":
        return False
    from pymixunlearn.parallel import serve

    with suppress(KeyboardInterrupt), never_lost():  # the first process says what it leaves
        serve()
    return True


def leading() -> AbstractContextManager[None]:
    """Return the block in which the first process runs a command."""
    if _count() == 1:
        return nullcontext()
    from pymixunlearn.parallel import lead

    return lead()


def check_command(name: str) -> None:
    """Refuse a command whose trainings run in processes of its own.

    Raises:
        click.UsageError: It was started by torchrun.
    """
    if _count() > 1 and name not in TOGETHER:
        raise click.UsageError(
            f"'{name}' runs in one process, or starts its own; start it without torchrun, which is for "
            f"{', '.join(TOGETHER)}"
        )


def _count() -> int:
    """Return how many processes torchrun has started; other programs set WORLD_SIZE too."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1
