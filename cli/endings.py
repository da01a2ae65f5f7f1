"""Output and end of a command: any encoding, exit codes, what Ctrl-C leaves to go on from, and a quick end."""

from __future__ import annotations

import atexit
import gc
import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

PROGRAM = "mixunlearn-cli"
FAILED, WRONG_USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let any character be written in the block: one that the encoding of standard output lacks as an escape.

    A run is not to fail of the name of a class that the terminal cannot show, nor of having no output at all.
    """
    stream = sys.stdout
    if stream is None:  # the descriptor was closed before the program began
        with open(os.devnull, "w", encoding="utf-8") as sys.stdout:
            yield
        sys.stdout = stream
        return
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors="strict")


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for unreachable cycles of objects less often in the block, and not at the end of the program.

    PyTorch, scikit-learn and matplotlib make a million objects as they are imported, nearly all of which stay; looking
    through them again and again takes more than a second of a short run.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(10_000, 20, 20)
    atexit.unregister(gc.freeze)  # once, however many commands a program runs
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextmanager
def resumable(ctx: click.Context, saved: str) -> Iterator[str]:
    """Give the command line; Ctrl-C in the block ends the command, saying what is saved and how to go on."""
    command_line = shlex.join([PROGRAM, *ctx.obj])
    try:
        yield command_line
    except KeyboardInterrupt:
        click.echo(f"Interrupted; {saved}. To go on: {command_line}", err=True)
        ctx.exit(INTERRUPTED)
