"""``mixunlearn-cli verify``: check of a run folder against its hashes and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import printable
from pymixunlearn.experiments.common.inputs import VerifyInputs

from . import options
from .columns import WIDTH
from .endings import REFUSED, complain

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.experiments import Verification

_PATH = click.Path(path_type=Path)
_SUBJECT = 32
"""So many columns are left free for the longest subject; details of longer ones begin further to the right."""
_NARROW = 7
"""Indent of a detail that has a word too long to stand beside its subject."""


@click.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@options.inputs_options(VerifyInputs)
@click.pass_context
def verify(ctx: click.Context, /, folder: Path, **values: Any) -> None:
    """Compute the hashes of a run folder again, measure its model again, and say whether report.json holds.

    Ends with 3 if anything does not hold, and says what it could not check. One changed byte in a file that
    report.json has the hash of is found. Metrics are exact on the machine that made the run, with as many threads;
    elsewhere they may be off by rounding, which docs/report.md gives a tolerance for.

    \b
    Example:
      mixunlearn-cli verify runs/digits-class-mixunlearn-seed0-1a2b3c4d
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import run_verification

    from .progress import make_console, watching

    console = make_console()
    with watching(console) as observer:
        checks = run_verification(options.make_inputs(VerifyInputs, values, folder=folder), observer=observer)
    show_checks(ctx, console, checks, str(folder), "report.json")


def show_checks(ctx: click.Context, console: Console, checks: Verification, what: str, against: str) -> None:
    """Print the checks of a verification, and end with 3 where one fails."""
    from .progress import tell

    width = min(_SUBJECT, max(len(item.subject) for item in checks))
    for item in checks:
        mark = "holds" if item.holds else "FAILS"
        hanging, longest = width + 9, max(map(len, item.detail.split()), default=0)
        if hanging + longest > WIDTH:  # such as a whole hash
            hanging = _NARROW
        tell(console, f"{mark}  {printable(item.subject):<{width}}  {item.detail}", hanging=hanging)
    for sentence in checks.not_checked:
        tell(console, f"not checked  {sentence}", hanging=13)
    failed = sum(not item.holds for item in checks)
    if failed:
        complain(f"{failed} of {len(checks)} checks fail: {what} is not what {against} says.")
        ctx.exit(REFUSED)
    console.print(f"All {len(checks)} checks hold.")
