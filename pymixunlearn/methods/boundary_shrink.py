"""Boundary Shrink: every forget image goes to its nearest other class.

Chen, Gao, Liu, Peng, Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary",
CVPR 2023. Settings as released; MixUnlearn's authors tuned the bound (Appendix A.3).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import CODE, SEARCHED, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import (
    Loop,
    LoopConfig,
    Measured,
    cross_entropy,
    descend,
    frozen_copy,
    targets_of,
)
from pymixunlearn.methods.pixels import PixelRange
from pymixunlearn.methods.registry import method


@dataclass(frozen=True)
class BoundaryShrinkConfig(EndingConfig, LoopConfig):
    """Settings of :class:`BoundaryShrink`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.BoundaryShrinkConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = CODE

    epochs: int = setting(10, "passes over the forget set", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    lr: float = setting(1e-5, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)
    bound: float = setting(
        0.1,
        "step against the old label, as a share of the range of pixel values; tuned over 0.1 to 0.5",
        above=0,
        source=SEARCHED,
    )
    step: float | None = setting(None, "deprecated: a step smaller than the bound; set the bound instead", above=0)
    nearest: Literal["other", "any"] = setting(
        "other",
        "the nearest class but the old one, or whatever class the step leads to, as in the released code",
        source="the paper",
    )

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        if self.step is not None:
            warnings.warn(
                f"step is {self.step}, and bound {self.bound}: the step is the bound now; this setting, which counts "
                "where it is the smaller one, goes with version 0.3",
                DeprecationWarning,
                stacklevel=4,
            )


@method("boundary-shrink", summary="moves the forgotten data to the nearest other class")
class BoundaryShrink(Loop[BoundaryShrinkConfig]):
    """Fine-tuning of the forget set on its nearest other classes; needs the forget set's labels.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.BoundaryShrink(bound=0.3).config.nearest
        'other'
    """

    config_class = BoundaryShrinkConfig
    epoch_of = "forget"

    def setup(self) -> None:
        """Keep the initial model, which finds the labels."""
        self.initial = frozen_copy(self.model)
        self.pixels = PixelRange.of(self.job.split, self.device)
        self.optimizer = self.add_optimizer("sgd", self.config.lr, momentum=self.config.momentum)

    def nearest_labels(self, forget: Batch) -> Tensor:
        """Return the nearest class [N]: the class of f_D(x + delta), one signed gradient step away from the label."""
        images = forget.images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(self.initial(images), forget), images)
        bound = min(self.config.step or self.config.bound, self.config.bound)
        with torch.no_grad():
            logits: Tensor = self.initial(self.pixels.clamp(images + bound * self.pixels.span * gradient.sign()))
        if self.config.nearest == "other":
            logits = logits.scatter(1, targets_of(forget)[:, None], float("-inf"))
        return logits.argmax(1)

    def step(self, forget: Batch) -> Measured:
        """CE of the clean images with their nearest labels."""
        loss = F.cross_entropy(self.model(forget.images), self.nearest_labels(forget))
        descend(self.optimizer, loss)
        return {"forget": loss}
