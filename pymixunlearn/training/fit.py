"""Training on any training set: with cross entropy where all images have labels, else with Mean Teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.data import Preprocess, TrainingSet
from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import explained
from pymixunlearn.training.mean_teacher import train_mean_teacher
from pymixunlearn.training.supervised import MeanTeacherConfig, TrainConfig, TrainResult, train


def fit(model: nn.Module, images: TrainingSet, preprocess: Preprocess, config: TrainConfig, **run: Any) -> TrainResult:
    """Train ``model`` in place by :func:`train` or :func:`train_mean_teacher`.

    Args:
        model: As for these, and so are ``preprocess`` and ``config``.
        images: With unlabelled ones it is :func:`train_mean_teacher`.
        preprocess: What turns stored images into network inputs.
        config: A :class:`MeanTeacherConfig` exactly where there are unlabelled images.
        **run: Their ``device``, ``seed``, ``callbacks``, ``resume`` and ``name``.

    Raises:
        UserError: As these do; or the network cannot process the images; or ``config`` is for the other of the two.

    Example:
        >>> from pymixunlearn import data, models, training
        >>> digits = data.load("digits")
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> device, config = training.resolve_device("cpu"), training.TrainConfig(epochs=1)
        >>> result = fit(model, TrainingSet(digits.train), digits.preprocess, config, device=device)
        >>> sorted(result.history[0])
        ['accuracy', 'epoch', 'loss', 'seconds']
    """

    def example() -> Tensor:
        return preprocess.evaluation(images.labelled.gather(torch.arange(min(2, len(images.labelled)))).to(device))

    device = run["device"]
    with explained(model, example):
        if images.unlabelled is None and not isinstance(config, MeanTeacherConfig):
            return train(model, images.labelled, preprocess, config, **run)
        if images.unlabelled is not None and isinstance(config, MeanTeacherConfig):
            return train_mean_teacher(model, images.labelled, images.unlabelled, preprocess, config, **run)
    expected = "TrainConfig" if images.unlabelled is None else "MeanTeacherConfig"
    raise UserError(f"config is {a_type(config)}; expected a {expected} for this training set")
