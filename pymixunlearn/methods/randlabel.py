"""RandLabel: random labels on what is to be forgotten, the old predictions on what remains.

A label-agnostic baseline of "Adversarial Mixup Unlearning", ICLR 2025 (Section 5.2, Appendix A.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.by_network import UNLEARNING, NetworkConfig
from pymixunlearn.methods.config import PAPER, SEARCHED, setting
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, descend, frozen_copy
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.stopping import StoppingConfig


@dataclass(frozen=True)
class RandLabelConfig(NetworkConfig, StoppingConfig, LoopConfig):
    """Settings of :class:`RandLabel`; epochs, batch size and learning rate are MixUnlearn's, by network.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.RandLabelConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = PAPER
    by_network = UNLEARNING

    epochs: int | None = setting(None, "passes over the smaller of forget and retain set; cnn 20, resnet18 40", low=1)
    lr: float | None = setting(None, "learning rate (Adam); cnn 5e-5, resnet18 1e-5", above=0)
    retain_weight: float = setting(
        1.0,
        "weight of the retain loss; tuned over 1e-4, 0.01, 0.1, 1, 10, 100",
        low=0,
        source=SEARCHED,
    )


@method("randlabel", summary="random labels on the forgotten data, the model's own predictions on the rest")
class RandLabel(Loop[RandLabelConfig]):
    """Random labels for the forget set, the initial model's own predictions for the retain set; needs no labels.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.RandLabel(retain_weight=10.0).needs_labels
        False
    """

    config_class = RandLabelConfig

    @property
    def needs_labels(self) -> bool:
        """False."""
        return False

    def setup(self) -> None:
        """Copy the initial model, whose predictions are the targets on D_r."""
        self.initial = frozen_copy(self.model)
        assert self.config.lr is not None  # resolved
        self.optimizer = self.add_optimizer("adam", self.config.lr)

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Draw a label for every image of D_f."""
        draw = self.generator("labels", epoch)
        for forget, retain in self.pairs(epoch):
            yield self.step(forget, retain, random_targets(len(forget.images), self.num_classes, draw))

    def step(self, forget: Batch, retain: Batch, labels: Tensor) -> Measured:
        """MSE(f(x_f), random label) + w MSE(f(x_r), f_D(x_r)), on probabilities; labels are one-hot [N, classes]."""
        p_f = torch.softmax(self.model(forget.images), 1)
        p_r = torch.softmax(self.model(retain.images), 1)
        with torch.no_grad():
            target = torch.softmax(self.initial(retain.images), 1)
        loss_f, loss_r = F.mse_loss(p_f, labels.to(p_f.dtype)), F.mse_loss(p_r, target)
        loss = loss_f + self.config.retain_weight * loss_r
        descend(self.optimizer, loss)
        return {"forget": loss_f, "retain": loss_r, "total": loss}


def random_targets(count: int, num_classes: int, draw: torch.Generator) -> Tensor:
    """Draw ``count`` labels uniformly over all classes: one-hot [count, num_classes] int64 on ``draw``'s device."""
    return F.one_hot(torch.randint(num_classes, (count,), generator=draw, device=draw.device), num_classes)
