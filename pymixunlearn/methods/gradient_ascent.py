"""Gradient ascent: undo learning by raising the loss on what is to be forgotten, and look at nothing else.

Thudi, Deza, Chandrasekaran, Papernot, "Unrolling SGD", EuroS&P 2022; Graves, Nagisetty, Ganesh, "Amnesiac Machine
Learning", AAAI 2021. Defaults from the range that Fan et al., "SalUn", ICLR 2024, searched (5 epochs, 1e-6 to 1e-4).
"""

from __future__ import annotations

from dataclasses import dataclass

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, cross_entropy, descend
from pymixunlearn.methods.registry import method


@dataclass(frozen=True)
class GradientAscentConfig(EndingConfig, LoopConfig):
    """Settings of :class:`GradientAscent`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.GradientAscentConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = "within the range searched for SalUn's paper"

    epochs: int = setting(5, "passes over the forget set", low=1)
    lr: float = setting(1e-4, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)


@method("gradient-ascent", summary="gradient ascent on the forgotten data")
class GradientAscent(Loop[GradientAscentConfig]):
    """Negative gradients on the forget set only; needs its labels. What remains suffers unless steps are few.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.GradientAscent(epochs=2).config.lr
        0.0001
    """

    config_class = GradientAscentConfig
    epoch_of = "forget"

    def setup(self) -> None:
        """Make the optimiser."""
        self.optimizer = self.add_optimizer("sgd", self.config.lr, momentum=self.config.momentum)

    def step(self, forget: Batch) -> Measured:
        """-CE_f."""
        loss = cross_entropy(self.model(forget.images), forget)
        descend(self.optimizer, -loss)
        return {"forget": loss}
