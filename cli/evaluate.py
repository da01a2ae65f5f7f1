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
    "help": "The network of --weights, or of checkpoints that do not say their own, for example torchvision:resnet18, "
    "timm:NAME or file.py:factory.",
}


@click.command()
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@options.inputs_options(EvaluateInputs, about={"model": _ABOUT})
@options.out_option("nothing is written")
@click.pass_context
def evaluate(ctx: click.Context, /, checkpoint: Path | None, **values: Any) -> None:
    """Measure a model with the paper's metrics for a split.

    CHECKPOINT is a model file that says what it holds, or the run folder it is in; the model of any other tool is given
    by --model and --weights instead. A metric is good when it is close to that of a model retrained without the
    forgotten data: give that as --reference to see the gap. With --before, the model before unlearning, --out writes
    what `unlearn` writes: report.html, and a record that `verify` checks and `audit` adds to.

    \b
    Examples, the second for a model that another tool unlearned:
      mixunlearn-cli evaluate RUN --split RUN/split.json --reference RETRAIN
      mixunlearn-cli evaluate --model torchvision:resnet18 --weights after.pt \\
        --before before.pt --dataset photos/ --forget ids.csv --out judged
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import run_evaluation
    from pymixunlearn.reporting import evaluation_rows, result_rows
    from pymixunlearn.reporting.verdict import verdict

    from .progress import make_console, print_table, say, tell, watching

    inputs = options.make_inputs(EvaluateInputs, values, checkpoint=checkpoint)
    console = make_console()
    with watching(console) as observer:
        command_line = shlex.join(["mixunlearn-cli", *ctx.obj])
        outcome = run_evaluation(inputs, values["out"], observer=observer, command_line=command_line)
    record = outcome.record
    unlearned = "unlearned" in record["metrics"]
    print_table(console, result_rows(record) if unlearned else evaluation_rows(record))
    if unlearned:
        for sentence in verdict(record):
            tell(console, sentence)
    elif record.get("acceptance"):
        tell(console, record["acceptance"]["model"]["reason"])
    if values["out"] is not None:
        say(console, f"Run folder: {outcome.folder}")
