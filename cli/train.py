"""``mixunlearn-cli train``: an initial model."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .config_file import settings_of
from .help import SettingsCommand
from .training import show_training


@click.command(cls=SettingsCommand, settings=("train",))
@options.data_options
@click.option(
    "--model",
    metavar="NAME",
    help="The network: cnn, resnet18 or vit.  [default: cnn for grey images, resnet18 for colour]",
)
@options.machine_options
@options.settings_options("epochs=5")
@options.out_option("runs/, and a name that says what was trained")
@click.pass_context
def train(ctx: click.Context, /, **values: Any) -> None:
    """Train an initial model on all training data, and write its checkpoint and accuracies.

    The output folder holds model.safetensors, metrics.json, history.csv and config.json; give it to
    `mixunlearn-cli unlearn --model`. It is the model that `unlearn` itself would train with the same seed and settings.
    """
    from pymixunlearn.experiments import ModelRequest, TrainingRequest

    request = TrainingRequest(
        command="train",
        data=options.data_request(values),
        model=ModelRequest(model=values["model"]),
        device=values["device"],
        seed=values["seed"],
        settings=settings_of(ctx, values["assignments"]),
    )
    show_training(ctx, request, values["out"])
