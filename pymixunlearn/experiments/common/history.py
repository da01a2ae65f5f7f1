"""``history.csv``: the records of all trainings of a run, phase by phase."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def merge_histories(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return the records of all phases in order, each with its "phase"."""
    return [{"phase": phase, **record} for phase, records in histories.items() for record in records]


def to_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """Write records as CSV: phase and epoch first, and every quantity that some record has."""
    columns = list(dict.fromkeys(["phase", "epoch", "seconds", *(name for record in history for name in record)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
