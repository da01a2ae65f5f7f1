"""``mixunlearn-cli evaluate``: a checkpoint on a split."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from pymixunlearn.experiments.common.inputs import EvaluateInputs

from . import options

_ABOUT = {
    "metavar": "SPEC",
    "help": "The network of checkpoints that do not say their own, for example torchvision:resnet18, timm:NAME or "
    "file.py:factory.",
}


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.inputs_options(EvaluateInputs, without=("weights",), about={"model": _ABOUT})
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
    from pymixunlearn.experiments import run_evaluation
    from pymixunlearn.reporting import evaluation_rows

    from .progress import make_console, print_table, say, watching

    inputs = options.make_inputs(EvaluateInputs, values, checkpoint=checkpoint)
    console = make_console()
    with watching(console) as observer:
        command_line = shlex.join(["mixunlearn-cli", *ctx.obj])
        outcome = run_evaluation(inputs, values["out"], observer=observer, command_line=command_line)
    print_table(console, evaluation_rows(outcome.record))
    if outcome.record.get("acceptance"):
        say(console, outcome.record["acceptance"]["model"]["reason"])
    if values["out"] is not None:
        say(console, f"Run folder: {outcome.folder}")
