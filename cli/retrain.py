"""``mixunlearn-cli retrain``: the model that unlearning is measured by."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .config_file import settings_of
from .help import SettingsCommand
from .training import show_training


@click.command(cls=SettingsCommand, settings=("train",))
@options.data_options
@options.split_options
@options.model_options
@options.machine_options
@options.settings_options("epochs=5")
@options.out_option("runs/, and a name that says what was trained")
@click.pass_context
def retrain(ctx: click.Context, /, **values: Any) -> None:
    """Train a network from scratch on the remaining data only, and write its checkpoint and metrics.

    A checkpoint given as --model lends its architecture, not its weights. The output folder holds model.safetensors,
    metrics.json, history.csv, config.json and split.json; give it to `mixunlearn-cli evaluate --reference`.
    """
    from pymixunlearn.experiments import TrainingRequest

    request = TrainingRequest(
        command="retrain",
        data=options.data_request(values),
        split=options.split_request(values),
        model=options.model_request(values),
        device=values["device"],
        seed=values["seed"],
        settings=settings_of(ctx, values["assignments"]),
    )
    show_training(ctx, request, values["out"])
