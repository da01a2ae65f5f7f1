"""NegGrad: descend on what remains while ascending on what is to be forgotten.

Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020; here as a baseline of
"Adversarial Mixup Unlearning", ICLR 2025 (Appendix A.3). The convex form is that of Kurmanji et al., NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import PAPER, SEARCHED, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, cross_entropy, descend, frozen_copy
from pymixunlearn.methods.registry import method


@dataclass(frozen=True)
class NegGradConfig(EndingConfig, LoopConfig):
    """Settings of :class:`NegGrad`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.NegGradConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = SEARCHED

    form: Literal["weighted", "convex"] = setting(
        "weighted",
        "w CE_r - CE_f (MixUnlearn's baseline), or alpha CE_r - (1 - alpha) CE_f, pulled to the start",
        source=PAPER,
    )
    retain_weight: float = setting(10.0, "w of the weighted form; tuned over 0.001, 0.01, 0.1, 1, 10, 100", above=0)
    alpha: float = setting(0.95, "alpha of the convex form", low=0, high=1, source="the paper of the convex form")
    pull: float = setting(
        5e-4,
        "convex form: weight of the squared distance to the initial weights, halved",
        low=0,
        source="the paper of the convex form",
    )
    lr: float = setting(3e-4, "learning rate (SGD); 0.01 was published for the convex form", above=0)
    momentum: float = setting(0.0, "momentum", low=0, below=1)
    epochs: int = setting(10, "passes over the retain set", low=1)


@method("neggrad", summary="gradient descent on the remaining data, ascent on the forgotten")
class NegGrad(Loop[NegGradConfig]):
    """Positive gradients on the retain set, negative ones on the forget set; needs labels.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.NegGrad(form="convex").config.alpha
        0.95
    """

    config_class = NegGradConfig
    in_one_process = None
    epoch_of = "cycled"

    def setup(self) -> None:
        """Set up the optimiser."""
        self.initial_weights = list(frozen_copy(self.model).parameters())
        self.optimizer = self.add_optimizer("sgd", self.config.lr, momentum=self.config.momentum)

    def step(self, forget: Batch, retain: Batch) -> Measured:
        """W CE_r - CE_f; or alpha (CE_r + pull/2 |theta - theta_0|^2) - (1 - alpha) CE_f."""
        loss_r = cross_entropy(self.model(retain.images), retain)
        loss_f = cross_entropy(self.model(forget.images), forget)
        if self.config.form == "weighted":
            loss = self.config.retain_weight * loss_r - loss_f
        else:
            pairs = zip(self.model.parameters(), self.initial_weights, strict=True)
            distance = torch.stack([(now - start).square().sum() for now, start in pairs]).sum()
            alpha = self.config.alpha
            loss = alpha * (loss_r + self.config.pull / 2 * distance) - (1 - alpha) * loss_f
        descend(self.optimizer, loss)
        return {"retain": loss_r, "forget": loss_f, "total": loss}
