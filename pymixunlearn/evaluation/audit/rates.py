"""How well scores tell members from others: accuracy, AUC, true positives at few false ones; with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pymixunlearn.evaluation.audit.margins import Array, Mask
from pymixunlearn.evaluation.score_attacks import Estimate
from pymixunlearn.seeding import derive_seed

RESAMPLES = 1000


class Rates(NamedTuple):
    """What an attack achieves: AUC in [0, 1], the rest in percent; each with its 95 % interval."""

    accuracy: Estimate
    auc: Estimate
    tpr_at_1_fpr: Estimate
    tpr_at_01_fpr: Estimate

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return "value", "low" and "high" by name."""
        return {name: estimate._asdict() for name, estimate in self._asdict().items()}


def auc(members: Array, others: Array) -> float:
    """Return the probability that a member's score exceeds another sample's, ties counted half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return float(below.mean() / (2 * len(others)))


def tpr_at_fpr(members: Array, others: Array, fpr: float) -> float:
    """Return the percentage of members above the lowest threshold that at most a share ``fpr`` of the others exceeds.

    With fewer than ``1 / fpr`` others that is the percentage found without any false alarm.
    """
    return 100.0 * float((members > _threshold(others, fpr)).mean())


def accuracy(members: Array, others: Array, threshold: float) -> float:
    """Return the percentage of right answers when scores above ``threshold`` are called members, both sides alike."""
    return 50.0 * float((members > threshold).mean() + (others <= threshold).mean())


def best_threshold(members: Array, others: Array) -> float:
    """Return the score above which to call samples members for the highest accuracy; halfway between two scores."""
    values = np.unique(np.concatenate([members, others]))
    cuts = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    hits = 1 - np.searchsorted(np.sort(members), cuts, "right") / len(members)
    passes = np.searchsorted(np.sort(others), cuts, "right") / len(others)
    return float(cuts[np.argmax(hits + passes)])


def sample_rates(members: Array, others: Array, *, threshold: float, seed: int = 0) -> Rates:
    """Rate an attack on one model; the intervals say how much other samples would have changed it.

    Percentiles of 1000 bootstrap resamples of members and others; of percentages, where that is wider, the exact
    binomial interval (Clopper-Pearson), since a bootstrap of "none found" knows no doubt.

    Args:
        members: Scores of the samples that the model was trained on, ``[M]``.
        others: Scores of those that it was not, ``[L]``.
        threshold: The score above which the attack says "member", for the accuracy.
        seed: Fixes the resamples.
    """
    chance = np.random.default_rng(derive_seed(seed, "audit", "bootstrap"))
    resamples = [(chance.choice(members, len(members)), chance.choice(others, len(others))) for _ in range(RESAMPLES)]

    def estimate(measure: Callable[[Array, Array], float], trials: int | None) -> Estimate:
        value = measure(members, others)
        low, high = np.percentile([measure(*resample) for resample in resamples], (2.5, 97.5))
        if trials is not None:
            exact = clopper_pearson(value, trials)
            low, high = min(low, exact[0]), max(high, exact[1])
        return Estimate(value, float(low), float(high))

    return Rates(*(estimate(measure, trials) for measure, trials in _measures(threshold, len(members), len(others))))


def model_rates(positives: Array, negatives: Array, *, threshold: float, first: Mask) -> Rates:
    """Rate an attack on pairs of models; the intervals say how much other models would have changed it.

    Each number is the mean over pairs of what it is within the pair. The interval is Student's t over the pairs of a
    half: those were attacked with Gaussians of the other half and are independent given these, but what the two halves
    say is much the same, so that together they are worth no more than one.

    Args:
        positives: Scores under the models of one kind, ``[K, M]``.
        negatives: Scores under their partners of the other, ``[K, L]``.
        threshold: The score above which the attack says "of the first kind", for the accuracy.
        first: Which pairs are in the first half, ``[K]``; at least two are in either.
    """
    from scipy.stats import t

    def estimate(measure: Callable[[Array, Array], float], highest: float) -> Estimate:
        within = np.array([measure(*scores) for scores in zip(positives, negatives, strict=True)])
        halves = (within[first], within[~first])
        value = float(np.mean([half.mean() for half in halves]))
        margins = [float(t.ppf(0.975, len(half) - 1)) * half.std(ddof=1) / math.sqrt(len(half)) for half in halves]
        margin = float(np.mean(margins))
        return Estimate(value, max(0.0, value - margin), min(highest, value + margin))

    measures = _measures(threshold, positives.shape[1], negatives.shape[1])
    return Rates(*(estimate(measure, 1.0 if trials is None else 100.0) for measure, trials in measures))


def clopper_pearson(percentage: float, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval, in percent, of a percentage of ``trials`` independent trials."""
    from scipy.stats import beta

    hits = round(percentage / 100 * trials)
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(0.975, hits + 1, trials - hits))
    return 100.0 * low, 100.0 * high


def _threshold(others: Array, fpr: float) -> float:
    # A share of 0.01 of 300 is 3, not 2.9999.
    allowed = int(fpr * len(others) + 1e-9)
    return float(np.sort(others)[::-1][allowed])


def _measures(threshold: float, members: int, others: int) -> list[tuple[Callable[[Array, Array], float], int | None]]:
    """Return what :class:`Rates` holds, in order, each with its number of trials; None for what is no percentage."""
    return [
        (lambda inside, outside: accuracy(inside, outside, threshold), members + others),
        (auc, None),
        (lambda inside, outside: tpr_at_fpr(inside, outside, 0.01), members),
        (lambda inside, outside: tpr_at_fpr(inside, outside, 0.001), members),
    ]
