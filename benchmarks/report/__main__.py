"""Command line: ``python -m benchmarks.report``, from the top folder of a checkout.

Examples:
    python -m benchmarks.report ops benchmarks/results/ops-cpu.csv --page docs/performance.md
    python -m benchmarks.report growth benchmarks/results/end-to-end-cpu/growth.csv --out docs
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from benchmarks.report import settings as settings_page
from benchmarks.report.growth_plot import draw_growth
from benchmarks.report.page import command_line, write_page
from pymixunlearn.benchmarking.end_to_end.growth import GrowthRow
from pymixunlearn.benchmarking.ops import read_results
from pymixunlearn.benchmarking.rows import read_rows
from pymixunlearn.errors import UserError

_PATH = click.Path(path_type=Path)


@click.group()
def main() -> None:
    """Write measurements into the docs."""


@main.command()
@click.argument("files", metavar="FILE.csv...", nargs=-1, required=True, type=_PATH)
@click.option("--page", type=_PATH, default=Path("docs/performance.md"), show_default=True, metavar="PAGE.md")
def ops(files: tuple[Path, ...], page: Path) -> None:
    """Write the page of the operators, and its plots beside it.

    FILE.csv are files of `mixunlearn-cli bench ops`, one per machine. Of an existing page only the part between the two
    marks is replaced.
    """
    sources = []
    for file in files:
        rows = read_results(file)
        if not rows:
            raise UserError(f"'{file}' holds no measurements; expected those of 'mixunlearn-cli bench ops'")
        sources.append((command_line(rows, file.name), rows))
    for path in write_page(page, sources):
        click.echo(f"Written: {path}")


@main.command()
@click.argument("file", metavar="growth.csv", type=_PATH)
@click.option("--out", type=_PATH, default=Path("docs"), show_default=True, metavar="DIR")
def growth(file: Path, out: Path) -> None:
    """Draw how time and memory grow, from a file of `mixunlearn-cli bench end-to-end`."""
    rows = read_rows(file, GrowthRow)
    if not rows:
        raise UserError(f"'{file}' holds no measurements; expected those of 'mixunlearn-cli bench end-to-end'")
    for path in draw_growth(rows, out):
        click.echo(f"Written: {path}")


@main.command()
def settings() -> None:
    """Write what is made from the methods' config classes: docs/settings.md, and a module for type checkers."""
    for path, content in settings_page.FILES.items():
        Path(path).write_text(content(), encoding="utf-8")
    subprocess.run(
        ["ruff", "format", "--quiet", *(path for path in settings_page.FILES if path.endswith(".py"))], check=True
    )


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks.report")
    except UserError as error:
        sys.exit(f"Error: {error}")
