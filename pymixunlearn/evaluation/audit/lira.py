"""Likelihood ratio attacks: a sample's margin under a model, between two Gaussians fitted to shadow models.

LiRA (Carlini et al. 2022) asks of one model whether it was trained on a sample. U-LiRA (Hayes et al. 2024) asks whether
a model was trained on it and then unlearned it, or never saw it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit.checks import at_least, finite, mask
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
    taken = np.ones(margins.shape, bool) if chosen is None else chosen
    count = taken.sum(axis=0)
    mean = np.where(taken, margins, 0.0).sum(axis=0) / count
    variance = (np.where(taken, margins - mean, 0.0) ** 2).sum(axis=0) / (count - 1)
    if count.min() < OWN_VARIANCE_FROM:
        variance = np.full_like(variance, variance.mean())
    return Gaussians(mean, np.maximum(variance, _MIN_VARIANCE))


def lira_scores(target: Array, shadows: Array, seen: Mask) -> Array:
    """Return log p(margin | seen) - log p(margin | unseen) of every sample: above 0 speaks for a member.

    Args:
        target: Margins under the model under attack, ``[S]``.
        shadows: Margins under the shadow models, ``[K, S]``.
        seen: Which samples each shadow model was trained on, ``[K, S]``; at least two models on either side.

    Raises:
        UserError: Margins are NaN or infinite, ``seen`` is no mask, or has fewer than two models on a side.
    """
    target, shadows = finite("target", target), finite("shadows", shadows, dimensions=2)
    seen = mask("seen", seen, (len(shadows), len(target)))
    for side in (seen, ~seen):
        at_least("seen", side.sum(axis=0), 2)
    return fit_gaussians(shadows, seen).log_density(target) - fit_gaussians(shadows, ~seen).log_density(target)


def half_of(pairs: int) -> Mask:
    """Return which of so many pairs of models are in the first half, ``[pairs]``; 2 i and 2 i + 1 stay together."""
    first: Mask = np.arange(pairs) // 2 < pairs // 4
    return first


def u_lira_scores(unlearned: Array, retrained: Array, seen: Mask) -> tuple[Array, Array]:
    """Attack the unlearned and the retrained models of one half with Gaussians of the other half, and in turn.

    Leaving out only the pair under attack would find less than nothing where there is nothing: a model that is high is
    then missing from a mean that is low for it. Against the other half, the scores of a pair's two models are
    exchangeable if unlearning gives what retraining gives, and pairs are independent.

    Args:
        unlearned: Margins under models that were trained and then unlearned, ``[K, S]``, K even and at least 8.
        retrained: Margins under models that never saw any of the samples, ``[K, S]``.
        seen: Which samples each unlearned model had seen and unlearned, ``[K, S]``: m in each row, complementary in
            rows 2 i and 2 i + 1.

    Returns:
        Log likelihood ratios of the samples that model k had seen: under the unlearned models ``[K, m]``, and under the
        retrained ones ``[K, m]``. Above 0 speaks for "trained, then unlearned".

    Raises:
        UserError: Margins are NaN or infinite, the shapes differ, or ``seen`` is no mask or has fewer than
            two models in a half.
    """
    unlearned, retrained = finite("unlearned", unlearned, dimensions=2), finite("retrained", retrained, dimensions=2)
    seen = mask("seen", seen, unlearned.shape)
    if retrained.shape != unlearned.shape:
        raise UserError(f"retrained has the shape {list(retrained.shape)}; expected {list(unlearned.shape)}")
    first = half_of(len(seen))
    for half in (first, ~first):
        at_least("seen", seen[half].sum(axis=0), 2)
    fits = {
        half: (
            fit_gaussians(unlearned[first == half], seen[first == half]),
            fit_gaussians(retrained[first == half]),
        )
        for half in (True, False)
    }
    positives: list[Array] = []
    negatives: list[Array] = []
    for pair, columns in enumerate(seen):
        inside, outside = fits[not first[pair]]
        for margins, scores in ((unlearned, positives), (retrained, negatives)):
            ratio = inside.log_density(margins[pair]) - outside.log_density(margins[pair])
            scores.append(ratio[columns])
    return np.stack(positives), np.stack(negatives)
