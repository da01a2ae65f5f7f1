"""``mixunlearn-cli train``: an initial model."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from pymixunlearn.experiments.common.inputs import TrainInputs
from pymixunlearn.experiments.common.split_request import FORGET

from . import options
from .config_file import settings_of
from .help import SettingsCommand
from .training import show_training


@click.command(cls=SettingsCommand, settings=("train",))
@options.inputs_options(
    TrainInputs,
    without=(*FORGET, "architecture", "forget_key", "forget_history"),
    about={
        "weights": {
            "help": "Weights to start from, of --model; a head for another number of classes is new. Retraining starts "
            "from them too: they must not have seen what is to be forgotten.  [default: fresh weights]"
        },
        "model": {
            "metavar": "SPEC",
            "help": "The network: cnn, resnet14, resnet18, vit, torchvision:NAME, timm:NAME, hf:NAME, hf:FOLDER, "
            "package.module:factory or file.py:factory.  [default: cnn for grey images, resnet18 for colour]",
        },
    },
)
@options.settings_options("epochs=5")
@options.out_option("runs/, and a name that says what was trained")
@click.pass_context
def train(ctx: click.Context, /, **values: Any) -> None:
    """Train an initial model on all training data, and write its checkpoint and accuracies.

    The output folder holds model.safetensors, model.yaml, metrics.json, history.csv and config.json; give it to
    `mixunlearn-cli unlearn --model`. It is the model that `unlearn` itself would train with the same seed and settings,
    but in tasks noisy and semi, where that one learns other labels.

    A network of a library or of yours is trained, unless --set says otherwise, by Adam with lr 0.001 for 10 epochs, or,
    if it normalises layer by layer (ViT, Swin, ConvNeXt), by AdamW with lr 0.0003 and weight_decay 0.05 for 20; from
    pretrained weights, by Adam with lr 0.00005 for 20 epochs, or by AdamW with lr 0.00005 and weight_decay 0.01 for 5.
    """
    settings = settings_of(ctx, values["assignments"])
    inputs = options.make_inputs(TrainInputs, values, settings=settings)
    from pymixunlearn.experiments import resolve_training, run_training

    show_training(ctx, partial(resolve_training, inputs), run_training, values["out"])
