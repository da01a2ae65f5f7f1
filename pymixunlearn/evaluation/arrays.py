"""Metrics of plain arrays: logits and labels in, metrics out, without a model or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pymixunlearn.data import Dataset, ImageSet, Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.metrics import Metrics, measure
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.manifest import JSON


def evaluate_arrays(
    train_logits: Any,
    train_targets: Any,
    test_logits: Any,
    test_targets: Any,
    *,
    forget: Any = None,
    forget_classes: Sequence[int] = (),
    reference: Mapping[str, float | None] | None = None,
    seed: int = 0,
    attacker: str = "hist-gradient-boosting",
) -> Metrics:
    """Compute the metrics of :func:`evaluate` that logits determine: all but ``zrf`` and the relearn time.

    Args:
        train_logits: ``[N, C]`` of all training samples as stored, those of D_f among them: a tensor or an array.
        train_targets: ``[N]`` class indices.
        test_logits: ``[M, C]`` of the test samples.
        test_targets: ``[M]`` class indices.
        forget: Indices of D_f into the training samples; may be left out with ``forget_classes``.
        forget_classes: Classes that were forgotten as a whole: the metrics are then those of task "class".
        reference: Retrain's metrics, as this function returned them for its logits; the result then has the gap to it.
        seed: Fixes the attacked samples and the attackers.
        attacker: As of :func:`evaluate`.

    Raises:
        UserError: Shapes do not fit each other, logits are NaN or +inf, labels are no classes, or there is nothing to
            forget.

    Example:
        >>> import numpy as np
        >>> from pymixunlearn import evaluation
        >>> labels = np.arange(60) % 3
        >>> logits = 4 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(60, 3))
        >>> metrics = evaluation.evaluate_arrays(logits, labels, logits, labels, forget=range(12))
        >>> metrics["train_f"], metrics["test"]
        (100.0, 100.0)
    """
    parts = []
    for name, logits, targets in (("train", train_logits, train_targets), ("test", test_logits, test_targets)):
        parts.append(_checked(name, torch.as_tensor(logits), torch.as_tensor(targets)))
    (train, train_labels), (test, test_labels) = parts
    if train.shape[1] != test.shape[1]:
        raise UserError(f"train_logits have {train.shape[1]} classes and test_logits {test.shape[1]}; expected as many")
    classes = tuple(map(str, range(train.shape[1])))
    pixel = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    sets = [
        ImageSet(pixel.expand(len(labels), -1, -1, -1), labels, classes, sample_ids=None)
        for labels in (train_labels, test_labels)
    ]
    chosen = tuple(sorted(forget_classes))
    if forget is None:
        forget = torch.isin(train_labels, torch.tensor(chosen, dtype=torch.int64)).nonzero().squeeze(1)
    indices = torch.as_tensor(forget if isinstance(forget, Tensor) else list(forget), dtype=torch.int64)
    params: dict[str, JSON] = {"classes": list(chosen)} if chosen else {"count": len(indices)}
    dataset = Dataset("arrays", sets[0], sets[1], Preprocess())
    split = Split(dataset, "class" if chosen else "indices", indices, seed, params)
    predictions = Predictions(split, train, test, None)
    return measure(predictions, reference=reference, seed=seed, attacker=attacker, further={})


def _checked(name: str, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits as float32 and labels as int64, on the CPU.

    Raises:
        UserError: They do not fit each other, or cannot be read.
    """
    if logits.ndim != 2 or not logits.is_floating_point() or targets.shape != logits.shape[:1]:
        raise UserError(
            f"{name}_logits must be floating point of shape [N, C] and {name}_targets of shape [N], got "
            f"{logits.dtype} of shape {list(logits.shape)} and shape {list(targets.shape)}"
        )
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise UserError(f"{name}_targets must be class indices, got {targets.dtype}")
    logits = logits.detach().cpu().to(torch.float32)
    if logits.isnan().any() or (logits == torch.inf).any() or (logits == -torch.inf).all(dim=1).any():
        raise UserError(f"{name}_logits must be finite, or -inf for classes that are masked, got NaN or infinite ones")
    return logits, targets.detach().cpu().to(torch.int64)
