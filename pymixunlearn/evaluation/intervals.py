"""Intervals of percentages that were counted on a number of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pymixunlearn.evaluation.membership import scored_samples
from pymixunlearn.tasks import Split

_Z = 1.959964
"""97.5 % of a standard normal distribution lie below it."""


def wilson(percent: float, count: int, z: float = _Z) -> tuple[float, float]:
    """Return the interval of Wilson (1927) of a percentage counted on ``count`` independent samples.

    Args:
        percent: In 0..100.
        count: Samples, at least one.
        z: Quantile of the standard normal distribution; by default that of a 95 % interval.

    Example:
        >>> [round(bound, 1) for bound in wilson(0.0, 36)]
        [0.0, 9.6]
    """
    share, slack = percent / 100, z**2 / count
    centre = (share + slack / 2) / (1 + slack)
    margin = z / (1 + slack) * math.sqrt(share * (1 - share) / count + slack / (4 * count))
    # At 0 and at 100 % the bound is exact, which rounding must not spoil.
    return 100 * min(share, max(0.0, centre - margin)), 100 * max(share, min(1.0, centre + margin))


def of_forgotten_classes(split: Split) -> Tensor:
    """Return which test samples are of a class that a sample of D_f is of, bool ``[M]``.

    In task "noisy" the labels of D_f are those before the noise.
    """
    train = split.train if split.origin is None else split.origin.train
    return torch.isin(split.test.targets.cpu(), train.targets.cpu()[split.forget_indices.cpu()])


def sample_counts(split: Split, asr: str = "default") -> dict[str, int]:
    """Return how many samples each metric that is a share of samples is counted on; ``asr`` is the attack's form."""
    own = int(of_forgotten_classes(split).sum())
    targets = split.test.targets.cpu()
    forgotten, lost = (
        sum(int((targets == label).sum()) for label in labels) for labels in (split.forget_classes, split.lost_classes)
    )
    earlier = {} if split.excluded_indices is None else {"earlier_f": len(split.excluded_indices)}
    return {
        "train_r": len(split.retain_indices),
        "train_f": len(split.forget_indices),
        "test_r": len(targets) - forgotten - lost,
        "test_f": forgotten,
        "test": len(targets),
        "test_own": own,
        "test_others": len(targets) - own,
        "asr": scored_samples(split, asr),
        **earlier,
    }


def sampling_intervals(
    values: Mapping[str, float | None], split: Split, asr: str = "default"
) -> dict[str, list[float]]:
    """Return the interval of each metric that is a share of samples and known, by key.

    It covers the draw of the samples: not another seed of the training, and for ``asr``, which is the mean of attacks
    on one D_f, not another kind of attacker.
    """
    intervals = {}
    for key, count in sample_counts(split, asr).items():
        value = values.get(key)
        if value is not None:
            intervals[key] = list(wilson(value, count))
    return intervals
