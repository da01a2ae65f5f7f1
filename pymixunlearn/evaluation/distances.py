"""Distances of a model's predictions on D_f to those of another model, or to its own on unseen samples.

Jensen-Shannon divergences are in base 2, so that they lie in [0, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.models.copying import private_copy
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split
from pymixunlearn.training.fresh import fresh_weights

KDE_SAMPLES = 5000
KDE_POINTS = 512


def activation_distance(probabilities: Tensor, reference: Tensor) -> float:
    """Return the mean Euclidean distance between rows of two distributions ``[N, classes]``, in [0, sqrt 2]."""
    return float((probabilities - reference).norm(dim=1).mean())


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence between the last dimensions of two distributions, in [0, 1]."""
    middle = (p + q) / 2

    def relative_entropy(part: Tensor) -> Tensor:
        # 0 log 0 is 0; a NaN is not, and must end in the result.
        return torch.where(part == 0, 0.0, part * torch.log2(part / middle)).sum(dim=-1)

    return ((relative_entropy(p) + relative_entropy(q)) / 2).clamp(0, 1)


def zero_retrain_forgetting(
    model: nn.Module, predictions: Predictions, *, device: torch.device | str, seed: int = 0, batch_size: int = 512
) -> float | None:
    """Return ``1 - mean JS`` between the model and the same network with random weights, on D_f (ZRF).

    None for a network whose layers cannot be reset to random weights.
    """
    split: Split = predictions.split
    try:
        random = fresh_weights(private_copy(model), derive_seed(seed, "evaluate", "random")).to(device)
    except UserError:
        return None
    logits = predict_logits(random, split.forget, split.preprocess, device=device, batch_size=batch_size)
    return 1.0 - float(jensen_shannon(predictions.forget_probabilities, logits.double().softmax(dim=1)).mean())


def loss_kde_distance(predictions: Predictions, *, seed: int = 0) -> float | None:
    """Return the divergence between the densities of the loss on D_f and on unseen samples of the same classes.

    None where :func:`forget_and_unseen_densities` is.
    """
    densities = forget_and_unseen_densities(predictions, seed=seed)
    if densities is None:
        return None
    p, q = (torch.from_numpy(density / density.sum()) for density in densities[1:])
    return float(jensen_shannon(p, q))


def forget_and_unseen_densities(
    predictions: Predictions, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return a grid ``[G]`` and the densities of the loss on D_f and on unseen samples of the same classes on it.

    They are Gaussian kernel estimates (bandwidth by Scott's rule); of more than :data:`KDE_SAMPLES` losses that many
    are drawn. None where a side has fewer than two different losses.
    """
    forget, unseen = (_thinned(losses, seed) for losses in predictions.cross_entropies())
    if any(len(losses) < 2 or float(losses.std()) == 0.0 for losses in (forget, unseen)):
        return None
    grid, on_forget, on_unseen = loss_densities(forget, unseen)
    return grid, on_forget, on_unseen


def loss_densities(*losses: Tensor, points: int = KDE_POINTS) -> tuple[np.ndarray, ...]:
    """Return a common grid ``[points]`` and the kernel density estimate of each set of losses on it."""
    from scipy.stats import gaussian_kde

    highest = max(float(values.max()) for values in losses)
    grid = np.linspace(0.0, max(highest, 1e-6), points)
    return grid, *(gaussian_kde(values.numpy())(grid) for values in losses)


def _thinned(values: Tensor, seed: int) -> Tensor:
    if len(values) <= KDE_SAMPLES:
        return values
    return values[torch.randperm(len(values), generator=generator(seed, "evaluate", "kde"))[:KDE_SAMPLES]]
