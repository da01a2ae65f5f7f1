"""Retrain: the same network trained from scratch on what remains. The gold standard that unlearning is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import Job, Method, MethodConfig, Outcome, register, setting
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.supervised import TrainConfig, defaults_for, train

NAME = "retrain"


@dataclass(frozen=True)
class RetrainConfig(MethodConfig):
    """Settings of :class:`Retrain`; those left at none are the published ones of the network."""

    epochs: int | None = setting(None, "passes over the retain set; none takes the network's default", low=1)
    lr: float | None = setting(None, "learning rate; none takes the network's default", above=0)
    weight_decay: float = setting(1e-4, "coefficient of the squared norm's gradient", low=0)
    batch_size: int = setting(32, "images per step", low=1)
    optimizer: Literal["adam", "sgd"] = setting("adam", "which optimiser")
    momentum: float = setting(0.9, "momentum of SGD; Adam does not use it", low=0, below=1)


@register
class Retrain(Method):
    """Train fresh weights of the same architecture on ``split.retain`` with cross entropy."""

    name = NAME
    summary = "train the same network from scratch on the remaining data only"
    config_class = RetrainConfig
    config: RetrainConfig

    def resolve(self, model: nn.Module) -> TrainConfig:
        """Return the training settings with the defaults of this network filled in."""
        name = _architecture_name(model)
        # A network of the user's own has no published settings: it gets those of the small one.
        published = defaults_for(name if name is not None else "cnn", "retrain")
        chosen = {field: value for field, value in self.config.to_dict().items() if value is not None}
        return TrainConfig(**{**published.to_dict(), **chosen})

    def _run(self, job: Job) -> Outcome:
        config = self.resolve(job.model)
        trained = train(
            fresh_weights(job.model, derive_seed(job.seed, NAME)),
            job.split.retain,
            job.split.preprocess,
            config,
            device=job.device,
            seed=derive_seed(job.seed, NAME),
            callbacks=job.callbacks,
            resume=job.resume,
            name=NAME,
        )
        return Outcome(trained.model, trained.history, RetrainConfig(**config.to_dict()))


def fresh_weights(model: nn.Module, seed: int) -> nn.Module:
    """Return a network of the same architecture, on the CPU, with weights that know nothing of ``model``'s.

    Networks of :mod:`pymixunlearn.models` are built anew; ``model`` itself is kept as it is. Any other network is
    reset in place, layer by layer, by the ``reset_parameters`` that PyTorch's layers have.

    Args:
        model: The network to take after.
        seed: Fixes the weights.

    Raises:
        UserError: A layer holds parameters but cannot reset them, so that old knowledge would remain.
    """
    if _architecture_name(model) is not None:
        return models.build(**model.architecture, seed=seed)  # type: ignore[arg-type]
    resets = []
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        # PyTorch's attention spells it with an underscore.
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if reset is None:
            raise UserError(
                f"'{name or type(model).__name__}' has parameters but no reset_parameters(); expected one, "
                "to retrain from fresh weights"
            )
        resets.append(reset)
    cpu = torch.device("cpu")
    model.to(cpu)
    with seeded_layers(cpu, seed, "weights"):
        for reset in resets:
            reset()
    return model


def _architecture_name(model: nn.Module) -> str | None:
    """Name of the network in :mod:`pymixunlearn.models`, or None for a network of the user's own."""
    architecture = getattr(model, "architecture", None)
    name = architecture.get("name") if isinstance(architecture, dict) else None
    return name if name in models.available() else None
