"""``mixunlearn-cli verify``: check of a run folder against its hashes and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.experiments.common.inputs import VerifyInputs

from . import options
from .endings import REFUSED

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.experiments import Verification

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@options.inputs_options(VerifyInputs)
@click.pass_context
def verify(ctx: click.Context, /, folder: Path, **values: Any) -> None:
    """Compute the hashes of a run folder again, measure its model again, and say whether report.json holds.

    Ends with 3 if anything does not hold, and says what it could not check. A file that was changed by a single byte
    is found. Metrics are exact on the machine that made the run; elsewhere they may be off by rounding, which
    docs/report.md gives a tolerance for.

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
    width = max(len(item.subject) for item in checks)
    for item in checks:
        mark = "holds" if item.holds else "FAILS"
        console.print(f"{mark}  {item.subject:<{width}}  {item.detail}", soft_wrap=True, markup=False, highlight=False)
    for sentence in checks.not_checked:
        console.print(f"not checked  {sentence}", soft_wrap=True, markup=False, highlight=False)
    failed = sum(not item.holds for item in checks)
    if failed:
        click.echo(f"{failed} of {len(checks)} checks fail: {what} is not what {against} says.", err=True)
        ctx.exit(REFUSED)
    console.print(f"All {len(checks)} checks hold.")
