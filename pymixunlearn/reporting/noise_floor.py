"""The noise floor: how far a second Retrain, with other weights and another order, is from the first.

A method whose mean gap is no larger cannot be told from one that is as good as retraining: it is not ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from pymixunlearn.evaluation.catalogue import PAPER_METRICS
from pymixunlearn.reporting.evidence import Measured, combined
from pymixunlearn.reporting.metrics_record import SECOND


class Floor(NamedTuple):
    """The mean gap of the second Retrain with its 95 % interval, in points."""

    value: float
    low: float
    high: float

    def holds(self, gap: float | None) -> bool:
        """Whether a mean gap is within the floor: at most the upper end of the interval."""
        return gap is not None and gap <= self.high


def run_floor(record: Mapping[str, Any]) -> Floor | None:
    """Return the floor of one run by the draw of the samples; None without a second Retrain.

    Args:
        record: The content of a ``metrics.json``, or a cell of ``compare.json``.
    """
    theirs, second = (record["metrics"].get(name) for name in ("retrain", SECOND))
    if theirs is None or second is None:
        return None
    spans = [record["intervals"].get(name) or {} for name in (SECOND, "retrain")]
    terms: list[tuple[float, Measured]] = []
    keys = [info.key for info in PAPER_METRICS if second.get(info.key) is not None and theirs.get(info.key) is not None]
    for key in keys:
        sign = (1 if second[key] >= theirs[key] else -1) / len(keys)
        for factor, value, own in ((sign, second[key], spans[0]), (-sign, theirs[key], spans[1])):
            low, high = own.get(key, (value, value))
            terms.append((factor, Measured(value, low, high)))
    if not terms:
        return None
    found = combined(*terms)
    return Floor(found.value, max(0.0, found.low), found.high)


def floor_over_seeds(cells: Sequence[Mapping[str, Any]]) -> Floor | None:
    """Return the floor of several runs: over seeds where there are two or more, otherwise that of the one run.

    Args:
        cells: One record a seed, as for :func:`run_floor`.
    """
    from scipy.stats import t

    floors = [floor for cell in cells if (floor := run_floor(cell)) is not None]
    if len(floors) < 2:
        return floors[0] if floors else None
    values = [floor.value for floor in floors]
    error = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Floor(fmean(values), max(0.0, fmean(values) - error), fmean(values) + error)
