"""Margin test: can the forget samples still be told apart from images that the model never saw?

Retrain saw neither D_f nor the validation images V, and both are drawn alike, so that its margins on either have one
distribution. The two-sample Kolmogorov-Smirnov distance between them is what a memory of D_f moves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.evaluation.audit.margins import Array, logit_margins
from pymixunlearn.seeding import generator

MIN_SAMPLES = 10
"""Fewer samples on a side than this are no distribution to test."""

TIED = 0.1
"""Where more margins than this share are infinite or one and the same value, they are taken to say nothing."""

_NINE_IN_TEN = 1.2816  # 90 % of a standard normal distribution lie below it


class MarginTest(NamedTuple):
    """A two-sample Kolmogorov-Smirnov test.

    Attributes:
        ks: The distance, in [0, 1].
        bound: Above it the distributions differ, at the level of the test.
        broken: Whether a margin is NaN: such margins differ in nothing.
    """

    ks: float
    bound: float
    broken: bool = False

    @property
    def refused(self) -> bool:
        """Whether the two samples are told apart."""
        return self.ks > self.bound


def ks_bound(forget: int, unseen: int, alpha: float = 0.05) -> float:
    """Return the distance that two samples of one distribution exceed with probability ``alpha``.

    It is Smirnov's limit ``sqrt(-ln(alpha / 2) / 2) * sqrt((n + m) / (n m))``, 1.358 for 5 %.

    Args:
        forget: Size of one sample, at least 1.
        unseen: Size of the other, at least 1.
        alpha: The level, in (0, 1).

    Example:
        >>> round(ks_bound(500, 4000), 3)
        0.064
    """
    return math.sqrt(-math.log(alpha / 2) / 2) * math.sqrt((forget + unseen) / (forget * unseen))


def smallest_visible(forget: int, unseen: int, alpha: float = 0.05) -> float:
    """Return a true distance that the test refuses nine times in ten or more.

    At the point where the distributions differ by D, the measured difference has a standard deviation of at most
    ``sqrt(1/n + 1/m) / 2``, and the test's statistic is never smaller.

    Args:
        forget: Size of one sample, at least 1.
        unseen: Size of the other, at least 1.
        alpha: The level, in (0, 1).
    """
    return ks_bound(forget, unseen, alpha) + _NINE_IN_TEN * math.sqrt(1 / forget + 1 / unseen) / 2


def margin_test(forget: Array, unseen: Array, alpha: float = 0.05) -> MarginTest:
    """Compare the margins of D_f with those of unseen images.

    Args:
        forget: Margins ``[N]``, float64.
        unseen: Margins ``[M]``.
        alpha: The level, in (0, 1).

    Example:
        >>> margin_test(np.arange(50.0), np.arange(50.0) + 40).refused
        True
    """
    points = np.sort(np.concatenate([forget, unseen]))
    shares = [np.searchsorted(np.sort(side), points, "right") / len(side) for side in (forget, unseen)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    return MarginTest(distance, ks_bound(len(forget), len(unseen), alpha), bool(np.isnan(points).any()))


def judged_margins(
    forget: Tensor, forget_targets: Tensor, unseen: Tensor, unseen_targets: Tensor
) -> tuple[Array, Array]:
    """Return the margins that the test compares, of D_f and of the unseen images.

    They are those of the targets, ``z_y - logsumexp of the others``, unless a mask hides them: where the logit of a
    forgotten class is set to minus infinity, all margins are alike and say nothing. Then the target's logit is left
    out, and what remains of the margin is judged, ``-logsumexp of the others``: what was learnt of a sample shows there
    too. A logit that is set to any other constant is left out by the same subtraction.

    Args:
        forget: Logits of D_f, ``[N, classes]``.
        forget_targets: Class indices ``[N]``.
        unseen: Logits of the unseen images, ``[M, classes]``.
        unseen_targets: Class indices ``[M]``.
    """
    sides = ((forget, forget_targets), (unseen, unseen_targets))
    margins = tuple(logit_margins(logits, targets) for logits, targets in sides)
    if not _says_nothing(np.concatenate(margins)):
        return margins[0], margins[1]
    found = tuple(-_others(logits, targets).logsumexp(dim=1).numpy() for logits, targets in sides)
    return found[0], found[1]


def _says_nothing(margins: Array) -> bool:
    if (~np.isfinite(margins)).mean() > TIED:
        return True
    _, counts = np.unique(margins, return_counts=True)
    return bool(counts.max() / len(margins) > TIED)


def _others(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the logits without each row's own target, float64 ``[N, classes - 1]`` on the CPU."""
    scores = logits.detach().double().cpu()
    keep = torch.ones_like(scores, dtype=torch.bool).scatter(1, targets.cpu().unsqueeze(1), False)
    return scores[keep].reshape(len(scores), -1)


def alike_by_class(pool: Tensor, targets: Tensor, seed: int) -> Tensor:
    """Draw from ``pool`` as many samples as can be had with the class shares of ``targets``.

    Args:
        pool: Class indices ``[M]`` of what can be drawn.
        targets: Class indices ``[N]`` of the samples whose shares count.
        seed: Fixes the draw.

    Returns:
        int64 indices into ``pool``, sorted; empty where a class of ``targets`` is missing in it.
    """
    labels, counts = torch.unique(targets, return_counts=True)
    members = [(pool == label).nonzero().squeeze(1) for label in labels.tolist()]
    scale = min((len(found) / int(count) for found, count in zip(members, counts, strict=True)), default=0.0)
    drawn = []
    for label, found, count in zip(labels.tolist(), members, counts.tolist(), strict=True):
        order = torch.randperm(len(found), generator=generator(seed, "acceptance", "unseen", label))
        drawn.append(found[order[: math.floor(scale * count + 1e-9)]])
    return torch.cat(drawn).sort().values if drawn else torch.zeros(0, dtype=torch.int64)
