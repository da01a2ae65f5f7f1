"""The one number per sample and model that every attack works on: the logit of the confidence in the true label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def logit_margins(logits: Tensor, targets: Tensor) -> Array:
    """Return ``log(p / (1 - p))``, p the softmax of the label, as ``z_y - logsumexp of the others``.

    That form stays exact where p rounds to 0 or 1. It is LiRA's scaled confidence and KLoM's margin alike.

    Args:
        logits: ``[N, classes]``, at least two classes.
        targets: Class indices ``[N]``.

    Returns:
        Float64 ``[N]``.
    """
    scores = logits.double()
    labels = targets.to(scores.device).unsqueeze(1)
    others = scores.scatter(1, labels, -torch.inf).logsumexp(dim=1)
    margins: Array = (scores.gather(1, labels).squeeze(1) - others).cpu().numpy()
    return margins


def log_confidences(margins: Array) -> Array:
    """Return the log probability of the label, of any shape, from its margin."""
    return -np.logaddexp(0.0, -margins)
