"""KLoM (Georgiev et al. 2024): distance of unlearned from retrained models, sample by sample."""

from __future__ import annotations

import numpy as np

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit.checks import finite
from pymixunlearn.evaluation.audit.margins import Array

BINS = 20
CLIP = 100.0
EMPTY = 1e-5
"""The share that a bin without retrained models counts as having."""


def klom(unlearned: Array, retrained: Array) -> Array:
    """Return the KL divergence of margin histograms, unlearned from retrained, of every sample, in nats.

    Each sample's :data:`BINS` equal bins span the margins of both sides, clipped to +-100. Models that agree give 0
    only in the limit of many: with few, compare with what two halves of the retrained models give.

    Args:
        unlearned: Margins ``[A, S]`` under A unlearned models.
        retrained: Margins ``[B, S]`` under B models that never saw the samples.

    Returns:
        Float64 ``[S]``, not below 0.

    Raises:
        UserError: Margins are NaN or infinite, or the sides have different samples.
    """
    unlearned, retrained = finite("unlearned", unlearned, dimensions=2), finite("retrained", retrained, dimensions=2)
    if unlearned.shape[1] != retrained.shape[1]:
        raise UserError(
            f"unlearned has margins of {unlearned.shape[1]} samples and retrained of {retrained.shape[1]}; "
            "expected the same samples"
        )
    sides = [np.clip(margins, -CLIP, CLIP) for margins in (unlearned, retrained)]
    low = np.minimum(*(margins.min(axis=0) for margins in sides))
    high = np.maximum(*(margins.max(axis=0) for margins in sides))
    width = np.where(high > low, (high - low) / BINS, 1.0)
    p, q = (_histograms(((margins - low) / width).astype(np.int64)) for margins in sides)
    # 0 log 0 is 0, whatever is below the fraction.
    divergences: Array = np.where(p > 0, p * np.log(np.maximum(p, EMPTY) / np.maximum(q, EMPTY)), 0.0).sum(axis=0)
    return divergences


def _histograms(bins: np.ndarray) -> Array:
    """Return the share of models in each bin, ``[BINS, S]``, from bin numbers ``[K, S]``; the upper edge belongs in."""
    inside = np.minimum(bins, BINS - 1)
    return np.stack([(inside == index).mean(axis=0) for index in range(BINS)])
