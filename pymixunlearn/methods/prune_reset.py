"""Prune-reset: most of the weights start again from zero and grow back on what remains; D_f is never trained on.

After "prune first, then unlearn" (Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023), without
the mask: what was set to zero is trained like every other weight. What a network knows by heart sits in many small
weights, and does not come back when these grow again on other samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, Stage, Tensors, cross_entropy, descend
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import Images

RISE = 0.2
"""Share of the steps in which the learning rate rises; over the others it falls to zero."""


@dataclass(frozen=True)
class PruneResetConfig(LoopConfig):
    """Settings of :class:`PruneReset`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.PruneResetConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    share: float | None = setting(
        None, "share of the weights that is reset; none takes 0.98 by magnitude, 0.5 by fisher", above=0, below=1
    )
    select: Literal["magnitude", "fisher"] = setting(
        "magnitude", "reset the smallest weights, or those that matter most to D_f beside D_r"
    )
    epochs: int = setting(6, "passes over the retain set: about half of the initial model's", low=1)
    lr: float = setting(1e-3, "highest learning rate (Adam): the initial model's, or up to three times that", above=0)
    weight_decay: float = setting(1e-4, "coefficient of the squared norm's gradient", low=0)


@method("prune-reset", summary="sets most weights to zero and lets them grow again on the remaining data")
class PruneReset(Loop[PruneResetConfig]):
    """Reset of the smallest weights, and cross entropy on the retain set; needs its labels.

    With ``select="fisher"`` the forget set chooses the weights, by gradients, and is not trained on either.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.PruneReset(select="fisher").config.epochs
        6
    """

    config_class = PruneResetConfig
    epoch_of = "retain"

    def setup(self) -> None:
        """Reset the smallest weights, or make room for the importances that choose others; set up the optimiser."""
        # Biases and the parameters of normalisation layers, of one dimension, stay as they are.
        self.weights = {
            name: weight for name, weight in self.model.named_parameters() if weight.requires_grad and weight.dim() > 1
        }
        self.importance: dict[str, Tensors] = {}
        if self.config.select == "magnitude":
            self.reset({name: -weight.abs() for name, weight in self.weights.items()})
        else:
            for side in ("forget", "retain"):
                zeros = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
                self.importance[side] = self.parts[f"importance_{side}"] = Tensors(zeros)
        self.optimizer = self.add_optimizer("adam", self.config.lr, weight_decay=self.config.weight_decay)

    def stages(self) -> list[Stage]:
        """Return the passes that choose weights, if there are any, and the training."""
        (training,) = super().stages()
        if self.config.select == "magnitude":
            return [training]
        return [
            Stage(1, self.steps(self.forget_set), self._forget_importance),
            Stage(1, self.steps(self.retain_set), self._retain_importance),
            training,
        ]

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Go once through D_r, with the learning rate that each step has."""
        first = epoch - (0 if self.config.select == "magnitude" else 2)  # of the training's own epochs
        steps = self.steps(self.retain_set)
        for step, retain in enumerate(self.retain_batches(epoch)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.lr * rate(first * steps + step, steps * self.config.epochs)
            yield self.step(retain)

    def step(self, retain: Batch) -> Measured:
        """CE_r."""
        loss = cross_entropy(self.model(retain.images), retain)
        descend(self.optimizer, loss)
        return {"retain": loss}

    def _forget_importance(self, epoch: int) -> Iterator[Measured]:
        yield from self._add_importance("forget", self.forget_set)

    def _retain_importance(self, epoch: int) -> Iterator[Measured]:
        yield from self._add_importance("retain", self.retain_set)
        of_forget, of_retain = self.importance["forget"], self.importance["retain"]
        counts = len(self.forget_set), len(self.retain_set)
        tiny = torch.finfo(torch.float32).tiny  # a weight without any gradient is not chosen
        self.reset(
            {name: (of_forget[name] / counts[0]) / (of_retain[name] / counts[1] + tiny) for name in self.weights}
        )

    def _add_importance(self, side: str, images: Images) -> Iterator[Measured]:
        """Add up squared gradients of the cross entropy of batches, the diagonal of the empirical Fisher information.

        The network is in evaluation mode, so that its statistics do not move.
        """
        self.model.eval()
        for batch in self.batches(images, "importance", side, augment=False):
            loss = cross_entropy(self.model(batch.images), batch)
            gradients = torch.autograd.grad(loss, list(self.weights.values()))
            for total, gradient in zip(self.importance[side].values(), gradients, strict=True):
                total += gradient.square() * len(batch.images)
            yield {"loss": loss}
        self.model.train()

    @torch.no_grad()
    def reset(self, scores: dict[str, Tensor]) -> None:
        """Set the share of all weights together that has the highest scores to zero."""
        share = self.config.share
        if share is None:
            share = 0.98 if self.config.select == "magnitude" else 0.5
        every = torch.cat([score.flatten() for score in scores.values()])
        chosen = torch.zeros_like(every, dtype=torch.bool)
        chosen[every.argsort(descending=True, stable=True)[: round(share * len(every))]] = True
        parts = torch.split(chosen, [weight.numel() for weight in self.weights.values()])
        for weight, part in zip(self.weights.values(), parts, strict=True):
            weight.masked_fill_(part.reshape(weight.shape), 0)


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate that ``step`` (from 0) of ``steps`` has: up over a fifth, then down to 0.

    Example:
        >>> [round(rate(step, 10), 2) for step in range(10)]
        [0.5, 1.0, 1.0, 0.88, 0.75, 0.62, 0.5, 0.38, 0.25, 0.12]
    """
    rise = max(1, round(RISE * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))
