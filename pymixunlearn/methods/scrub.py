"""SCRUB: a student disobeys its teacher, the initial model, on what is to be forgotten and obeys it on the rest.

Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023. The settings
of both variants are those of the released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pymixunlearn.data.batches import Batch
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods.config import CODE, OURS, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import (
    Loop,
    LoopConfig,
    Measured,
    Stage,
    cross_entropy,
    descend,
    frozen_copy,
    kl_divergence,
)
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import labelled
from pymixunlearn.training.optimizers import OptimizerName


@dataclass(frozen=True)
class ScrubConfig(EndingConfig, LoopConfig):
    """Settings of :class:`Scrub`; those left at none are the variant's.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.ScrubConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = CODE

    variant: Literal["small", "notebook", "large"] = setting(
        "small",
        "the published settings for small or large networks; notebook is small with D_f in batches of 64, as in the "
        "released notebook",
        source=OURS,
    )
    epochs: int | None = setting(None, "epochs; small 10, large 3", low=1)
    max_epochs: int | None = setting(None, "in how many of them D_f is unlearned first; small 3, large 2", low=0)
    batch_size: int | None = setting(  # type: ignore[assignment]  # resolved before the loop reads it
        None, "images per step on D_f; small and large 32, notebook 64", low=1
    )
    retain_batch_size: int | None = setting(None, "images per step on D_r; small 32, large 128", low=1)
    optimizer: OptimizerName | None = setting(None, "which optimiser; small adam, large sgd")
    lr: float = setting(5e-4, "learning rate", above=0)
    momentum: float = setting(0.9, "momentum of SGD; Adam does not use it", low=0, below=1)
    weight_decay: float | None = setting(None, "coefficient of the squared norm's gradient; 0.1, 5e-4", low=0)
    gamma: float | None = setting(None, "weight of the cross entropy on D_r; small 1, large 0.99", low=0)
    alpha: float | None = setting(
        None,
        "weight of the teacher on D_r; small 0.5, large 0.001; MixUnlearn's authors tuned it over 1e-4 to 100",
        low=0,
    )
    T: float | None = setting(None, "temperature of both divergences; small 2, large 4", above=0)
    decay_epochs: str | None = setting(None, "epochs after which lr decays; small 5,8,9, large 3,5,9")
    decay: float = setting(0.1, "factor of that decay", above=0, high=1)
    rewind: bool = setting(
        False, "SCRUB+R: go back to the epoch that errs on D_f as often as on unseen samples", source=OURS
    )
    validation: float = setting(0.1, "share of D_r held out as those unseen samples", above=0, below=1, source=OURS)

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        self.decays()

    @property
    def own_choice(self) -> str | None:
        """SCRUB+R goes back to an epoch of its own choice."""
        return "rewind" if self.rewind else None

    def decays(self) -> list[int]:
        """Return the epochs after which the learning rate decays."""
        try:
            return [int(epoch) for epoch in (self.decay_epochs or "").split(",") if epoch.strip()]
        except ValueError:
            raise UserError(f"decay_epochs is '{self.decay_epochs}'; expected whole numbers, such as 5,8,9") from None

    def resolve(self) -> ScrubConfig:
        """Return the settings with the variant's in place of none."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return ScrubConfig(
            **{**chosen, **{key: v for key, v in _VARIANTS[self.variant].items() if chosen[key] is None}}
        )


_SMALL: dict[str, Any] = {
    "epochs": 10,
    "max_epochs": 3,
    "batch_size": 32,
    "retain_batch_size": 32,
    "optimizer": "adam",
    "weight_decay": 0.1,
    "gamma": 1.0,
    "alpha": 0.5,
    "T": 2.0,
    "decay_epochs": "5,8,9",
}
_VARIANTS: dict[str, dict[str, Any]] = {
    "small": _SMALL,
    "notebook": {**_SMALL, "batch_size": 64},
    "large": {
        "batch_size": 32,
        "epochs": 3,
        "max_epochs": 2,
        "retain_batch_size": 128,
        "optimizer": "sgd",
        "weight_decay": 5e-4,
        "gamma": 0.99,
        "alpha": 0.001,
        "T": 4.0,
        "decay_epochs": "3,5,9",
    },
}


@method(
    "scrub", summary="a student that contradicts the initial model on the forgotten data and follows it on the rest"
)
class Scrub(Loop[ScrubConfig]):
    """Teacher and student, alternately against and with each other; needs labels for the retain set.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Scrub(rewind=True).config.variant
        'small'
    """

    config_class = ScrubConfig

    def resolve(self, model: nn.Module) -> ScrubConfig:
        """Return the settings with the variant's filled in."""
        return self.config.resolve()

    def setup(self) -> None:
        """Take the initial model as teacher, and hold samples out if they are to say where to rewind to."""
        config = self.config
        assert config.epochs and config.max_epochs is not None and config.optimizer and config.T
        assert config.weight_decay is not None and config.gamma is not None and config.alpha is not None
        self.epochs, self.max_epochs = config.epochs, min(config.max_epochs, config.epochs)
        self.T, self.gamma, self.alpha = config.T, config.gamma, config.alpha
        self.teacher = frozen_copy(self.model)
        self.optimizer = self.add_optimizer(
            config.optimizer, config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        self.rewind = None
        if config.rewind:
            self.rewind = self.parts["rewind"] = Rewind(labelled(self.forget_set), self.hold_out(config.validation))

    def stages(self) -> list[Stage]:
        """Return the epochs with max-steps, and those without."""
        min_steps = self.steps(self.retain_set, self.config.retain_batch_size)
        max_steps = self.steps(self.forget_set)
        return [
            Stage(self.max_epochs, max_steps + min_steps, self.epoch),
            Stage(self.epochs - self.max_epochs, min_steps, self.epoch),
        ]

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Take the max-steps, where the epoch has them, and the min-steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(epoch + 1)
        if epoch < self.max_epochs:
            for forget in self.forget_batches(epoch):
                yield self.max_step(forget)
        for retain in self.batches(self.retain_set, "retain", epoch, batch_size=self.config.retain_batch_size):
            yield self.min_step(retain)
        if self.rewind is not None:
            self.rewind.record(self.model, self.predict(self.rewind.forget))

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate in ``epoch``, counted from 1."""
        return self.config.lr * self.config.decay ** sum(epoch > mark for mark in self.config.decays())

    def max_step(self, forget: Batch) -> Measured:
        """-T^2 KL(teacher || student) on D_f."""
        divergence = kl_divergence(self.teacher(forget.images), self.model(forget.images), self.T)
        descend(self.optimizer, -divergence)
        return {"forget": divergence}

    def min_step(self, retain: Batch) -> Measured:
        """Gamma CE + alpha T^2 KL(teacher || student) on D_r."""
        logits = self.model(retain.images)
        divergence, loss = kl_divergence(self.teacher(retain.images), logits, self.T), cross_entropy(logits, retain)
        descend(self.optimizer, self.gamma * loss + self.alpha * divergence)
        return {"retain": loss, "retain_divergence": divergence}

    def unlearned(self) -> nn.Module:
        """Return the student, rewound if the settings say so."""
        if self.rewind is not None and self.collapse is None:
            self.model.load_state_dict(self.rewind.choose(self.predict(self.rewind.held_out)))
        return self.model


class Rewind:
    """The student after every epoch, and how often each of them errs on D_f.

    The reference is the last student's error on held-out samples, class by class and weighted as the classes are in
    D_f: that is how often a model errs on such samples that it has never seen.

    Raises:
        UserError: D_r has no samples of the classes of D_f, as when whole classes are forgotten.
    """

    def __init__(self, forget: ImageSet, held_out: ImageSet) -> None:
        """Take the samples of those classes that both sets have."""
        shared = torch.isin(forget.targets, held_out.targets)
        if not shared.any():
            raise UserError(
                "rewind compares D_f with remaining samples of the same classes, but there are none; "
                "expected rewind=false when whole classes are forgotten"
            )
        self.forget = forget.subset(shared.nonzero().squeeze(1))
        self.held_out = held_out
        self.errors: list[float] = []
        self.students: list[dict[str, Tensor]] = []

    def record(self, student: nn.Module, predictions: Tensor) -> None:
        """Copy an epoch's student, and note its error on D_f."""
        self.errors.append((predictions != self.forget.targets.cpu()).double().mean().item())
        self.students.append(
            {name: value.detach().to("cpu", copy=True) for name, value in student.state_dict().items()}
        )

    def choose(self, predictions: Tensor) -> dict[str, Tensor]:
        """Return the student whose error on D_f is nearest to the last one's on the held-out samples."""
        targets, forgotten = self.held_out.targets.cpu(), self.forget.targets.cpu()
        count = forgotten.bincount(minlength=self.held_out.num_classes)
        seen = targets.bincount(minlength=self.held_out.num_classes)
        wrong = targets.bincount((predictions != targets).double(), minlength=self.held_out.num_classes)
        reference = ((wrong / seen.clamp(min=1)) * count).sum().item() / len(forgotten)
        return min(zip(self.errors, self.students, strict=True), key=lambda pair: abs(pair[0] - reference))[1]

    def state_dict(self) -> dict[str, Any]:
        """Return all students and errors so far."""
        return {"errors": list(self.errors), "students": list(self.students)}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Put them back."""
        self.errors, self.students = list(state_dict["errors"]), list(state_dict["students"])
