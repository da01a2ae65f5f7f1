"""Training on whatever there is: with cross entropy where all images have labels, else with Mean Teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pymixunlearn.data import Preprocess, TrainingSet
from pymixunlearn.errors import UserError
from pymixunlearn.training.loop import Callback, StateDict
from pymixunlearn.training.mean_teacher import train_mean_teacher
from pymixunlearn.training.supervised import MeanTeacherConfig, TrainConfig, TrainResult, train


def fit(
    model: nn.Module,
    images: TrainingSet,
    preprocess: Preprocess,
    config: TrainConfig,
    *,
    device: torch.device,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    resume: StateDict | None = None,
    name: str = "train",
) -> TrainResult:
    """Train ``model`` in place by :func:`train` or :func:`train_mean_teacher`, whose arguments these are.

    Raises:
        UserError: As these do; or ``config`` is for the other of the two.
    """
    if isinstance(config, MeanTeacherConfig) is not (images.unlabelled is not None):
        expected = "TrainConfig" if images.unlabelled is None else "MeanTeacherConfig"
        raise UserError(f"config is a {type(config).__name__}; expected a {expected} for this training set")
    if images.unlabelled is None:
        return train(
            model,
            images.labelled,
            preprocess,
            config,
            device=device,
            seed=seed,
            callbacks=callbacks,
            resume=resume,
            name=name,
        )
    assert isinstance(config, MeanTeacherConfig)
    return train_mean_teacher(
        model,
        images.labelled,
        images.unlabelled,
        preprocess,
        config,
        device=device,
        seed=seed,
        callbacks=callbacks,
        resume=resume,
        name=name,
    )
