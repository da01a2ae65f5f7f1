"""Retrain: the same network trained from scratch on what remains. The gold standard that unlearning is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from pymixunlearn.data import TrainingSet
from pymixunlearn.methods.base import Method, MethodOutput, UnlearnJob
from pymixunlearn.methods.config import OURS, PAPER, MethodConfig, setting
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import labelled
from pymixunlearn.models.adapter import say
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.fit import fit
from pymixunlearn.training.fresh import fresh_weights, frozen_parameters
from pymixunlearn.training.recipes import defaults_of
from pymixunlearn.training.supervised import TrainConfig


@dataclass(frozen=True)
class RetrainConfig(MethodConfig):
    """Settings of :class:`Retrain`; those left at none are the published ones of the network.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.RetrainConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = PAPER

    epochs: int | None = setting(None, "passes over the retain set; none takes the network's default", low=1)
    lr: float | None = setting(None, "learning rate; none takes the network's default", above=0)
    weight_decay: float | None = setting(
        None, "decay of the weights; none takes the network's default, mostly 0.0001", low=0, source=OURS
    )
    batch_size: int = setting(32, "images per step", low=1)
    optimizer: Literal["adam", "adamw", "sgd"] | None = setting(
        None, "which optimiser; none takes the network's default, mostly adam"
    )
    momentum: float = setting(0.9, "momentum of SGD; the others do not use it", low=0, below=1, source=OURS)
    std_weight: float = setting(0.0, "gamma of the regulariser that unrolling profits from", low=0, source=OURS)
    schedule: Literal["constant", "linear"] = setting(
        "constant", "of the learning rate: as it is, or falling to 0 from step to step"
    )
    consistency: float | None = setting(
        None, "task semi: largest weight of the consistency loss; none takes 30", low=0, source=OURS
    )
    ramp_up: float | None = setting(
        None, "task semi: epochs in which that weight is reached; none takes 5", low=0, source=OURS
    )
    ema: float | None = setting(
        None, "task semi: what the teacher keeps in a step; none takes 0.97", low=0, below=1, source=OURS
    )

    @classmethod
    def of(cls, config: TrainConfig) -> RetrainConfig:
        """Return the settings by which :class:`Retrain` trains exactly as ``config`` says.

        Example:
            >>> from pymixunlearn import methods, training
            >>> methods.RetrainConfig.of(training.TrainConfig(epochs=7)).epochs
            7
        """
        return cls(**config.to_dict())


@method("retrain", summary="train the same network from scratch on the remaining data only")
class Retrain(Method):
    """Train fresh weights of the same architecture on D_r: with cross entropy, or with Mean Teacher in task "semi".

    Parameters without ``requires_grad`` keep their values: the initial model's training began with them and left them
    as they are, so retraining does too. What they had learnt of D_f before they were frozen, Retrain knows as well.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Retrain(epochs=5).config.batch_size
        32
    """

    config_class = RetrainConfig
    in_one_process = None
    config: RetrainConfig
    semi_supervised = True

    def resolve(self, model: nn.Module, *, semi_supervised: bool = False) -> TrainConfig:
        """Return the training settings with the defaults of this network filled in.

        Raises:
            UserError: A setting of semi-supervised training is given for another.
        """
        published = defaults_of(model, "retrain", semi_supervised=semi_supervised)
        return published.replaced({**self.config.to_dict(), "precision": self.config.precision})

    def _run(self, job: UnlearnJob) -> MethodOutput:
        images = TrainingSet(labelled(job.split.retain), job.split.unlabelled)
        frozen = frozen_parameters(job.model)
        if frozen:
            where = f"{len(frozen)} from '{frozen[0]}' on"
            say(f"parameters of the model are frozen, {where}; the retrained model has the same")
        config = self.resolve(job.model, semi_supervised=images.unlabelled is not None)
        trained = fit(
            fresh_weights(job.model, derive_seed(job.seed, self.name), keep_frozen=True),
            images,
            job.split.preprocess,
            config,
            device=job.device,
            seed=derive_seed(job.seed, self.name),
            callbacks=job.callbacks,
            resume=job.resume,
            name=self.name,
        )
        return MethodOutput(trained.model, trained.history, RetrainConfig.of(config))
