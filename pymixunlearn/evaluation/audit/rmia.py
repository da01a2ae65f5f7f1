"""RMIA (Zarifzadeh et al. 2024): a sample's likelihood ratio against those of population samples.

The offline form: reference models that did not see the sample are enough. With p(x) the confidence in the label,

    LR(x, z) = [p(x | model) / p(x)] / [p(z | model) / p(z)]
    score(x) = share of population samples z with LR(x, z) >= gamma
    p(x)     = ((1 + a) p_out(x) + 1 - a) / 2,  p_out(x) = mean of p(x | model) over the reference models

p(x) should be the mean over models with and without x; ``a`` stands in for the models with x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pymixunlearn.evaluation.audit.checks import at_least, finite, mask, share
from pymixunlearn.evaluation.audit.margins import Array, Mask, log_confidences
from pymixunlearn.evaluation.audit.rates import auc, best_threshold

GAMMA = 1.0
REFERENCES = 4
"""Reference models per sample at most: the attack is made for few."""

_A_GRID = tuple(step / 10 for step in range(11))


class RmiaSetting(NamedTuple):
    """Settings fixed before the attack: the offline ``a``, and the score above which a sample is a member."""

    a: float
    threshold: float


def rmia_scores(
    target: Array, references: Array, out: Mask, target_z: Array, references_z: Array, *, a: float
) -> Array:
    """Return the score of every sample, in [0, 1].

    Args:
        target: Margins of the samples under the model under attack, ``[S]``.
        references: Their margins under reference models, ``[K, S]``.
        out: Which reference models did not see which sample, ``[K, S]``; at least one for every sample.
        target_z: Margins of population samples under the model under attack, ``[Z]``.
        references_z: Theirs under the reference models, none of which saw them, ``[K, Z]``.
        a: The offline parameter, in [0, 1].

    Raises:
        UserError: Margins are NaN or infinite, ``out`` is no mask or leaves a sample without a model, or ``a`` is
            outside.
    """
    target, references = finite("target", target), finite("references", references, dimensions=2)
    target_z, references_z = finite("target_z", target_z), finite("references_z", references_z, dimensions=2)
    out = mask("out", out, (len(references), len(target)))
    at_least("out", out.sum(axis=0), 1)
    share("a", a)
    ratio_x = log_confidences(target) - _log_marginal(references, out, a)
    ratio_z = log_confidences(target_z) - _log_marginal(references_z, np.ones(references_z.shape, bool), a)
    dominated = np.searchsorted(np.sort(ratio_z), ratio_x - np.log(GAMMA), side="right")
    scores: Array = dominated / len(ratio_z)
    return scores


def tune_rmia(shadows: Array, seen: Mask, shadows_z: Array) -> RmiaSetting:
    """Choose ``a`` and the threshold by attacking the shadow models themselves, whose members are known.

    Each shadow model in turn is the target and the others the references, but for the one that saw the other half: so
    every sample has the same number of them. The model under audit has no say in this.

    Args:
        shadows: Margins of the samples, ``[K, S]``; models 2 i and 2 i + 1 saw complementary halves, K at least 4.
        seen: Which samples each saw, ``[K, S]``.
        shadows_z: Margins of the population samples, ``[K, Z]``.

    Returns:
        The ``a`` of the highest mean AUC, and the threshold of the highest accuracy over all of these attacks.

    Raises:
        UserError: As :func:`rmia_scores`.
    """
    shadows, shadows_z = finite("shadows", shadows, dimensions=2), finite("shadows_z", shadows_z, dimensions=2)
    seen = mask("seen", seen, shadows.shape)
    best, setting = -np.inf, RmiaSetting(0.0, 0.5)
    for a in _A_GRID:
        members, others, areas = [], [], []
        for index, own in enumerate(seen):
            rest = np.arange(len(seen)) // 2 != index // 2
            scores = rmia_scores(shadows[index], shadows[rest], ~seen[rest], shadows_z[index], shadows_z[rest], a=a)
            members.append(scores[own])
            others.append(scores[~own])
            areas.append(auc(scores[own], scores[~own]))
        if np.mean(areas) > best:
            best = float(np.mean(areas))
            setting = RmiaSetting(a, best_threshold(np.concatenate(members), np.concatenate(others)))
    return setting


def _log_marginal(margins: Array, out: Mask, a: float) -> Array:
    """Return log p(x) from margins ``[K, S]`` under models of which those in ``out`` count."""
    confidences = np.where(out, log_confidences(margins), -np.inf)
    mean = np.logaddexp.reduce(confidences, axis=0) - np.log(out.sum(axis=0))
    # In logarithms: a forgotten class may leave confidences that a float cannot hold.
    marginal: Array = np.logaddexp(mean + np.log((1 + a) / 2), np.log((1 - a) / 2) if a < 1 else -np.inf)
    return marginal
