"""Samples whose predictions unlearning changed most: of D_f it should be many, of the others few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pymixunlearn.evaluation.predictions import Predictions

COUNT = 5
"""So many samples of each part are named."""
PARTS = ("forget", "retain", "test")
BLOCK = 4096
"""Samples whose probabilities are in memory at once: in float64 those of all would be several times their logits."""


def most_changed(
    before: Predictions, after: Predictions, retrain: Predictions | None = None, *, count: int = COUNT
) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of D_f, D_r and the test set whose predictions changed most, the most changed first.

    Args:
        before: Predictions of the initial model.
        after: Of the unlearned one.
        retrain: Of Retrain, if there is one.
        count: How many samples of each part at most; those that did not change are left out.

    Returns:
        "forget", "retain" and "test" to samples, JSON-able: "index" among the training or the test images, "label",
        "change" (total variation distance between the probabilities, in points from 0 to 100), and for "initial",
        "unlearned" and "retrain" the predicted class with its probability in percent.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> before, after = (
        ...     evaluation.predict(
        ...         models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=seed), split, device="cpu"
        ...     )
        ...     for seed in (0, 1)
        ... )
        >>> found = evaluation.most_changed(before, after)
        >>> [len(part) for part in found.values()], evaluation.most_changed(before, before)["forget"]
        ([5, 5, 5], [])
    """
    found = {}
    for part in PARTS:
        own = _indices(before, part)
        change = _change(_all(before, part), _all(after, part), own)
        order = change.sort(descending=True, stable=True).indices[:count]
        indices = own[order].tolist()
        entries = changes_of(part, indices, before, after, retrain)
        found[part] = [entry for entry in entries if entry["change"] > 0]
    return found


def changes_of(
    part: str, indices: Sequence[int], before: Predictions, after: Predictions, retrain: Predictions | None = None
) -> list[dict[str, Any]]:
    """Return what :func:`most_changed` says of samples of a part that are named by their indices."""
    chosen = torch.tensor(indices, dtype=torch.int64)
    rows = {"initial": before, "unlearned": after, **({} if retrain is None else {"retrain": retrain})}
    logits = {model: _all(predictions, part)[chosen] for model, predictions in rows.items()}
    targets = before.test_targets if part == "test" else before.train_targets
    change = _change(_all(before, part), _all(after, part), chosen)
    entries = [
        {"index": index, "label": label, "change": round(float(value), 2)}
        for index, label, value in zip(indices, targets[chosen].tolist(), change, strict=True)
    ]
    for model, own in logits.items():
        shares, classes = own.double().softmax(dim=1).max(dim=1)
        for entry, share, label in zip(entries, shares.tolist(), classes.tolist(), strict=True):
            entry[model] = [label, round(100 * share, 2)]
    return entries


def _change(before: Tensor, after: Tensor, chosen: Tensor) -> Tensor:
    """Return the total variation distance between the softmax of chosen rows, in points."""
    found = []
    for rows in torch.split(chosen, BLOCK):
        apart = before[rows].double().softmax(dim=1) - after[rows].double().softmax(dim=1)
        found.append(50 * apart.abs().sum(dim=1))
    return torch.cat(found)


def _all(predictions: Predictions, part: str) -> Tensor:
    return predictions.test if part == "test" else predictions.train


def _indices(predictions: Predictions, part: str) -> Tensor:
    if part == "test":
        return torch.arange(len(predictions.test))
    split = predictions.split
    return (split.forget_indices if part == "forget" else split.retain_indices).cpu()
