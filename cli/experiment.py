"""``mixunlearn-cli experiment``: the paper's tables and figures, one command each."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import counted
from pymixunlearn.experiments.paper.inputs import ExperimentInputs

from . import options
from .columns import WIDTH
from .endings import FAILED, complain, resumable
from .help import Group

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.experiments import ExperimentOutcome


@click.group(cls=Group)
def experiment() -> None:
    """List, run and show the paper's tables and figures; a file of your own runs the same way.

    \b
    Examples:
      mixunlearn-cli experiment list
      mixunlearn-cli experiment run table1 --scale tiny
      mixunlearn-cli experiment show table3 > mine.yaml
      mixunlearn-cli experiment run mine.yaml --scale small --jobs 2
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are


@experiment.command("list")
def list_exhibits() -> None:
    """List the exhibits, and how many runs each is."""
    from pymixunlearn.experiments.paper.exhibit import exhibit_names, read_content, read_exhibit

    for name in exhibit_names():
        _, content = read_content(name)
        sizes = []
        for scale in content["scales"]:
            found = read_exhibit(name, scale)
            cells = len(found.rows) * len(found.data) * len(found.tasks) * len(found.seeds)
            sizes.append(f"{scale} {cells}")
        text = f"{content['title']} (runs: {', '.join(sizes)})"
        click.echo(textwrap.fill(text, WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10))


@experiment.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the file of an exhibit, to edit it.

    The file says data, tasks, methods with their settings, and seeds of every scale. It is YAML to be saved, edited and
    run; a file of your own is printed with what its scales share filled in.
    """
    from pymixunlearn.experiments.paper.exhibit import as_yaml, read_content

    _, content = read_content(name)
    click.echo(as_yaml(content), nl=False)


@experiment.command()
@click.argument("name")
@options.inputs_options(ExperimentInputs)
@options.runs_options
@click.option(
    "--cells",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the runs, each named by its settings and data; exhibits with one folder use the same runs.  "
    "[default: runs/cells]",
)
@options.out_option("runs/NAME-SCALE")
@click.pass_context
def run(ctx: click.Context, /, name: str, **values: Any) -> None:
    """Run an exhibit, and make its table or figure.

    NAME is one of `experiment list`, or your own file. A finished cell is never run again, an interrupted one goes on,
    and cells that two exhibits share are run once. Data that are not there are marked "not run". The output folder
    holds report.html, table.md, table.tex, table.csv (every cell), the figure as SVG with its numbers as CSV, and
    experiment.json. The paper's numbers stand beside ours at --scale paper only.

    \b
    Examples:
      mixunlearn-cli experiment run figure6 --scale tiny
      mixunlearn-cli experiment run table1 --data cifar10=images/cifar10 --jobs 2
      mixunlearn-cli experiment run table2 --only mnist --only 'fashion*' \\
          --seeds 0
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import default_experiment_folder, resolve_experiment, run_experiment

    from .progress import make_console, watching

    inputs = options.make_inputs(ExperimentInputs, values, exhibit=name)
    console = make_console()
    with watching(console) as observer:
        plan = resolve_experiment(inputs, observer=observer)
        out: Path = values["out"] or default_experiment_folder(plan)
        for case in plan.cases:
            if case.reason is not None:
                observer.note(f"{case.label}: not run: {case.reason}.")
        chosen = sum(cell.available and cell.selected for cell in plan.cells)
        observer.note(f"{plan.exhibit.title}, scale {plan.exhibit.scale}: {counted(chosen, 'cell')} in {out}.")
        with resumable(ctx, f"what is done is saved in {out}") as command_line:
            outcome = run_experiment(
                plan,
                out,
                cells=values["cells"],
                jobs=values["jobs"],
                threads=values["threads"],
                retry_failed=values["retry_failed"],
                observer=observer,
                command_line=command_line,
            )
    _show(console, outcome)
    if not outcome.finished:
        complain("Error: none of the cells has a result; the reasons are above")
        ctx.exit(FAILED)


def _show(console: Console, outcome: ExperimentOutcome) -> None:
    """Print the tables, what there is to note, and where the files are."""
    from pymixunlearn.reporting import comparison_as_rich
    from pymixunlearn.reporting.formats import floor_sentences

    from .progress import tell

    plain = not console.is_terminal
    report = outcome.report
    console.print()
    for case in report.cases:
        if case.table is not None:
            console.print(comparison_as_rich(case.table, plain=plain))
            for line in floor_sentences(case.table):
                tell(console, line)
            if case.table.published is not None:
                console.print(comparison_as_rich(case.table, plain=plain, published=True))
    if any(case.table is not None for case in report.cases):
        mark = "a star" if plain else "bold"
        tell(console, f"Means over seeds, in percent; {mark}: closest to Retrain in its group.")
    for fact in report.facts:
        tell(console, fact)
    for note in report.notes:
        tell(console, note)
    tell(console, f"Files: {outcome.folder / outcome.files[0]}, {', '.join(outcome.files[1:])}")
