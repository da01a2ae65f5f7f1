"""``mixunlearn-cli evaluate``: a checkpoint on a split."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from . import options


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Another model, usually Retrain's, to show the gap to.",
)
@options.architecture_option
@options.data_options
@options.split_options
@click.option(
    "--attacker",
    default="hist-gradient-boosting",
    show_default=True,
    metavar="NAME",
    help="Classifier of the membership attack: hist-gradient-boosting, or xgboost if it is installed.",
)
@options.machine_options
@options.out_option("nothing is written")
@click.pass_context
def evaluate(ctx: click.Context, /, checkpoint: Path, **values: Any) -> None:
    """Measure a model with the paper's metrics for a split.

    CHECKPOINT is a model file, or the run folder it is in. A metric is good when it is close to that of a model
    retrained without the forgotten data: give that as --reference to see the gap.

    \b
    Example, with what an earlier run forgot:
      mixunlearn-cli evaluate RUN --split RUN/split.json --reference RETRAIN
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import EvaluationRequest, run_evaluation
    from pymixunlearn.reporting import evaluation_rows

    from .progress import make_console, print_table, watching

    request = EvaluationRequest(
        checkpoint=checkpoint,
        reference=values["reference"],
        architecture=values["architecture"],
        data=options.data_request(values),
        split=options.split_request(values),
        attacker=values["attacker"],
        device=values["device"],
        seed=values["seed"],
    )
    console = make_console()
    with watching(console) as observer:
        command_line = shlex.join(["mixunlearn-cli", *ctx.obj])
        outcome = run_evaluation(request, values["out"], observer=observer, command_line=command_line)
    print_table(console, evaluation_rows(outcome.record))
    if values["out"] is not None:
        console.print(f"Run folder: {outcome.folder}", soft_wrap=True, markup=False)
