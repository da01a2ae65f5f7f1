"""Shared part of ``train`` and ``retrain``: run the training, show its table, name its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymixunlearn.display import counted

from .endings import resumable

if TYPE_CHECKING:
    from pymixunlearn.experiments import Run, TrainingPlan


def show_training(
    ctx: click.Context, resolve: Callable[..., TrainingPlan], run: Callable[..., Run], out: Path | None
) -> None:
    """Resolve a plan, carry it out and print the metrics."""
    from pymixunlearn.reporting import training_rows

    from .progress import make_console, print_table, say, watching

    console = make_console()
    with watching(console) as observer:
        plan = resolve(observer=observer)
        observer.note(
            f"Network {plan.initial.name}, {len(plan.images)} images of {plan.dataset.name}, "
            f"{counted(plan.config.epochs, 'epoch')} of {plan.config.optimizer} with lr {plan.config.lr:g}, "
            f"device {plan.device}, seed {plan.inputs.seed}."
        )
        with resumable(ctx, "the finished epochs are saved") as command_line:
            outcome = run(plan, out, observer=observer, command_line=command_line)
    if outcome.known:
        console.print("This training is finished already; its saved result:", soft_wrap=True)
    print_table(console, training_rows(outcome.record))
    say(console, f"Checkpoint: {outcome.folder / 'model.safetensors'}")
