"""Likelihood ratio attacks: a sample's margin under a model, between two Gaussians fitted to shadow models.

LiRA (Carlini et al. 2022) asks of one model whether it was trained on a sample. U-LiRA (Hayes et al. 2024) asks whether
a model was trained on it and then unlearned it, or never saw it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pymixunlearn.evaluation.audit.margins import Array, Mask

OWN_VARIANCE_FROM = 32
"""Models on a side from which each sample gets a variance of its own; below, all samples share their mean variance."""

_MIN_VARIANCE = 1e-12


class Gaussians(NamedTuple):
    """One normal distribution per sample: means ``[S]`` and variances ``[S]``."""

    mean: Array
    variance: Array

    def log_density(self, margins: Array) -> Array:
        """Return the log densities at ``margins`` ``[S]``, less the constant that cancels in every ratio."""
        return -0.5 * (np.log(self.variance) + (margins - self.mean) ** 2 / self.variance)


def fit_gaussians(margins: Array, chosen: Mask | None = None) -> Gaussians:
    """Fit a Gaussian to each sample's margins over models.

    With fewer than :data:`OWN_VARIANCE_FROM` models a variance of each sample's own is mostly noise; Carlini et al.
    then share one, and so does this.

    Args:
        margins: ``[K, S]``, K models.
        chosen: Which models count for which sample, ``[K, S]``, at least two for every sample; None takes all.
    """
    mask = np.ones(margins.shape, bool) if chosen is None else chosen
    count = mask.sum(axis=0)
    mean = np.where(mask, margins, 0.0).sum(axis=0) / count
    variance = (np.where(mask, margins - mean, 0.0) ** 2).sum(axis=0) / (count - 1)
    if count.min() < OWN_VARIANCE_FROM:
        variance = np.full_like(variance, variance.mean())
    return Gaussians(mean, np.maximum(variance, _MIN_VARIANCE))


def lira_scores(target: Array, shadows: Array, seen: Mask) -> Array:
    """Return log p(margin | seen) - log p(margin | unseen) of every sample: above 0 speaks for a member.

    Args:
        target: Margins under the model under attack, ``[S]``.
        shadows: Margins under the shadow models, ``[K, S]``.
        seen: Which samples each shadow model was trained on, ``[K, S]``; at least two models on either side.
    """
    return fit_gaussians(shadows, seen).log_density(target) - fit_gaussians(shadows, ~seen).log_density(target)


def u_lira_scores(unlearned: Array, retrained: Array, seen: Mask) -> tuple[Array, Array]:
    """Attack each unlearned model and the retrained one beside it, with Gaussians of all the other models.

    Both models of pair k are judged by the same Gaussians, to which neither contributed: if unlearning gave what
    retraining gives, the two scores of a sample would be exchangeable.

    Args:
        unlearned: Margins under models that were trained and then unlearned, ``[K, S]``, K at least 4.
        retrained: Margins under models that never saw any of the samples, ``[K, S]``.
        seen: Which samples each unlearned model had seen and unlearned, ``[K, S]``: m in each row, and at least three
            models for each sample.

    Returns:
        Log likelihood ratios of the samples that model k had seen: under the unlearned models ``[K, m]``, and under the
        retrained ones ``[K, m]``. Above 0 speaks for "trained, then unlearned".
    """
    positives: list[Array] = []
    negatives: list[Array] = []
    for pair, columns in enumerate(seen):
        rest = np.arange(len(seen)) != pair
        inside = fit_gaussians(unlearned[rest][:, columns], seen[rest][:, columns])
        outside = fit_gaussians(retrained[rest][:, columns])
        for margins, scores in ((unlearned, positives), (retrained, negatives)):
            own = margins[pair, columns]
            scores.append(inside.log_density(own) - outside.log_density(own))
    return np.stack(positives), np.stack(negatives)
