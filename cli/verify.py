"""``mixunlearn-cli verify``: does a run folder still say the truth?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@click.option("--data-dir", type=_PATH, metavar="DIR", help="Where the data set is.  [default: where the run read it]")
@click.option("--no-download", is_flag=True, help="Fail rather than download files that are missing.")
@click.option("--initial", type=_PATH, metavar="CHECKPOINT", help="The model before unlearning, to check it too.")
@click.option("--retrain", type=_PATH, metavar="CHECKPOINT", help="Retrain's model, to check it too.")
@click.option(
    "--forget-indices",
    "deletion_list",
    type=_PATH,
    metavar="FILE",
    help="The list of samples that was to be forgotten: are these the ones, and their ids?",
)
@click.option("--hashes-only", is_flag=True, help="Neither load the data nor measure anything.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@click.pass_context
def verify(ctx: click.Context, /, **values: Any) -> None:
    """Compute the hashes of a run folder again, measure its model again, and say whether report.json holds.

    Ends with 1 if anything does not hold. A file that was changed by a single byte is found. Metrics are exact on the
    machine that made the run; elsewhere they may be off by rounding, which docs/report.md gives a tolerance for.

    \b
    Example:
      mixunlearn-cli verify runs/digits-class-mixunlearn-seed0-1a2b3c4d
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments.verify import VerificationRequest, run_verification

    from .progress import make_console, watching

    download = not values.pop("no_download")
    console = make_console()
    with watching(console) as observer:
        checks = run_verification(VerificationRequest(download=download, **values), observer=observer)
    width = max(len(item.subject) for item in checks)
    for item in checks:
        mark = "holds" if item.holds else "FAILS"
        console.print(f"{mark}  {item.subject:<{width}}  {item.detail}", soft_wrap=True, markup=False, highlight=False)
    failed = sum(not item.holds for item in checks)
    if failed:
        click.echo(f"{failed} of {len(checks)} checks fail: {values['folder']} is not what report.json says.", err=True)
        ctx.exit(1)
    console.print(f"All {len(checks)} checks hold.")
