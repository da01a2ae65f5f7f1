"""Rates of an attack by scores: accuracy, AUC, true positives at few false ones; with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit.checks import at_least, finite, mask, share
from pymixunlearn.evaluation.audit.margins import Array, Mask
from pymixunlearn.evaluation.score_attacks import Estimate
from pymixunlearn.seeding import derive_seed

RESAMPLES = 1000


class Rates(NamedTuple):
    """Rates of an attack: AUC in [0, 1], the rest in percent; each with its 95 % interval."""

    accuracy: Estimate
    auc: Estimate
    tpr_at_1_fpr: Estimate
    tpr_at_01_fpr: Estimate

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return "value", "low" and "high" by name."""
        return {name: estimate._asdict() for name, estimate in self._asdict().items()}


def auc(members: Array, others: Array) -> float:
    """Return the probability that a member's score exceeds another sample's, ties counted half.

    Args:
        members: Scores of the samples that the model was trained on, ``[M]``.
        others: Scores of those that it was not, ``[L]``.

    Returns:
        A number in 0..1; 0.5 is guessing.

    Raises:
        UserError: A side has no score, or one that is NaN or infinite.

    Example:
        >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
        0.875
    """
    return _auc(finite("members", members), finite("others", others))


def tpr_at_fpr(members: Array, others: Array, fpr: float) -> float:
    """Return the percentage of members above the lowest threshold that at most a share ``fpr`` of the others exceeds.

    With fewer than ``1 / fpr`` others that is the percentage found without any false alarm.

    Args:
        members: Scores of the samples that the model was trained on, ``[M]``.
        others: Scores of those that it was not, ``[L]``.
        fpr: The share in 0..1; at 1 every member is found.

    Raises:
        UserError: ``fpr`` is outside, or a side has no score, or one that is NaN or infinite.

    Example:
        >>> tpr_at_fpr(np.array([2.0, 4.0]), np.array([1.0, 3.0]), 0.0)
        50.0
    """
    return _tpr_at_fpr(finite("members", members), finite("others", others), share("fpr", fpr))


def _auc(members: Array, others: Array) -> float:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return float(below.mean() / (2 * len(others)))


def _tpr_at_fpr(members: Array, others: Array, fpr: float) -> float:
    return 100.0 * float((members > _threshold(others, fpr)).mean())


def accuracy(members: Array, others: Array, threshold: float) -> float:
    """Return the percentage of right decisions when scores above ``threshold`` are called members, both sides alike.

    Args:
        members: Scores of the samples that the model was trained on, ``[M]``.
        others: Scores of those that it was not, ``[L]``.
        threshold: Any number; infinite where all or none are to be called members.

    Raises:
        UserError: A side has no score, a score is NaN or infinite, or the threshold is NaN.
    """
    _check_threshold(threshold)
    return _accuracy(finite("members", members), finite("others", others), threshold)


def _accuracy(members: Array, others: Array, threshold: float) -> float:
    return 50.0 * float((members > threshold).mean() + (others <= threshold).mean())


def best_threshold(members: Array, others: Array) -> float:
    """Return the score above which to call samples members for the highest accuracy; halfway between two scores.

    Args:
        members: Scores of the samples that the model was trained on, ``[M]``.
        others: Scores of those that it was not, ``[L]``.

    Returns:
        A number, infinite where calling all or none members is best.

    Raises:
        UserError: A side has no score, or one that is NaN or infinite.
    """
    members, others = finite("members", members), finite("others", others)
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

    Raises:
        UserError: A side has no score, or a score or the threshold is NaN or infinite.
    """
    members, others = finite("members", members), finite("others", others)
    _check_threshold(threshold)
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

    Raises:
        UserError: Scores are NaN or infinite, or ``first`` does not divide the pairs so.
    """
    positives, negatives = finite("positives", positives, dimensions=2), finite("negatives", negatives, dimensions=2)
    _check_threshold(threshold)
    first = mask("first", first, (len(positives),))
    for half in (first, ~first):
        at_least("first", np.atleast_1d(half.sum()), 2)
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


def _check_threshold(threshold: float) -> None:
    if math.isnan(threshold):
        raise UserError("threshold is NaN; expected a number")


def _threshold(others: Array, fpr: float) -> float:
    # A share of 0.01 of 300 is 3, not 2.9999.
    allowed = int(fpr * len(others) + 1e-9)
    return float(np.sort(others)[::-1][allowed]) if allowed < len(others) else -math.inf


def _measures(threshold: float, members: int, others: int) -> list[tuple[Callable[[Array, Array], float], int | None]]:
    """Return what :class:`Rates` holds, in order, each with its number of trials; None for what is no percentage."""
    return [
        (lambda inside, outside: _accuracy(inside, outside, threshold), members + others),
        (_auc, None),
        (lambda inside, outside: _tpr_at_fpr(inside, outside, 0.01), members),
        (lambda inside, outside: _tpr_at_fpr(inside, outside, 0.001), members),
    ]
