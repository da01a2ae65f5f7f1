"""``mixunlearn-cli retrain``: the model that unlearning is measured by."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from pymixunlearn.experiments.common.inputs import RetrainInputs

from . import options
from .config_file import settings_of
from .help import SettingsCommand
from .training import show_training


@click.command(cls=SettingsCommand, settings=("train",))
@options.inputs_options(RetrainInputs)
@options.settings_options("epochs=5")
@options.out_option("runs/, and a name that says what was trained")
@click.pass_context
def retrain(ctx: click.Context, /, **values: Any) -> None:
    """Train a network on the remaining data only, from scratch or its pretrained weights; write checkpoint, metrics.

    A checkpoint given as --model lends its architecture, and what is frozen in it, but no weights that were trained.
    The output folder holds model.safetensors, model.yaml, metrics.json, history.csv, config.json, split.json and
    forget.key; give it to `mixunlearn-cli evaluate --reference`.
    """
    settings = settings_of(ctx, values["assignments"])
    inputs = options.make_inputs(RetrainInputs, values, settings=settings)
    from pymixunlearn.experiments import resolve_retraining, run_retraining

    show_training(ctx, partial(resolve_retraining, inputs), run_retraining, values["out"])
