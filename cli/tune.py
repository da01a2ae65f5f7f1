"""``mixunlearn-cli tune``: the settings that come closest to Retrain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options
from .config_file import settings_of
from .endings import FAILED, resumable
from .help import SettingsCommand
from .options import numbers

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.experiments import TuningOutcome, TuningPlan

_SHOWN = 10


@click.command(cls=SettingsCommand, settings=("grids", "initial", "retrain"))
@click.argument("method")
@options.data_options
@options.split_options
@click.option(
    "--label-aware/--label-agnostic",
    "label_aware",
    default=None,
    help="Whether the method may use the training labels.  [default: as for `unlearn`]",
)
@click.option(
    "--model",
    metavar="NAME",
    help="The network: cnn, resnet18 or vit.  [default: cnn for grey images, resnet18 for colour]",
)
@options.device_option
@click.option(
    "--seeds",
    multiple=True,
    default=("0",),
    metavar="N,...",
    callback=numbers,
    help="Run every combination with each; the mean counts.  [default: 0]",
)
@click.option(
    "--grid",
    "dimensions",
    multiple=True,
    metavar="NAME=V,V,...",
    help="Values of a setting to choose from, in place of the shipped ones or besides; repeat for several.",
)
@click.option("--sampler", default="tpe", show_default=True, metavar="NAME", help="tpe, random or grid.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many combinations to try, those of earlier calls included.  [default: 20; for grid all]",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    metavar="F",
    help="Which share of the training data to judge by.",
)
@options.settings_options("epochs=5 or initial.epochs=1, that stays as it is")
@options.out_option("runs/, and a name that says what is tuned")
@click.pass_context
def tune(ctx: click.Context, /, method: str, **values: Any) -> None:
    """Search a method's settings for those that come closest to Retrain.

    METHOD's shipped grid holds the paper's ranges. A part of the training data is taken out to judge by; initial model,
    Retrain and method see the rest, and the test set plays no part. The same command goes on where it stopped, and with
    more --trials it goes further. The output folder holds best.yaml (for `unlearn --config`), tune.json, and the runs
    in trials/. Needs the extra: pip install 'pymixunlearn[tune]'.

    \b
    Examples:
      mixunlearn-cli tune neggrad --sampler grid
      mixunlearn-cli tune mixunlearn --dataset mnist --label-aware --trials 40 --grid epochs=2,4,8
      mixunlearn-cli unlearn --method neggrad --config runs/tune-neggrad-.../best.yaml
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import TuningRequest, default_tuning_folder, resolve_tuning, run_tuning
    from pymixunlearn.experiments.common.settings import parse_assignments

    from .progress import make_console, watching

    grid = {name: text.split(",") for name, text in parse_assignments(values["dimensions"]).items()}
    request = TuningRequest(
        method=method,
        data=options.data_request(values),
        split=options.split_request(values),
        model=values["model"],
        label_aware=values["label_aware"],
        device=values["device"],
        seeds=values["seeds"],
        settings=settings_of(ctx, values["assignments"]),
        grid={name: [word.strip() for word in words if word.strip()] for name, words in grid.items()},
        sampler=values["sampler"],
        trials=values["trials"],
        validation=values["validation"],
    )
    console = make_console()
    with watching(console) as observer:
        plan = resolve_tuning(request, observer=observer)
        for line in describe(plan):
            observer.note(line)
        out = values["out"] or default_tuning_folder(plan)
        with resumable(ctx, f"what is done is kept in {out}") as command_line:
            outcome = run_tuning(plan, out, observer=observer, command_line=command_line)
    _show(console, plan, outcome)
    if outcome.best is None:
        click.echo("Error: none of the combinations worked; the reasons are above", err=True)
        ctx.exit(FAILED)


def describe(plan: TuningPlan) -> list[str]:
    """Say in a few lines what is searched, and on which data."""
    from pymixunlearn.experiments.tune.grids import grid_text, size

    split = plan.example.split
    labels = "with labels" if plan.example.method.needs_labels else "without labels"
    network = plan.example.initial.name
    return [
        f"Tune {plan.request.method} {labels} on {plan.dataset}, task {plan.task}, network {network}: "
        f"{len(split.train)} training samples, {len(split.test)} held out of them to judge by.",
        f"Grid: {grid_text(plan.grid)}.",
        f"{plan.trials} of {size(plan.grid)} combinations, sampler {plan.request.sampler}, "
        f"seeds {', '.join(map(str, plan.request.seeds))}.",
    ]


def _show(console: Console, plan: TuningPlan, outcome: TuningOutcome) -> None:
    """Print the best combinations and how to use them."""
    from pymixunlearn.reporting.folding import FoldingTable

    table = FoldingTable("Mean gap", *plan.grid, justify="left", plain=not console.is_terminal)
    for one in outcome.ranked[:_SHOWN]:
        gap = "failed" if one.value is None else f"{one.value:.3f}"
        table.add_row(gap, *(str(one.settings[name]) for name in plan.grid))
    console.print()
    console.print(table)
    if len(outcome.ranked) > _SHOWN:
        console.print(f"The best {_SHOWN} of {len(outcome.ranked)}; all are in tune.json.")
    for reason in dict.fromkeys(one.reason for one in outcome.ranked if one.reason):
        console.print(f"failed: {reason}", soft_wrap=True, markup=False)
    if outcome.best is not None:
        console.print(f"Best settings: {outcome.folder / 'best.yaml'}", soft_wrap=True, markup=False)
