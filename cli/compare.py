"""``mixunlearn-cli compare``: many methods on one split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import counted
from pymixunlearn.experiments.compare.inputs import CompareInputs

from . import options
from .cache import lines_of_data
from .config_file import settings_of
from .endings import FAILED, complain, resumable
from .help import SettingsCommand

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.experiments import ComparisonOutcome
    from pymixunlearn.tasks import Split


@click.command(cls=SettingsCommand, settings=("methods", "initial", "retrain"))
@options.inputs_options(CompareInputs, without=("seed",))
@options.settings_options("scrub.lr=1e-4 (METHOD.NAME), initial.epochs=1 or retrain.epochs=2")
@options.runs_options
@options.out_option("runs/, and a name that says what was compared")
@click.pass_context
def compare(ctx: click.Context, /, **values: Any) -> None:
    """Run many methods on one split per seed, and make the paper's table of them.

    Every method and seed is a cell with a run folder of its own. A finished cell is not run again and an interrupted
    one goes on, so the same command resumes; other methods or seeds are added to what is there. All share the initial
    model and Retrain. A method that fails is noted with the reason. The output folder holds report.html, table.md,
    table.csv, table.tex, compare.json and cells/.

    \b
    Examples:
      mixunlearn-cli compare --methods mixunlearn,neggrad,laf
      mixunlearn-cli compare --dataset fashion-mnist --task data \\
          --seeds 0,1,2,3,4 --jobs 4
      mixunlearn-cli compare --methods scrub --set scrub.variant=large \\
          --set scrub.lr=1e-3
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import (
        default_comparison_folder,
        resolve_comparison,
        run_comparison,
    )

    from .progress import make_console, watching

    inputs = options.make_inputs(CompareInputs, values, settings=settings_of(ctx, values["assignments"]))
    console = make_console()
    with watching(console) as observer:
        plan = resolve_comparison(inputs, observer=observer)
        out: Path = values["out"] or default_comparison_folder(plan)
        rows = len({cell.name for cell in plan.cells})
        seeds = f"seed{'' if len(inputs.seeds) == 1 else 's'} {', '.join(map(str, inputs.seeds))}"
        observer.note(f"{counted(rows, 'method')}, {seeds}: {counted(len(plan.cells), 'cell')} in {out}.")
        with resumable(ctx, f"what is done is saved in {out}") as command_line:
            outcome = run_comparison(
                plan,
                out,
                jobs=values["jobs"],
                threads=values["threads"],
                retry_failed=values["retry_failed"],
                observer=observer,
                command_line=command_line,
            )
    split = next(cell.plan.split for cell in plan.cells if cell.plan is not None)
    _show(console, outcome, split)
    if not outcome.finished:
        complain("Error: none of the cells worked; the reasons are above")
        ctx.exit(FAILED)


def _show(console: Console, outcome: ComparisonOutcome, split: Split) -> None:
    """Print the table, what there is to note, the paper's numbers, and what the cache holds."""
    from pymixunlearn.reporting import comparison_as_rich
    from pymixunlearn.reporting.formats import floor_sentences

    from .progress import say, tell

    plain = not console.is_terminal
    console.print()
    console.print(comparison_as_rich(outcome.table, plain=plain))
    mark = "a star" if plain else "bold"
    tell(console, f"Means over seeds, in percent; {mark}: closest to Retrain in its group.")
    for note in (*floor_sentences(outcome.table), *outcome.table.notes):
        tell(console, note)
    if outcome.table.published is not None:
        console.print(comparison_as_rich(outcome.table, plain=plain, published=True))
    for line in lines_of_data(split):
        say(console, line)
    tell(console, f"Tables: {outcome.folder / 'table.md'}, table.csv, table.tex, report.html")
