"""How commands end: their exit codes, and what Ctrl-C leaves to go on from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import click

PROGRAM = "mixunlearn-cli"
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


@contextmanager
def resumable(ctx: click.Context, kept: str) -> Iterator[str]:
    """Give the command line; Ctrl-C in the block ends the command, saying what is kept and how to go on."""
    command_line = shlex.join([PROGRAM, *ctx.obj])
    try:
        yield command_line
    except KeyboardInterrupt:
        click.echo(f"Interrupted; {kept}. To go on: {command_line}", err=True)
        ctx.exit(INTERRUPTED)
