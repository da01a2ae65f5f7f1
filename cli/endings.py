"""Output and end of a command: any encoding, complaints, exit codes, what Ctrl-C leaves to go on from, a quick end."""

from __future__ import annotations

import atexit
import gc
import io
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pymixunlearn.display import without_password

from .columns import WIDTH, paragraph

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


class Interrupted(click.ClickException):
    """End of a command by Ctrl-C; what is said of it waits until the bars are off the screen.

    Args:
        saved: What there is to go on from.
        command: How to go on.
    """

    exit_code = INTERRUPTED

    def __init__(self, saved: str, command: str) -> None:
        super().__init__(f"Interrupted; {saved}. To go on:")
        self.command = command


@contextmanager
def resumable(ctx: click.Context, saved: str) -> Iterator[str]:
    """Give the command line; Ctrl-C in the block ends the command, saying what is saved and how to go on.

    It goes into records and onto the screen, so that passwords in URLs are hidden.
    """
    command_line = shlex.join([PROGRAM, *map(without_password, ctx.obj)])
    try:
        yield command_line
    except KeyboardInterrupt:
        raise Interrupted(saved, command_line) from None


def complain(text: str, command: str = "") -> None:
    """Print a message on standard error, on a terminal wrapped between words and elsewhere in one line.

    Args:
        text: The message.
        command: What stands behind it to be copied; on a terminal it has a line of its own, which is not divided.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        click.echo(f"{text} {command}".rstrip(), err=True)
        return
    lines = paragraph(text, width=min(WIDTH, shutil.get_terminal_size().columns))
    for line in (*lines, *([f"  {command}"] if command else ())):
        click.echo(line, err=True)
