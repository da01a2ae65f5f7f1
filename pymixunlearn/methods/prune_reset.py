"""Prune-reset: most of the weights start again from zero and grow back on what remains; D_f is never trained on.

After "prune first, then unlearn" (Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023), without
the mask: what was set to zero is trained like every other weight. What a network knows by heart sits in many small
weights, and does not come back when these grow again on other samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.methods.config import setting
from pymixunlearn.methods.loop import Measured, Stage
from pymixunlearn.methods.parts import Tensors
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.search import Attempt, SearchConfig, SearchedLoop
from pymixunlearn.methods.view import Images

RISE = 0.2
"""Share of the steps in which the learning rate rises; over the others it falls to zero."""

SHARES = {"magnitude": (0.95, 0.98, 0.99), "fisher": (0.5, 0.8, 0.95)}
"""Shares that are tried, in order, where there is a test."""
UNTESTED = {"magnitude": 0.98, "fisher": 0.5}
"""Share where there is none."""

SCHEDULES = {"close": (0.5, 1.0), "quick": (0.25, 3.0), "short": (0.1875, 3.0)}
"""Epochs as a share of the initial model's, and learning rate as a multiple of its own."""


@dataclass(frozen=True)
class PruneResetConfig(SearchConfig):
    """Settings of :class:`PruneReset`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.PruneResetConfig.from_mapping({"share": "0.9"}).share
        0.9
    """

    share: float | None = setting(
        None,
        "share of the weights that is reset; none tries 0.95, 0.98, 0.99 (fisher: 0.5, 0.8, 0.95) and Retrain by the "
        "acceptance test, and without a validation set takes 0.98 (0.5)",
        above=0,
        below=1,
    )
    select: Literal["magnitude", "fisher"] = setting(
        "magnitude", "reset the smallest weights, or those that matter most to D_f beside D_r"
    )
    schedule: Literal["close", "quick", "short"] = setting(
        "close",
        "close: half of the initial model's epochs at its learning rate; quick and short: a quarter and three "
        "sixteenths of them, at three times the rate",
    )


C = TypeVar("C", bound=PruneResetConfig)


class Resetting(SearchedLoop[C]):
    """Resets of a share of the weights, each followed by a training on D_r."""

    def setup(self) -> None:
        """Make room for importances where they choose the weights."""
        # Biases and the parameters of normalisation layers, of one dimension, stay as they are.
        self.weights = {
            name: weight for name, weight in self.model.named_parameters() if weight.requires_grad and weight.dim() > 1
        }
        self.importance: dict[str, Tensors] = {}
        if self.config.select == "fisher":
            for side in ("forget", "retain"):
                zeros = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
                self.importance[side] = self.parts[f"importance_{side}"] = Tensors(zeros)
        super().setup()

    @property
    def pace(self) -> tuple[float, float]:
        """The schedule's."""
        return SCHEDULES[self.config.schedule]

    @property
    def fixed(self) -> bool:
        """Whether the share is given."""
        return self.config.share is not None

    def tries(self) -> list[Attempt]:
        """Return a reset of each share."""
        return [self._attempt(share) for share in SHARES[self.config.select]]

    def untested(self) -> Attempt:
        """Return the reset of the given share, or of the one that serves without a test."""
        return self._attempt(self.config.share or UNTESTED[self.config.select])

    def prologue(self) -> list[Stage]:
        """Return the passes that measure importances, if there are any."""
        if self.config.select == "magnitude":
            return []
        part = "importances"
        return [
            Stage(1, self.steps(self.forget_set), lambda epoch: self._add_importance("forget", self.forget_set), part),
            Stage(1, self.steps(self.retain_set), lambda epoch: self._add_importance("retain", self.retain_set), part),
        ]

    def _attempt(self, share: float) -> Attempt:
        return Attempt(f"share {share:g}", self.epochs, partial(self._begin, share), rate)

    def _begin(self, share: float) -> None:
        self.reset(share)
        self.begin_training()

    def _add_importance(self, side: str, images: Images) -> Iterator[Measured]:
        """Add up squared gradients of the cross entropy of batches, the diagonal of the empirical Fisher information.

        The network is in evaluation mode, so that its statistics do not move. Without labels D_f's targets are the
        initial model's own predictions.
        """
        self.model.eval()
        for batch in self.batches(images, "importance", side, augment=False):
            logits = self.model(batch.images)
            loss = F.cross_entropy(logits, logits.argmax(1) if batch.targets is None else batch.targets)
            gradients = torch.autograd.grad(loss, list(self.weights.values()), materialize_grads=True)
            for total, gradient in zip(self.importance[side].values(), gradients, strict=True):
                total += gradient.square() * len(batch.images)
            yield {"loss": loss}
        self.model.train()

    def scores(self) -> dict[str, Tensor]:
        """Return for every weight how early it is reset: the highest first."""
        if self.config.select == "magnitude":
            return {name: -weight.detach().abs() for name, weight in self.weights.items()}
        of_forget, of_retain = self.importance["forget"], self.importance["retain"]
        counts = len(self.forget_set), len(self.retain_set)
        tiny = torch.finfo(torch.float32).tiny  # a weight without any gradient is not chosen
        return {name: (of_forget[name] / counts[0]) / (of_retain[name] / counts[1] + tiny) for name in self.weights}

    @torch.no_grad()
    def reset(self, share: float) -> None:
        """Set the share of all weights together that has the highest scores to zero."""
        every = torch.cat([score.flatten() for score in self.scores().values()])
        chosen = torch.zeros_like(every, dtype=torch.bool)
        chosen[every.argsort(descending=True, stable=True)[: round(share * len(every))]] = True
        parts = torch.split(chosen, [weight.numel() for weight in self.weights.values()])
        for weight, part in zip(self.weights.values(), parts, strict=True):
            weight.masked_fill_(part.reshape(weight.shape), 0)


@method("prune-reset", summary="sets most weights to zero and lets them grow again on the remaining data")
class PruneReset(Resetting[PruneResetConfig]):
    """Reset of the smallest weights, and cross entropy on the retain set, with its labels or without.

    With ``select="fisher"`` the forget set chooses the weights, by gradients, and is not trained on either.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.PruneReset(select="fisher").config.schedule
        'close'
    """

    config_class = PruneResetConfig

    @property
    def in_one_process(self) -> str | None:
        """The importances, which are squares of the gradients of whole batches."""
        return None if self.config.select == "magnitude" else "prune-reset with select=fisher"


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate that ``step`` (from 0) of ``steps`` has: up over a fifth, then down to 0.

    Example:
        >>> [round(rate(step, 10), 2) for step in range(10)]
        [0.5, 1.0, 1.0, 0.88, 0.75, 0.62, 0.5, 0.38, 0.25, 0.12]
    """
    rise = max(1, round(RISE * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))
