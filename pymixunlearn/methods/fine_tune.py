"""Fine-tuning: go on training on what remains and hope that the rest fades.

Golatkar, Achille, Soatto, CVPR 2020; Warnecke et al., "Machine Unlearning of Features and Labels", NDSS 2023. Defaults
from the range that Fan et al., "SalUn", ICLR 2024, searched (10 epochs, SGD with momentum 0.9, 1e-3 to 1e-1).
"""

from __future__ import annotations

from dataclasses import dataclass

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, cross_entropy, descend
from pymixunlearn.methods.registry import method


@dataclass(frozen=True)
class FineTuneConfig(EndingConfig, LoopConfig):
    """Settings of :class:`FineTune`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.FineTuneConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = "within the range searched for SalUn's paper"

    epochs: int = setting(10, "passes over the retain set", low=1)
    lr: float = setting(0.01, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)
    weight_decay: float = setting(5e-4, "coefficient of the squared norm's gradient", low=0)


@method("fine-tune", summary="further training on the remaining data only")
class FineTune(Loop[FineTuneConfig]):
    """Cross entropy on the retain set; needs its labels, and never uses the forget set.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.FineTune(lr=0.1).config.momentum
        0.9
    """

    config_class = FineTuneConfig
    in_one_process = None
    epoch_of = "retain"

    def setup(self) -> None:
        """Set up the optimiser."""
        self.optimizer = self.add_optimizer(
            "sgd", self.config.lr, weight_decay=self.config.weight_decay, momentum=self.config.momentum
        )

    def step(self, retain: Batch) -> Measured:
        """CE_r."""
        loss = cross_entropy(self.model(retain.images), retain)
        descend(self.optimizer, loss)
        return {"retain": loss}
