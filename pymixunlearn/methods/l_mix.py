"""L-Mix: LAF with plain mixup.

A label-agnostic baseline of "Adversarial Mixup Unlearning", ICLR 2025 (Section 5.2, Appendix A.3): mixes of forget and
retain images, whose targets are mixes of random labels and the initial model's own predictions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import OURS, SEARCHED, setting
from pymixunlearn.methods.laf import LafConfig, RepresentationUnlearning
from pymixunlearn.methods.loop import Measured, descend
from pymixunlearn.methods.randlabel import random_targets
from pymixunlearn.methods.registry import method
from pymixunlearn.seeding import derive_seed


@dataclass(frozen=True)
class LMixConfig(LafConfig):
    """Settings of :class:`LMix`: LAF's, and those of the mixes.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.LMixConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = "released code of LAF"

    alpha: float = setting(
        0.75,
        "the mixing ratio is drawn from Beta(alpha, alpha); tuned over 0.3, 0.5, 0.75, 1, 1.5",
        above=0,
        source=SEARCHED,
    )
    mix_weight: float = setting(1.0, "weight of the loss on mixes beside LAF's alignment", low=0, source=OURS)


@method("l-mix", summary="label-agnostic forgetting with plain mixup")
class LMix(RepresentationUnlearning[LMixConfig]):
    """LAF and plain mixup, without a single label.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.LMix(alpha=0.5).needs_labels
        False
    """

    config_class = LMixConfig

    @property
    def needs_labels(self) -> bool:
        """False."""
        return False

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Take an extraction step, and an alignment step that learns a mix as well, on each pair of batches."""
        draw, beta = self.generator("labels", epoch), random.Random(derive_seed(self.seed, self.name, "lam", epoch))
        for forget, retain in self.pairs(epoch):
            lam = beta.betavariate(self.config.alpha, self.config.alpha)
            labels = random_targets(len(forget.images), self.num_classes, draw)
            extraction = self.extract_step(forget, retain)
            yield {**extraction, **self.align_and_mix_step(forget, retain, lam, labels)}

    def align_and_mix_step(self, forget: Batch, retain: Batch, lam: float, labels: Tensor) -> Measured:
        """LAF's alignment + mix_weight MSE(f(x_mix), lam random label + (1 - lam) f_D(x_r)), on probabilities.

        x_mix = lam x_f + (1 - lam) x_r; labels are one-hot [N, classes].
        """
        n = min(len(forget.images), len(retain.images))
        x_f, x_r = forget.images[:n], retain.images[:n]
        with torch.no_grad():
            p_r = torch.softmax(self.embed_initial(x_r)[0], 1)
        target = lam * labels[:n] + (1 - lam) * p_r
        align = self.align_loss(forget, retain)
        mix = F.mse_loss(torch.softmax(self.model(lam * x_f + (1 - lam) * x_r), 1), target)
        descend(self.align_optimizer, align + self.config.mix_weight * mix)
        return {"align": align, "mix": mix}
