"""Evidence that the verdict is decided on: values with intervals, and differences of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

from pymixunlearn.evaluation.catalogue import PAPER_METRICS
from pymixunlearn.evaluation.intervals import wilson
from pymixunlearn.reporting.metrics_record import MODELS

ATTACK = "mia_loss"
EARLIER = "earlier_f"
COMPARED = (*(info.key for info in PAPER_METRICS), EARLIER, ATTACK)
"""The metrics that a verdict looks at."""
FORGETTING = ("train_f", "test_f", EARLIER, "asr", ATTACK)
"""Those of them that tell what is still known of the forgotten samples."""
UTILITY = ("train_r", "test_r", "test")
"""Those that tell what the model is still good for."""

_CONFIDENCE = 0.95


class Measured(NamedTuple):
    """A percentage with its 95 % interval, and the number of samples that it was counted on, where that is known."""

    value: float
    low: float
    high: float
    samples: int | None = None


class Difference(NamedTuple):
    """A difference in points with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def measurable(self) -> bool:
        """Whether it is larger than the draw of the samples explains: its interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def within(self, margin: float) -> bool:
        """Whether it is shown to be at most ``margin``: two one-sided tests, the whole interval inside."""
        return -margin <= self.low and self.high <= margin

    def beyond(self, margin: float) -> bool:
        """Whether it is shown to be more than ``margin``: the whole interval outside, on one side."""
        return self.low > margin or self.high < -margin


@dataclass(frozen=True)
class Evidence:
    """What a verdict is decided on.

    Attributes:
        seed: Of the run.
        unchanged: Whether the unlearned model has the weights of the initial one.
        forgotten: How many samples were forgotten; None where that is not known.
        initial: The metrics of the initial model by key, those of :data:`COMPARED` that are known.
        unlearned: Of the unlearned model.
        retrain: Of Retrain; None without it.
        unlearned_classes: Test accuracy of the unlearned model on each class by its index.
        retrain_classes: Of Retrain.
        acceptance: What the acceptance test found ("decision" and "reason"), if it was made.
    """

    seed: int
    unchanged: bool
    forgotten: int | None
    initial: Mapping[str, Measured]
    unlearned: Mapping[str, Measured]
    retrain: Mapping[str, Measured] | None
    unlearned_classes: Mapping[int, Measured] = field(default_factory=dict)
    retrain_classes: Mapping[int, Measured] = field(default_factory=dict)
    acceptance: Mapping[str, Any] | None = None

    def beside_retrain(self, model: Mapping[str, Measured], keys: Sequence[str] = COMPARED) -> dict[str, Difference]:
        """Return how far ``model`` is from Retrain in each of ``keys`` that both have."""
        theirs = self.retrain or {}
        return {key: combined((1, model[key]), (-1, theirs[key])) for key in keys if key in model and key in theirs}

    def classes_beside_retrain(self) -> dict[int, Difference]:
        """Return how far the test accuracy of each class is from Retrain's."""
        mine, theirs = self.unlearned_classes, self.retrain_classes
        return {index: combined((1, mine[index]), (-1, theirs[index])) for index in mine if index in theirs}

    def changes_of_gap(self) -> dict[str, Difference]:
        """Return by how much the gap ``|metric - Retrain's|`` changed through unlearning; below 0 is closer."""
        if self.retrain is None:
            return {}
        changes = {}
        for key in COMPARED:
            if not (key in self.initial and key in self.unlearned and key in self.retrain):
                continue
            before, after, target = self.initial[key], self.unlearned[key], self.retrain[key]
            was = 1 if before.value >= target.value else -1
            now = was if after.value == target.value else 1 if after.value > target.value else -1
            # |u - r| - |i - r|, where Retrain's own error cancels if both lie on one side of it.
            changes[key] = combined((now, after), (-was, before), (was - now, target))
        return changes


def combined(*terms: tuple[float, Measured]) -> Difference:
    """Return a sum of independent measurements, each times a factor, with its 95 % interval.

    The interval is that of Newcombe (1998) for differences of proportions, for any linear combination (Zou and Donner
    2008): each measurement contributes the side of its own interval on which the sum can move, and the sides add by
    their squares.

    Args:
        *terms: Factors and what they multiply.

    Example:
        >>> combined((1, Measured(80, 77, 84)), (-1, Measured(70, 66, 73)))
        Difference(value=10, low=5.757..., high=15.656...)
    """
    value = sum(factor * part.value for factor, part in terms)
    down = (factor * (part.value - (part.low if factor > 0 else part.high)) for factor, part in terms)
    up = (factor * ((part.high if factor > 0 else part.low) - part.value) for factor, part in terms)
    return Difference(value, value - math.hypot(*down), value + math.hypot(*up))


def evidence(record: Mapping[str, Any]) -> Evidence:
    """Return what the content of a ``metrics.json`` says."""
    metrics, details, hashes = record["metrics"], record["details"], record["hashes"]
    known = {model: _measured(record, model) for model in MODELS if metrics.get(model) is not None}
    by_class = record["task"] != "class" and "retrain" in known
    return Evidence(
        seed=record["seed"],
        unchanged=hashes["initial"] == hashes["unlearned"],
        forgotten=details["unlearned"].get("samples", {}).get("train_f"),
        initial=known["initial"],
        unlearned=known["unlearned"],
        retrain=known.get("retrain"),
        unlearned_classes=_classes(details["unlearned"]) if by_class else {},
        retrain_classes=_classes(details["retrain"]) if by_class else {},
        acceptance=(record.get("acceptance") or {}).get("unlearned"),
    )


def _measured(record: Mapping[str, Any], model: str) -> dict[str, Measured]:
    values, intervals = record["metrics"][model], record["intervals"][model]
    samples = record["details"][model].get("samples", {})
    found = {}
    for key in COMPARED:
        value, interval = values.get(key), intervals.get(key)
        if value is not None and interval is not None:
            low, high = interval
            found[key] = Measured(value, low, high, samples.get(key))
    return found


def _classes(details: Mapping[str, Any]) -> dict[int, Measured]:
    """Return the accuracy of every class, with intervals that hold for all classes together (Bonferroni)."""
    counts = details.get("class_samples")
    if counts is None:
        return {}
    z = NormalDist().inv_cdf(1 - (1 - _CONFIDENCE) / 2 / max(1, sum(count > 0 for count in counts)))
    return {
        index: Measured(value, *wilson(value, count, z), count)
        for index, (value, count) in enumerate(zip(details["per_class"], counts, strict=True))
        if value is not None
    }
