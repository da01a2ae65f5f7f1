"""``mixunlearn-cli audit``: what shadow models find out about a model."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import counted
from pymixunlearn.experiments.audit.inputs import AuditInputs

from . import options
from .cache import lines_of_data
from .endings import resumable

if TYPE_CHECKING:
    from pymixunlearn.experiments import AuditPlan


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@options.inputs_options(AuditInputs)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="How the model given by --model was trained, as for `train`, for example lr=0.01; repeat for several.",
)
@options.out_option("the run folder; for --model runs/, and a name that says which")
@click.pass_context
def audit(ctx: click.Context, /, run: Path | None, **values: Any) -> None:
    """Attack a model with shadow models: does it still betray what it was to forget?

    RUN is a run folder of `unlearn`. Shadow models are trained and unlearned as its model was, on other halves of the
    forgotten and of unseen samples; audit.json goes into the folder. Without RUN, --model names a model that never
    unlearned, and the audit shows whether it betrays the samples that the split options choose. A model that another
    tool unlearned is given by --model, --weights and --before, or as the folder of `evaluate --before`: its shadow
    models do not unlearn, unless Python gives a function that does (pymixunlearn.audit, method=).

    LiRA and RMIA test this model: can samples that it has seen (and forgotten) be told from unseen ones? U-LiRA and
    KLoM test the method: can its models be told from retrained ones? Shadow models are cached; an interrupted audit
    goes on when the same command is given again.

    \b
    Examples:
      mixunlearn-cli audit runs/digits-class-mixunlearn-seed0-1a2b3c4d
      mixunlearn-cli audit RUN --attacks lira,rmia --shadow-models 32 --jobs 8
      mixunlearn-cli audit --model my.safetensors --dataset photos/ \\
          --forget ids.txt
      mixunlearn-cli audit --model timm:NAME --weights after.pt \\
        --before before.pt --dataset photos/ --forget ids.txt
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from click.core import ParameterSource

    from pymixunlearn.experiments import resolve_audit, run_audit
    from pymixunlearn.experiments.common.settings import parse_assignments
    from pymixunlearn.reporting import audit_table, klom_lines

    from .progress import make_console, say, watching

    if run is not None and ctx.get_parameter_source("dataset") is ParameterSource.COMMANDLINE:
        raise click.UsageError("A run already says its data set; leave out --dataset.", ctx)
    settings = parse_assignments(values["assignments"])
    inputs = options.make_inputs(AuditInputs, values, run=run, settings=settings)
    console = make_console()
    with watching(console) as observer:
        plan = resolve_audit(inputs, observer=observer)
        for line in describe(plan):
            observer.note(line)
        with resumable(ctx, "finished shadow models are cached") as command_line:
            outcome = run_audit(plan, values["out"], observer=observer, command_line=command_line)
    if outcome.known:
        console.print("This audit is finished already; its saved result:", soft_wrap=True)
    console.print()
    if (table := audit_table(outcome.record, plain=not console.is_terminal)) is not None:
        console.print(table)
    for line in klom_lines(outcome.record):
        console.print(line)
    for heading in ("findings", "limits"):
        console.print(f"\n{heading.capitalize()}:")
        for sentence in outcome.record[heading].splitlines():
            wrapped = textwrap.fill(sentence, console.width, initial_indent="  ", subsequent_indent="  ")
            console.print(wrapped, markup=False, soft_wrap=True)
    console.print()
    for line in lines_of_data(plan.samples.split):
        say(console, line)
    say(console, f"Audit: {outcome.file}")


def describe(plan: AuditPlan) -> list[str]:
    """Say in a few lines what an audit is going to do."""
    shadows, samples = plan.shadows, plan.samples
    split = samples.split
    what, chosen = f"the model from {plan.target.origin}", "chosen"
    made = f"an initial training of {counted(shadows.initial.epochs, 'epoch')}"
    if plan.inputs.run is not None or plan.before is not None:
        chosen = "forgotten"
    if shadows.method is not None:
        if plan.inputs.method is None:
            what = f"{shadows.method.name} in {plan.inputs.run}"
        made += f", {shadows.method.name}"
    if shadows.retrain is not None:
        made += f", and a Retrain of {counted(shadows.retrain.epochs, 'epoch')}"
    return [
        f"Audit of {what}: {len(samples.members)} of {len(split.forget_indices)} {chosen} samples of "
        f"{split.dataset.name} against {len(samples.unseen)} unseen ones.",
        f"{len(samples.seen)} shadow models, {plan.jobs} at a time on {shadows.device}; for each {made}.",
    ]
