"""T-S: a student between two teachers.

Chundawat, Tarun, Mandal, Kankanhalli, "Can Bad Teaching Induce Forgetting?", AAAI 2023, whose bad teacher knows
nothing; and the extension that "Adversarial Mixup Unlearning" (ICLR 2025, Appendix A.3) compares with, whose teachers
are trained, one on D_f and one on D_r.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import OURS, PAPER, SEARCHED, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import (
    Loop,
    LoopConfig,
    LoopMethod,
    Measured,
    Stage,
    cross_entropy,
    descend,
    frozen_copy,
    kl_divergence,
)
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import Images, together
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.fresh import fresh_weights
from pymixunlearn.training.recipes import defaults_of

NAME = "ts"
_EPOCHS = {"trained": 10, "bad": 1}


@dataclass(frozen=True)
class TeachersConfig(EndingConfig, LoopConfig):
    """Settings of :class:`Teachers`; the original's where MixUnlearn's authors give none of their own.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.TeachersConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = "released code of the original (bad teacher)"

    teachers: Literal["trained", "bad"] = setting(
        "trained",
        "one teacher trained on D_f and one on D_r, or the initial model and one that knows nothing",
        source=PAPER,
    )
    epochs: int | None = setting(
        None, "passes over the smaller set (trained: 10), or over D_f and retain_share of D_r (bad: 1)", low=1
    )
    batch_size: int = setting(256, "images per step, of each set for trained teachers", low=1)
    lr: float = setting(1e-4, "learning rate of the student (Adam)", above=0)
    T: float = setting(1.0, "temperature; tuned over 0.5, 1, 2, 3", above=0, source=SEARCHED)
    retain_weight: float = setting(
        1.0,
        "trained: weight of the retain teacher; tuned over 1e-4, 0.01, 0.1, 1, 10, 100",
        low=0,
        source=SEARCHED,
    )
    teacher_epochs: int = setting(10, "trained: epochs of each teacher", low=1, source=PAPER)
    teacher_lr: float | None = setting(
        None, "trained: their learning rate; none takes the network's default", above=0, source=OURS
    )
    teacher_batch_size: int = setting(32, "trained: images per step of their training", low=1, source=OURS)
    retain_share: float = setting(0.3, "bad: random share of D_r that is used", above=0, high=1)

    def resolve(self) -> TeachersConfig:
        """Return the settings with the epochs filled in."""
        return replace(self, epochs=self.epochs or _EPOCHS[self.teachers])


