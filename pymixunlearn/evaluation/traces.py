"""What is told beside the acceptance test: traces of D_f in a model, each with the interval that its samples leave."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.evaluation.audit.margins import Array
from pymixunlearn.evaluation.audit.rates import auc
from pymixunlearn.evaluation.intervals import wilson
from pymixunlearn.evaluation.score_attacks import Estimate
from pymixunlearn.seeding import generator

PROBED = 1000
"""Samples of each side that the probe looks at, at most."""
FOLDS = 5
_PENALTY = 0.1  # times the number of samples: there may be about as many features as samples
_Z = 1.959964


def difference_of_shares(first: float, n: int, second: float, m: int) -> Estimate:
    """Return the difference of two percentages of n and of m samples, in points, with its 95 % interval.

    The interval is that of Newcombe (1998), which has a width where both percentages are 0 or 100 too.

    Example:
        >>> difference_of_shares(80.0, 400, 70.0, 400)
        Estimate(value=10.0, low=4.0..., high=15.9...)
    """
    (low, high), (other_low, other_high) = wilson(first, n), wilson(second, m)
    value = first - second
    down = math.hypot(first - low, other_high - second)
    return Estimate(value, value - down, value + math.hypot(high - first, second - other_low))


def auc_estimate(members: Array, others: Array) -> Estimate:
    """Return the AUC, in [0, 1], with its 95 % interval.

    Each end is the farther one of two intervals: that of DeLong, DeLong and Clarke-Pearson (1988), which holds for any
    distributions but has no width where one side lies above the other, and that of Newcombe (2006, method 5), which
    has one there.

    Args:
        members: Scores ``[N]``, finite, at least two.
        others: Scores ``[M]``, finite, at least two.

    Example:
        >>> auc_estimate(np.arange(100.0) + 10, np.arange(100.0))
        Estimate(value=0.595, low=0.51..., high=0.67...)
    """
    value = auc(members, others)
    spread = 0.0
    for own, other in ((members, others), (others, members)):
        ordered = np.sort(other)
        below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
        spread += float((below / (2 * len(other))).var(ddof=1)) / len(own)
    error = _Z * math.sqrt(spread)
    low = _newcombe(value, len(members), len(others))
    high = 1 - _newcombe(1 - value, len(members), len(others))
    return Estimate(value, max(0.0, min(low, value - error)), min(1.0, max(high, value + error)))


def _newcombe(value: float, n: int, m: int) -> float:
    """Return the smallest AUC that ``value``, of n and m samples, does not contradict (Newcombe 2006, method 5).

    It is where the difference to ``value`` is 1.96 standard errors, those of Hanley and McNeil (1982) at this smaller
    AUC and for samples of equal size.
    """
    low, high = 0.0, value
    for _ in range(50):  # bisection
        found = (low + high) / 2
        spread = 1 + ((n + m) / 2 - 1) * ((1 - found) / (2 - found) + found / (1 + found))
        if value - found > _Z * math.sqrt(found * (1 - found) * spread / (n * m)):
            low = found
        else:
            high = found
    return low


def probe(forget: Tensor, unseen: Tensor, seed: int) -> Estimate:
    """Return how well a linear classifier tells D_f from unseen images by the last hidden layer: its AUC.

    A ridge regression to member or not, on standardised features, learns from four fifths and scores the last, in turn;
    the AUC is over all scores.

    Args:
        forget: Representations of D_f, ``[N, D]``, at least :data:`FOLDS`; of more than :data:`PROBED` a draw is used.
        unseen: Those of images of the same class shares, ``[M, D]``.
        seed: Fixes the draw and the folds.
    """
    sides = [
        side[torch.randperm(len(side), generator=generator(seed, "acceptance", "probe", name))[:PROBED]]
        for name, side in (("forget", forget), ("unseen", unseen))
    ]
    features = torch.cat(sides).double()
    members = torch.cat([torch.ones(len(sides[0])), -torch.ones(len(sides[1]))]).double()
    folds = torch.cat([torch.arange(len(side)) % FOLDS for side in sides])  # each side is in random order already
    scores = torch.zeros_like(members)
    for fold in range(FOLDS):
        learn, judge = features[folds != fold], features[folds == fold]
        mean, spread = learn.mean(0), learn.std(0).clamp_min(1e-12)
        learn, judge = (learn - mean) / spread, (judge - mean) / spread
        targets = members[folds != fold]
        gram = learn.T @ learn + _PENALTY * len(learn) * torch.eye(learn.shape[1], dtype=learn.dtype)
        scores[folds == fold] = judge @ torch.linalg.solve(gram, learn.T @ (targets - targets.mean()))
    found = scores.numpy()
    return auc_estimate(found[: len(sides[0])], found[len(sides[0]) :])
