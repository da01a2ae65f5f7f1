"""Membership inference from one number per sample: its loss, the confidence in its label, or the entropy.

A logistic regression learns to tell D_f from unseen samples of the same classes by that number alone, on ten random
stratified splits. A model that treats D_f as unseen leaves it guessing, at 50 %; but "close to Retrain" is the aim,
since a class that is gone looks odd in Retrain too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.evaluation.predictions import Predictions, losses
from pymixunlearn.seeding import derive_seed, generator

SPLITS = 10
SCORED_SHARE = 0.2
MIN_SAMPLES = 10
MAX_SAMPLES = 10000


class Estimate(NamedTuple):
    """A percentage with its 95 % confidence interval.

    Example:
        >>> Estimate(56.0, 52.5, 59.5).high
        59.5
    """

    value: float
    low: float
    high: float


def score_attacks(predictions: Predictions, *, seed: int = 0) -> dict[str, Estimate | None]:
    """Run the three attacks.

    Both sides get the same number of samples, at most :data:`MAX_SAMPLES`, drawn by ``seed``.

    Returns:
        Accuracies in percent under the keys "mia_loss", "mia_confidence" and "mia_entropy"; None where either side has
        fewer than :data:`MIN_SAMPLES` samples.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> estimates = evaluation.score_attacks(evaluation.predict(model, split, device="cpu"))
        >>> sorted(estimates), estimates["mia_loss"].low <= estimates["mia_loss"].value
        (['mia_confidence', 'mia_entropy', 'mia_loss'], True)
    """
    split, unseen = predictions.split, predictions.unseen_like_forget
    count = attacked_samples(predictions)
    keys = ("mia_loss", "mia_confidence", "mia_entropy")
    if count < MIN_SAMPLES:
        return dict.fromkeys(keys)
    members = _choose(len(split.forget_indices), count, seed, "members")
    others = _choose(len(unseen), count, seed, "others")
    scores = (
        _scores(predictions.forget[members], predictions.forget_targets[members]),
        _scores(predictions.test[unseen][others], predictions.test_targets[unseen][others]),
    )
    return {key: _attack(scores[0][key], scores[1][key], seed) for key in keys}


def loss_attack(outputs: Sequence[Tensor], targets: Sequence[Tensor], *, seed: int = 0) -> float:
    """Return how often the attack by losses tells two sets of samples apart, from 0 to 1; one half is guessing.

    Args:
        outputs: Logits ``[N, classes]`` of each set; the first are the members. Of a larger set a part is drawn.
        targets: Their labels ``[N]``.
        seed: Fixes the samples and the splits.

    Returns:
        One half where a set has fewer than :data:`MIN_SAMPLES` samples.
    """
    count = min(MAX_SAMPLES, *map(len, outputs))
    if count < MIN_SAMPLES:
        return 0.5
    sides = zip(("members", "others"), outputs, targets, strict=True)
    scores = [losses(of, labels)[_choose(len(of), count, seed, side)] for side, of, labels in sides]
    return _attack(scores[0], scores[1], seed).value / 100


def attacked_samples(predictions: Predictions) -> int:
    """Return how many samples of each side the attacks look at."""
    return min(len(predictions.split.forget_indices), len(predictions.unseen_like_forget), MAX_SAMPLES)


def _choose(available: int, count: int, seed: int, side: str) -> Tensor:
    return torch.randperm(available, generator=generator(seed, "score-attacks", side))[:count]


def _scores(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    log_probabilities = logits.double().log_softmax(dim=1)
    of_label = log_probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)
    entropy = -torch.special.xlogy(log_probabilities.exp(), log_probabilities.exp()).sum(dim=1)  # 0 log 0 is 0
    return {"mia_loss": losses(logits, targets), "mia_confidence": of_label.exp(), "mia_entropy": entropy}


def _attack(members: Tensor, others: Tensor, seed: int) -> Estimate:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    score = torch.cat([members, others]).unsqueeze(1).numpy()
    label = np.repeat([1, 0], [len(members), len(others)])
    splits = StratifiedShuffleSplit(
        SPLITS, test_size=SCORED_SHARE, random_state=derive_seed(seed, "score-attacks", "splits") % 2**31
    )
    accuracies = []
    with threadpool_limits(limits=1, user_api="openmp"):
        for learn, judge in splits.split(score, label):
            classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(score[learn], label[learn])
            accuracies.append(100.0 * classifier.score(score[judge], label[judge]))
    return _interval(np.asarray(accuracies))


def _interval(accuracies: np.ndarray) -> Estimate:
    """Mean and 95 % interval of the accuracies of overlapping splits.

    The splits share samples, so the usual standard error is too small; the correction of Nadeau & Bengio (2003) adds
    the ratio of scored to learnt samples.
    """
    from scipy.stats import t

    mean, variance = float(accuracies.mean()), float(accuracies.var(ddof=1))
    spread = math.sqrt(variance * (1 / SPLITS + SCORED_SHARE / (1 - SCORED_SHARE)))
    margin = float(t.ppf(0.975, SPLITS - 1)) * spread
    return Estimate(mean, max(0.0, mean - margin), min(100.0, mean + margin))
