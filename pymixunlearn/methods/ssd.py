"""SSD, selective synaptic dampening: shrink the weights that matter to the forget set far more than to all data.

Foster, Schoepf, Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI 2024.
Settings as published for ResNet-18. Nothing is trained: one pass over all data, one over D_f, and one change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import CODE, setting
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, Stage, cross_entropy, targets_of
from pymixunlearn.methods.parts import Tensors
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import together


@dataclass(frozen=True)
class SsdConfig(LoopConfig):
    """Settings of :class:`Ssd`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.SsdConfig.from_mapping({"batch_size": "7"}).batch_size
        7
    """

    source = CODE

    batch_size: int = setting(64, "images per gradient", low=1)
    alpha: float = setting(10.0, "a weight is dampened if it matters alpha times more to D_f than to all data", above=0)
    lam: float = setting(
        1.0,
        "a dampened weight is multiplied by lam times its importance to all data over that to D_f, at most by 1",
        above=0,
        source=CODE,
    )
    importance: Literal["batch", "sample"] = setting(
        "batch", "squares of the gradients of batches, as released and as alpha is published for, or of single samples"
    )


@method("ssd", summary="selective synaptic dampening: shrinks the weights that matter most to the forgotten data")
class Ssd(Loop[SsdConfig]):
    """Dampening of the weights that the forget set relies on; needs labels, for the loss whose gradients it takes.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Ssd(alpha=5.0).config.lam
        1.0
    """

    config_class = SsdConfig

    def setup(self) -> None:
        """Set up the importances; the model is not trained, so it stays in evaluation mode."""
        self.model.eval()
        self.all = together(self.forget_set, self.retain_set)
        self.weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        self.importance_all = self.parts["importance_all"] = self._zeros()
        self.importance_forget = self.parts["importance_forget"] = self._zeros()

    def _zeros(self) -> Tensors:
        return Tensors({name: torch.zeros_like(weight) for name, weight in self.weights.items()})

    def stages(self) -> list[Stage]:
        """Return the pass over all data and the one over D_f, which ends in the dampening."""
        return [
            Stage(1, self.steps(self.all), self._all_epoch, "importances"),
            Stage(1, self.steps(self.forget_set), self.epoch, "importances"),
        ]

    def _all_epoch(self, epoch: int) -> Iterator[Measured]:
        for batch in self.batches(self.all, "all", augment=False):
            yield self.add_importance(self.importance_all, batch)

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Go through D_f, and dampen."""
        for batch in self.batches(self.forget_set, "forget", augment=False):
            yield self.add_importance(self.importance_forget, batch)
        self.dampen()

    def add_importance(self, importance: Tensors, batch: Batch) -> Measured:
        """Add squared gradients of CE: of the batch's mean, or the sum over its samples."""
        if self.config.importance == "batch":
            loss = cross_entropy(self.model(batch.images), batch)
            gradients = torch.autograd.grad(loss, list(self.weights.values()), materialize_grads=True)
            for total, gradient in zip(importance.values(), gradients, strict=True):
                total += gradient.square()
            return {"loss": loss}
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        for name, gradient in vmap(grad(self._loss), (None, 0, 0))(weights, batch.images, targets_of(batch)).items():
            importance[name] += gradient.square().sum(0)
        return {}

    def _loss(self, weights: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        logits = functional_call(self.model, weights, (image[None],))
        return F.cross_entropy(logits, target[None])

    @torch.no_grad()
    def dampen(self) -> None:
        """Theta *= min(lambda I_D / I_Df, 1) wherever I_Df > alpha I_D; I are means over batches or samples."""
        each = self.config.importance == "sample"
        count_all = len(self.all) if each else self.steps(self.all)
        count_forget = len(self.forget_set) if each else self.steps(self.forget_set)
        for name, weight in self.weights.items():
            of_all, of_forget = self.importance_all[name] / count_all, self.importance_forget[name] / count_forget
            factor = (self.config.lam * of_all / of_forget).clamp(max=1)
            weight.mul_(torch.where(of_forget > self.config.alpha * of_all, factor, 1.0))
