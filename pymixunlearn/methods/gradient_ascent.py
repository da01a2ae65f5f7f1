"""Gradient ascent: undo learning by raising the loss on what is to be forgotten, and look at nothing else.

Thudi, Deza, Chandrasekaran, Papernot, "Unrolling SGD", EuroS&P 2022; Graves, Nagisetty, Ganesh, "Amnesiac Machine
Learning", AAAI 2021. Defaults from the range that Fan et al., "SalUn", ICLR 2024, searched (5 epochs, 1e-6 to 1e-4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.base import Job, register
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.loop import Loop, LoopConfig, LoopMethod, Measured, Stage, cross_entropy, descend
from pymixunlearn.training.optimizers import make_optimizer

NAME = "gradient-ascent"


@dataclass(frozen=True)
class GradientAscentConfig(LoopConfig):
    """Settings of :class:`GradientAscent`."""

    epochs: int = setting(5, "passes over the forget set", low=1)
    lr: float = setting(1e-4, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)


class GradientAscentLoop(Loop[GradientAscentConfig]):
    """Steps on D_f alone."""

    name = NAME

    def __init__(self, config: GradientAscentConfig, job: Job) -> None:
        """Set up the optimiser."""
        super().__init__(config, job)
        self.optimizer = self.parts["optimizer"] = make_optimizer(
            self.model, "sgd", config.lr, momentum=config.momentum
        )

    def stages(self) -> list[Stage]:
        """Return passes over D_f."""
        return [Stage(self.config.epochs, self.steps(self.forget_set), self._epoch)]

    def _epoch(self, epoch: int) -> Iterator[Measured]:
        for forget in self.forget_batches(epoch):
            yield self.step(forget)

    def step(self, forget: Batch) -> Measured:
        """-CE_f."""
        loss = cross_entropy(self.model(forget.images), forget)
        descend(self.optimizer, -loss)
        return {"forget": loss}


@register
class GradientAscent(LoopMethod):
    """Negative gradients on the forget set only; needs its labels. What remains suffers unless steps are few."""

    name = NAME
    summary = "gradient ascent on the forgotten data"
    config_class = GradientAscentConfig
    loop_class = GradientAscentLoop
