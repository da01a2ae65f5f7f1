"""Fine-tuning: go on training on what remains and hope that the rest fades.

Golatkar, Achille, Soatto, CVPR 2020; Warnecke et al., "Machine Unlearning of Features and Labels", NDSS 2023. Defaults
from the range that Fan et al., "SalUn", ICLR 2024, searched (10 epochs, SGD with momentum 0.9, 1e-3 to 1e-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.base import Job, register
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.loop import Loop, LoopConfig, LoopMethod, Measured, Stage, cross_entropy, descend
from pymixunlearn.training.optimizers import make_optimizer

NAME = "fine-tune"


@dataclass(frozen=True)
class FineTuneConfig(LoopConfig):
    """Settings of :class:`FineTune`."""

    epochs: int = setting(10, "passes over the retain set", low=1)
    lr: float = setting(0.01, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)
    weight_decay: float = setting(5e-4, "coefficient of the squared norm's gradient", low=0)


class FineTuneLoop(Loop[FineTuneConfig]):
    """Steps on D_r alone."""

    name = NAME

    def __init__(self, config: FineTuneConfig, job: Job) -> None:
        """Set up the optimiser."""
        super().__init__(config, job)
        self.optimizer = self.parts["optimizer"] = make_optimizer(
            self.model, "sgd", config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )

    def stages(self) -> list[Stage]:
        """Return passes over D_r."""
        return [Stage(self.config.epochs, self.steps(self.retain_set), self._epoch)]

    def _epoch(self, epoch: int) -> Iterator[Measured]:
        for retain in self.retain_batches(epoch):
            yield self.step(retain)

    def step(self, retain: Batch) -> Measured:
        """CE_r."""
        loss = cross_entropy(self.model(retain.images), retain)
        descend(self.optimizer, loss)
        return {"retain": loss}


@register
class FineTune(LoopMethod):
    """Cross entropy on the retain set; needs its labels, and never looks at the forget set."""

    name = NAME
    summary = "further training on the remaining data only"
    config_class = FineTuneConfig
    loop_class = FineTuneLoop
