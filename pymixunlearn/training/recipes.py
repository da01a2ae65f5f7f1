"""Training settings of networks: the published ones, and for networks of libraries and users those of their kind."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from pymixunlearn.errors import unknown_name
from pymixunlearn.models import architecture_of, available
from pymixunlearn.training.supervised import MeanTeacherConfig, TrainConfig

Kind = Literal["convolutional", "layer-norm"]
Purpose = Literal["initial", "retrain"]

# The paper has neither resnet14 nor this vision transformer: their settings are ours.
_BUILT_IN: dict[str, dict[str, Any]] = {
    "cnn": {"epochs": 10, "lr": 1e-3},
    "resnet14": {"epochs": 16, "lr": 1e-3},
    "resnet18": {"epochs": 20, "lr": 5e-5},
    "vit": {"epochs": 10, "lr": 1e-3},
}
RECIPES: dict[tuple[Kind, bool], dict[str, Any]] = {
    ("convolutional", False): {"epochs": 10, "lr": 1e-3},
    ("layer-norm", False): {"epochs": 20, "lr": 3e-4, "optimizer": "adamw", "weight_decay": 0.05},
    ("convolutional", True): {"epochs": 20, "lr": 5e-5},
    ("layer-norm", True): {"epochs": 5, "lr": 5e-5, "optimizer": "adamw", "weight_decay": 0.01},
}
"""By kind and whether the training starts from pretrained weights; what is not said is the default of TrainConfig.

From scratch, convolutional networks get the small network's settings, and those with layer normalisation AdamW with a
lower rate and a stronger decay, as their authors use. From pretrained weights, convolutional ones get the paper's for
its pretrained ResNet-18, and the others AdamW with the rate that is the default of Hugging Face's trainer.
"""


def kind_of(model: nn.Module) -> Kind:
    """Tell networks that normalise layer by layer (ViT, DeiT, Swin, BEiT, ConvNeXt) from all others.

    Example:
        >>> kind_of(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
        'layer-norm'
        >>> kind_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        'convolutional'
    """
    names = [type(module).__name__ for module in model.modules()]
    layers = sum("LayerNorm" in name or "RMSNorm" in name for name in names)
    others = sum("BatchNorm" in name or "GroupNorm" in name for name in names)
    return "layer-norm" if layers > others else "convolutional"


def defaults_for(
    model_name: str,
    purpose: Purpose,
    *,
    semi_supervised: bool = False,
    kind: Kind = "convolutional",
    pretrained: bool = False,
) -> TrainConfig:
    """Return the training settings of a network, the published ones where there are any.

    Retraining gets twice the epochs of the initial model, as in the paper.

    Args:
        model_name: One of ``models.available()``, or a specification with a colon.
        purpose: "initial" for the model that unlearns, "retrain" for the one it is compared with.
        semi_supervised: Return a :class:`MeanTeacherConfig`, for training with unlabelled images too.
        kind: For a specification, what :func:`kind_of` says of its network.
        pretrained: For a specification, whether the training starts from pretrained weights.

    Raises:
        UserError: An unknown name.

    Example:
        >>> defaults_for("cnn", "initial").epochs, defaults_for("cnn", "retrain").epochs
        (10, 20)
        >>> defaults_for("timm:vit_tiny_patch16_224", "initial", kind="layer-norm").optimizer
        'adamw'
    """
    settings = RECIPES[kind, pretrained] if ":" in model_name else _BUILT_IN.get(model_name)
    if settings is None:
        raise unknown_name("model", model_name, available())
    factors = {"initial": 1, "retrain": 2}
    if purpose not in factors:
        raise unknown_name("purpose", purpose, factors)
    config_class = MeanTeacherConfig if semi_supervised else TrainConfig
    return config_class(**{**settings, "epochs": settings["epochs"] * factors[purpose]})


def defaults_of(model: nn.Module, purpose: Purpose, *, semi_supervised: bool = False) -> TrainConfig:
    """Return :func:`defaults_for` a network at hand, of whatever origin.

    Example:
        >>> defaults_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "initial").lr
        0.001
    """
    architecture = architecture_of(model) or {"name": f"object:{type(model).__name__}"}
    pretrained = bool(architecture.get("pretrained"))
    return defaults_for(
        str(architecture["name"]), purpose, semi_supervised=semi_supervised, kind=kind_of(model), pretrained=pretrained
    )
