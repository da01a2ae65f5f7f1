"""``mixunlearn-cli unlearn``: the main job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import printable
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs

from . import options
from .config_file import settings_of
from .endings import REFUSED, complain, resumable
from .help import SettingsCommand
from .preview import preview_lines

if TYPE_CHECKING:
    from pymixunlearn.experiments import Plan


@click.command(cls=SettingsCommand, settings=("method", "initial", "retrain"))
@options.inputs_options(UnlearnInputs)
@click.option("--no-retrain", is_flag=True, help="The same as --retrain none.")
@options.settings_options("epochs=5 or initial.lr=0.01")
@options.out_option("runs/, and a name that says what was run")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be forgotten and trained, and estimate time and memory by a few steps; write no run folder "
    "and no model. Images are decoded into the cache, as for a run.",
)
@click.option(
    "--purge",
    is_flag=True,
    help="When the run is complete, delete from the cache what is made of its data; the deletion record says so.",
)
@click.pass_context
def unlearn(ctx: click.Context, /, **values: Any) -> None:
    """Make a model forget, and compare it with one retrained without the forgotten data.

    With no option at all: train a small network on the digits data, make it forget class 0 with MixUnlearn, retrain
    without class 0, print the table, and write the run folder: model.safetensors, metrics.json, history.csv,
    config.json, split.json, model.yaml, forget.key, report.html with pictures/, and report.json, which `verify` checks.
    Trained models are cached, so a second run does not train them again. An interrupted run goes on when the same
    command is given again.

    \b
    Examples:
      mixunlearn-cli unlearn
      mixunlearn-cli unlearn --dataset mnist --forget-class 3 --forget-class 8 \\
          --stop auto
      mixunlearn-cli unlearn --dataset fashion-mnist --task data \\
          --forget-fraction 0.1 --label-aware
      mixunlearn-cli unlearn --dataset photos/ --model my.safetensors \\
          --forget ids.txt
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments import default_folder, preview_unlearning, resolve_unlearning, run_unlearning
    from pymixunlearn.experiments.common.known_accuracy import question
    from pymixunlearn.experiments.unlearn.report import sign_again
    from pymixunlearn.reporting import result_rows

    from .progress import make_console, print_table, say, tell, watching

    fewer = {"retrain": "none"} if values["no_retrain"] else {}
    inputs = options.make_inputs(UnlearnInputs, values, settings=settings_of(ctx, values["assignments"]), **fewer)
    console = make_console()
    with watching(console) as observer:
        plan = resolve_unlearning(inputs, observer=observer)
        for line in describe(plan):
            observer.note(line)
        if values["dry_run"]:
            preview = preview_unlearning(plan, values["out"], observer=observer)
    if values["dry_run"]:
        for line in preview_lines(preview):
            say(console, line)
        return
    with watching(console) as observer:
        out = values["out"] or default_folder(plan)
        with resumable(ctx, f"the state is saved in {out}") as command_line:
            outcome = run_unlearning(plan, out, observer=observer, command_line=command_line)
    if outcome.known:
        console.print("This run is finished already; its saved result:", soft_wrap=True)
    print_table(console, result_rows(outcome.record))
    known = outcome.record.get("initial_accuracy")
    if known is not None and known["expected"] is None:
        tell(console, question(known["test"], known["count"]))
    for line in _end(outcome.folder, purge=values["purge"]):
        say(console, line)
    if values["purge"]:
        sign_again(outcome.folder, inputs.sign_key)
    say(console, f"Run folder: {outcome.folder}")
    refusal = _refusal(outcome.record)
    if refusal is not None:
        complain(refusal)
        ctx.exit(REFUSED)


def _refusal(record: Mapping[str, Any]) -> str | None:
    """Say why the model may not take the place of the one before; None where nothing speaks against it."""
    from pymixunlearn.methods.collapse import Collapse

    if "release" in record:
        return None if record["release"]["holds"] else str(record["release"]["reason"])
    accepted = record["acceptance"] is not None and record["acceptance"]["unlearned"]["decision"] == "accepted"
    if "collapse" not in record or accepted:
        return None
    return f"The model {Collapse(**record['collapse']).sentence()}."


def _end(folder: Path, *, purge: bool) -> Iterator[str]:
    """Yield where the forgotten data are still, having purged the cache of them if that is asked for."""
    from pymixunlearn.experiments.cache import purge_run, remains_of

    from .cache import kept_lines, purged_lines, remains_lines

    if purge:
        remains = remains_of(folder)
        yield from purged_lines(purge_run(folder))
        yield from kept_lines(remains)
    else:
        yield from remains_lines(remains_of(folder), folder)


def describe(plan: Plan) -> list[str]:
    """Say in a few lines what a plan is going to do."""
    split = plan.split
    names = split.dataset.train.classes
    classes = split.params.get("classes")
    what = "listed samples"
    if isinstance(classes, list):
        listed = ", ".join(printable(names[label]) for label in classes if isinstance(label, int))
        kinds = {"class": "class", "noisy": "mislabelled samples of classes", "semi": "labelled samples of classes"}
        what = f"{kinds.get(split.task, 'samples of classes')} {listed}"
    labels = "with labels" if plan.method.needs_labels else "without labels"
    origin = "trained first" if plan.initial.checkpoint is None else f"from {plan.initial.checkpoint}"
    config = plan.settings.to_dict()
    budget = ""
    when = {"auto": "when forgetting is done", "accepted": "when the acceptance test accepts the model"}
    if config.get("stop") in when:  # other methods need not have epochs
        budget = f" Ends {when[config['stop']]}, at the latest after {config['epochs'] or 'all'} epochs."
    settings = f"preset {plan.preset.name}" if plan.preset else "the method's defaults (no preset ships for this case)"
    attack = " ASR has the form of the paper's code." if plan.inputs.asr == "paper" else ""
    before = split.history.get("samples")
    earlier = "" if before is None else f" {before} forgotten earlier, {len(split.forget_indices)} now."
    validation = split.dataset.validation
    held_out = "" if validation is None else f" Validation set: {len(validation)} images."
    others = "".join(f", {name.replace('_', ' ')} {seed}" for name, seed in plan.inputs.own_seeds.items())
    return [
        f"Forget {what} of {split.dataset.name}: {len(split.forget_indices)} of {len(split.train)} training samples."
        f"{held_out}{earlier}",
        f"Method {plan.method.name} {labels}, network {plan.initial.name} ({origin}), "
        f"device {plan.device}, seed {plan.inputs.seed}{others}.",
        f"Settings: {settings}.{budget}{attack}",
    ]
