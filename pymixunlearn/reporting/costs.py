"""What a run took, phase by phase: seconds and the peak of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymixunlearn.reporting.comparison import MEGABYTE
from pymixunlearn.reporting.metrics_record import SECOND

_NAMES = {
    "initial": "training the initial model",
    "unlearned": "unlearning",
    "retrain": "training Retrain",
    SECOND: "training the second Retrain",
    "evaluation": "evaluation",
    "acceptance": "acceptance test",
}


def cost_rows(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return a line for every phase of a run, and for its parts.

    A line is the name, the seconds, and memory in units of 2^20 bytes: at the start of the phase, and at its peak.

    Args:
        record: The content of ``metrics.json``; one of 0.1.0 has no phases.

    Example:
        >>> cost_rows({"phases": {"evaluation": {"seconds": 1.25, "start_bytes": 2**27, "peak_bytes": 2**28}}})
        [('evaluation', '1.2', '128', '256')]
    """
    rows = []
    for phase, found in (record.get("phases") or {}).items():
        name = f"{_NAMES[phase]}, taken from the cache" if found.get("cached") else _NAMES[phase]
        start, peak = (
            "-" if found[key] is None else f"{found[key] / MEGABYTE:.0f}" for key in ("start_bytes", "peak_bytes")
        )
        rows.append((name, f"{found['seconds']:.1f}", start, peak))
        for part, seconds in found.get("parts", {}).items():
            rows.append((f"of that, {part.replace('_', ' ')}", f"{seconds:.1f}", "", ""))
    return rows
