"""``mixunlearn-cli tune``: the settings that come closest to Retrain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.experiments.tune.inputs import TuneInputs

from . import options
from .cache import lines_of_data
from .config_file import settings_of
from .endings import FAILED, complain, resumable
from .help import SettingsCommand

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.experiments import TuningOutcome, TuningPlan

_SHOWN = 10


@click.command(cls=SettingsCommand, settings=("grids", "initial", "retrain"))
@click.argument("method")
@options.inputs_options(
    TuneInputs,
    without=("seed", "architecture", "weights", "allow_code", "validation_share", "forget_key", "forget_history"),
    about={
        "model": {
            "metavar": "NAME",
            "help": "The network: cnn, resnet14, resnet18 or vit.  [default: cnn for grey images, resnet18 for colour]",
        }
    },
)
@click.option(
    "--grid",
    "dimensions",
    multiple=True,
    metavar="NAME=V,V,...",
    help="Values of a setting to choose from, in place of the shipped ones or besides; repeat for several.",
)
@options.settings_options("epochs=5 or initial.epochs=1, that stays as it is")
@options.out_option("runs/, and a name that says what is tuned")
@click.pass_context
def tune(ctx: click.Context, /, method: str, **values: Any) -> None:
    """Search a method's settings for those that come closest to Retrain.

    METHOD's built-in grid holds the paper's ranges, where the paper gives any. A part of the training data is taken
    out to judge by; initial model, Retrain and method see the rest, and the test set plays no part. The same
    command goes on where it stopped, and with more --trials it goes further. The output folder holds best.yaml (for
    `unlearn --config`), tune.json, and the runs in trials/. Needs the extra: pip install 'pymixunlearn[tune]'.

    \b
    Examples:
      mixunlearn-cli tune neggrad --sampler grid
      mixunlearn-cli tune mixunlearn --dataset mnist --label-aware --trials 40 \\
          --grid epochs=2,4,8
      mixunlearn-cli unlearn --method neggrad \\
          --config runs/tune-neggrad-.../best.yaml
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import default_tuning_folder, resolve_tuning, run_tuning
    from pymixunlearn.experiments.common.settings import parse_assignments

    from .progress import make_console, watching

    grid = {name: text.split(",") for name, text in parse_assignments(values["dimensions"]).items()}
    inputs = options.make_inputs(
        TuneInputs,
        values,
        method=method,
        settings=settings_of(ctx, values["assignments"]),
        grid={name: [word.strip() for word in words if word.strip()] for name, words in grid.items()},
    )
    console = make_console()
    with watching(console) as observer:
        plan = resolve_tuning(inputs, observer=observer)
        for line in describe(plan):
            observer.note(line)
        out = values["out"] or default_tuning_folder(plan)
        with resumable(ctx, f"what is done is saved in {out}") as command_line:
            outcome = run_tuning(plan, out, observer=observer, command_line=command_line)
    _show(console, plan, outcome)
    if outcome.best is None:
        complain("Error: none of the combinations worked; the reasons are above")
        ctx.exit(FAILED)


def describe(plan: TuningPlan) -> list[str]:
    """Say in a few lines what is searched, and on which data."""
    from pymixunlearn.experiments.tune.grids import grid_text, size

    split = plan.example.split
    labels = "with labels" if plan.example.method.needs_labels else "without labels"
    network = plan.example.initial.name
    return [
        f"Tune {plan.inputs.method} {labels} on {plan.dataset}, task {plan.task}, network {network}: "
        f"{len(split.train)} training samples, {len(split.test)} held out of them to judge by.",
        f"Grid: {grid_text(plan.grid)}.",
        f"{plan.trials} of {size(plan.grid)} combinations, sampler {plan.inputs.sampler}, "
        f"seeds {', '.join(map(str, plan.inputs.seeds))}.",
    ]


def _show(console: Console, plan: TuningPlan, outcome: TuningOutcome) -> None:
    """Print the best combinations and how to use them."""
    from pymixunlearn.reporting.folding import FoldingTable

    from .progress import say, tell

    table = FoldingTable("Mean gap", *plan.grid, justify="left", plain=not console.is_terminal)
    for one in outcome.ranked[:_SHOWN]:
        gap = "failed" if one.value is None else f"{one.value:.3f}"
        table.add_row(gap, *(str(one.settings[name]) for name in plan.grid))
    console.print()
    console.print(table)
    if len(outcome.ranked) > _SHOWN:
        console.print(f"The best {_SHOWN} of {len(outcome.ranked)}; all are in tune.json.")
    for reason in dict.fromkeys(one.reason for one in outcome.ranked if one.reason):
        tell(console, f"failed: {reason}")
    for line in lines_of_data(plan.example.split):
        say(console, line)
    if outcome.best is not None:
        say(console, f"Best settings: {outcome.folder / 'best.yaml'}")