class TrainedTeachers(Loop[TeachersConfig]):
    """First both teachers learn, each its own set; then the student flees the one and follows the other."""

    name = NAME
    config_class = TeachersConfig

    def resolve(self, model: nn.Module) -> TeachersConfig:
        """Return the settings with the epochs filled in."""
        return self.config.resolve()

    def setup(self) -> None:
        """Set up the teachers with fresh weights, and all optimisers."""
        training = defaults_of(self.model, "initial")
        lr = self.config.teacher_lr or training.lr
        self.teachers: dict[str, nn.Module] = {}
        self.teacher_optimizers: dict[str, torch.optim.Optimizer] = {}
        for side in ("forget", "retain"):
            stream = derive_seed(self.seed, NAME, side)
            teacher = fresh_weights(copy.deepcopy(self.model), stream, keep_frozen=True).to(self.device)
            self.teachers[side] = self.parts[f"{side}_teacher"] = teacher
            self.teacher_optimizers[side] = self.add_optimizer(
                "adam", lr, of=teacher, part=f"{side}_teacher_optimizer", weight_decay=training.weight_decay
            )
        self.optimizer = self.add_optimizer("adam", self.config.lr)

    def stages(self) -> list[Stage]:
        """Return the teachers' training, then the student's."""
        teacher_epochs, size = self.config.teacher_epochs, self.config.teacher_batch_size
        assert self.config.epochs is not None
        return [
            Stage(teacher_epochs, self.steps(self.forget_set, size), self._forget_teacher_epoch, "teachers"),
            Stage(teacher_epochs, self.steps(self.retain_set, size), self._retain_teacher_epoch, "teachers"),
            Stage(self.config.epochs, self.pair_steps(), self.epoch),
        ]

    def _forget_teacher_epoch(self, epoch: int) -> Iterator[Measured]:
        return self._teacher_epoch("forget", self.forget_set, epoch)

    def _retain_teacher_epoch(self, epoch: int) -> Iterator[Measured]:
        return self._teacher_epoch("retain", self.retain_set, epoch)

    def _teacher_epoch(self, side: str, images: Images, epoch: int) -> Iterator[Measured]:
        teacher = self.teachers[side].train()
        for batch in self.batches(images, "teacher", epoch, batch_size=self.config.teacher_batch_size):
            loss = cross_entropy(teacher(batch.images), batch)
            descend(self.teacher_optimizers[side], loss)
            yield {f"{side}_teacher": loss}

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Let the student learn from both teachers."""
        for teacher in self.teachers.values():
            teacher.eval()
        for forget, retain in self.pairs(epoch):
            yield self.step(forget, retain)

    def step(self, forget: Batch, retain: Batch) -> Measured:
        """-KL_T(t_f || s) on D_f + w KL_T(t_r || s) on D_r, with the factor T^2."""
        with torch.no_grad():
            t_f, t_r = self.teachers["forget"](forget.images), self.teachers["retain"](retain.images)
        away = kl_divergence(t_f, self.model(forget.images), self.config.T)
        towards = kl_divergence(t_r, self.model(retain.images), self.config.T)
        descend(self.optimizer, self.config.retain_weight * towards - away)
        return {"forget": away, "retain": towards}


class BadTeacher(Loop[TeachersConfig]):
    """The student learns from a network that knows nothing what to predict on D_f, and from itself on D_r."""

    name = NAME
    config_class = TeachersConfig

    def resolve(self, model: nn.Module) -> TeachersConfig:
        """Return the settings with the epochs filled in."""
        return self.config.resolve()

    def setup(self) -> None:
        """Choose the share of D_r, and set up the teachers."""
        self.good = frozen_copy(self.model)
        stranger = fresh_weights(copy.deepcopy(self.model), derive_seed(self.seed, NAME, "bad"))
        self.bad = frozen_copy(stranger).to(self.device)
        count = max(1, round(self.config.retain_share * len(self.retain_set)))
        indices = torch.randperm(len(self.retain_set), generator=self.generator("share"), device=self.device)[:count]
        self.samples = together(self.forget_set, self.retain_set.subset(indices))
        self.optimizer = self.add_optimizer("adam", self.config.lr)

    def stages(self) -> list[Stage]:
        """Return passes over D_f and the share of D_r together."""
        assert self.config.epochs is not None
        return [Stage(self.config.epochs, self.steps(self.samples), self.epoch)]

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Go through D_f and the share of D_r together."""
        for batch in self.batches(self.samples, "samples", epoch):
            yield self.step(batch.images, batch.indices < len(self.forget_set))

    def step(self, images: Tensor, is_forget: Tensor) -> Measured:
        """KL(l bad + (1 - l) good || s), l = 1 on D_f; the mean over all elements, as in the released code."""
        T = self.config.T
        with torch.no_grad():
            logits = torch.where(is_forget[:, None], self.bad(images), self.good(images))
            teacher = torch.softmax(logits / T, 1)
        loss = F.kl_div(torch.log_softmax(self.model(images) / T, 1), teacher, reduction="none").mean()
        descend(self.optimizer, loss)
        return {"total": loss}


@method(NAME, summary="a student that flees a teacher of the forgotten data and follows one of the rest")
class Teachers(LoopMethod):
    """Student and two teachers; with trained teachers it needs labels, with the bad teacher it does not.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Teachers(teachers="bad").needs_labels
        False
    """

    config_class = TeachersConfig
    config: TeachersConfig

    @property
    def needs_labels(self) -> bool:
        """True if the teachers are to be trained."""
        return self.config.teachers == "trained"

    def loop(self) -> Loop[TeachersConfig]:
        """Return the loop of the chosen form."""
        return (TrainedTeachers if self.config.teachers == "trained" else BadTeacher)(self.config)
