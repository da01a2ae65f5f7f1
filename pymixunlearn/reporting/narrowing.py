"""Command line of a whole table, narrowed down to the cells of one row."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Collection, Iterator, Sequence

PROGRAM = "mixunlearn-cli"
_OF_THE_RUN = ("--jobs", "--threads", "--out", "--cells")
"""Options that say how and where cells run: the folder of the whole would only be shown again."""
_FLAGS = ("--retry-failed",)


def compare_command(command_line: str, row: str, seeds: Sequence[int], threads: int) -> str:
    """Return the command that repeats a row of a comparison; "" where the command of the whole is not known.

    Example:
        >>> compare_command("mixunlearn-cli compare --methods ssd,laf --jobs 2 --task data", "ssd", [0, 1], 1)
        'mixunlearn-cli compare --task data --methods ssd --seeds 0,1 --threads 1'
    """
    own = ["--methods", row, "--seeds", ",".join(map(str, seeds))]
    return _narrowed(command_line, ["compare"], ("--methods", "--seeds"), own, threads)


def experiment_command(command_line: str, case: str, row: str, threads: int) -> str:
    """Return the command that repeats a row of an exhibit, likewise.

    Example:
        >>> experiment_command("mixunlearn-cli experiment run table1 --scale tiny --only laf", "digits", "ssd", 1)
        "mixunlearn-cli experiment run table1 --scale tiny --only 'digits/ssd/*' --threads 1"
    """
    own = ["--only", f"{glob.escape(f'{case}/{row}')}/*"]
    return _narrowed(command_line, ["experiment", "run"], ("--only",), own, threads)


def _narrowed(
    command_line: str, command: Sequence[str], replaced: Collection[str], own: Sequence[str], threads: int
) -> str:
    try:
        words = shlex.split(command_line)
    except ValueError:  # a text that is no command line
        return ""
    begin = [PROGRAM, *command]
    if words[: len(begin)] != begin:
        return ""
    kept = _without(words[len(begin) :], (*replaced, *_OF_THE_RUN))
    return shlex.join([*begin, *kept, *own, "--threads", str(threads)])


def _without(words: Sequence[str], options: Collection[str]) -> Iterator[str]:
    """Yield the words but options with their values, "--name value" or "--name=value", and flags."""
    rest = iter(words)
    for word in rest:
        name, is_assigned, _ = word.partition("=")
        if name in options:
            if not is_assigned:
                next(rest, None)
        elif word not in _FLAGS:
            yield word
