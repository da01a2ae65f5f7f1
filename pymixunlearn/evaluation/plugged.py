"""Metrics of plug-ins: a function of a model's predictions, measured and recorded beside the others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.catalogue import METRICS
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.user_files import home_of

Compute = Callable[[Predictions], "float | None"]
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("mean", "seconds", "train", *METRICS)


@dataclass(frozen=True)
class PluggedMetric:
    """Metric of a plug-in: its key, which also heads its column; what it means; and the function that computes it."""

    key: str
    summary: str
    compute: Compute


_PLUGGED: dict[str, PluggedMetric] = {}


def metric(key: str, *, summary: str) -> Callable[[Compute], Compute]:
    """Return a decorator that makes a function a metric, measured on every model in every run.

    Args:
        key: Its key in ``metrics.json`` and the head of its column: lower-case letters, digits and underscores.
        summary: What it is, in a few words.

    The function takes :class:`~pymixunlearn.evaluation.predictions.Predictions` (the split, and the model's logits of
    the training and test images) and returns a number, or None where it cannot be known.

    Raises:
        UserError: The key is no such word, or is taken by another metric.

    Example:
        >>> from pymixunlearn import evaluation
        >>> from pymixunlearn.evaluation.plugged import forget_metric
        >>> @evaluation.metric("forget_confidence", summary="mean largest probability on D_f")
        ... def forget_confidence(predictions):
        ...     return float(predictions.forget_probabilities.max(dim=1).values.mean())
        >>> forget_metric("forget_confidence")
    """
    if not _KEY.fullmatch(key):
        raise UserError(f"a metric's key is lower-case letters, digits and underscores, got '{key}'")
    if key in _TAKEN:
        raise UserError(f"a metric '{key}' is there already")

    def decorate(compute: Compute) -> Compute:
        known = _PLUGGED.get(key)
        place = (compute.__module__, compute.__qualname__)
        if known is not None and (known.compute.__module__, known.compute.__qualname__) != place:
            raise UserError(f"a metric '{key}' is there already ({home_of(known.compute.__module__)})")
        _PLUGGED[key] = PluggedMetric(key, summary, compute)
        return compute

    return decorate


def forget_metric(key: str) -> None:
    """Take a metric of a plug-in away again."""
    _PLUGGED.pop(key, None)


def plugged_metrics() -> Mapping[str, PluggedMetric]:
    """Return the metrics of plug-ins by key."""
    return dict(_PLUGGED)


def measure_plugged(predictions: Predictions) -> dict[str, float | None]:
    """Compute the metrics of plug-ins.

    Raises:
        UserError: One of them fails, or returns something that is no finite number.
    """
    values: dict[str, float | None] = {}
    for key, plugged in _PLUGGED.items():
        try:
            value = plugged.compute(predictions)
            values[key] = None if value is None else float(value)
        except Exception as error:  # a user's function may raise anything
            raise UserError(f"metric '{key}' of a plug-in failed ({type(error).__name__}: {error})") from error
        if values[key] is not None and not math.isfinite(values[key] or 0.0):
            raise UserError(f"metric '{key}' of a plug-in is {values[key]}; expected a finite number or None")
    return values
