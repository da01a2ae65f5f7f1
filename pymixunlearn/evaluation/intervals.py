"""Intervals of percentages that were counted on a number of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

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


def sample_counts(split: Split) -> dict[str, int]:
    """Return how many samples each of the paper's metrics is counted on."""
    targets = split.test.targets.cpu()
    forgotten = sum(int((targets == label).sum()) for label in split.forget_classes)
    return {
        "train_r": len(split.retain_indices),
        "train_f": len(split.forget_indices),
        "test_r": len(targets) - forgotten,
        "test_f": forgotten,
        "test": len(targets),
        "asr": scored_samples(split),
    }


def sampling_intervals(values: Mapping[str, float | None], split: Split) -> dict[str, list[float]]:
    """Return the interval of each of the paper's metrics that is known, by key.

    It covers the draw of the samples: not another seed of the training, and for ``asr`` not another attacker.
    """
    intervals = {}
    for key, count in sample_counts(split).items():
        value = values.get(key)
        if value is not None:
            intervals[key] = list(wilson(value, count))
    return intervals
