"""Runs as rows of a pandas data frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymixunlearn.data.optional import require

_FACTS = ("method", "dataset", "task", "seed")


def run_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a run.

    Its columns are "method", "dataset", "task" and "seed", as far as they are known; "MODEL.METRIC" (such as
    "unlearned.test_r"), "gap.MODEL.METRIC" (with "gap.unlearned.mean"), "seconds.MODEL", and "peak_bytes.PHASE".

    Args:
        record: The content of a ``metrics.json``.

    Example:
        >>> from pymixunlearn.experiments.common.frames import run_row
        >>> run_row({"method": "neggrad", "metrics": {"unlearned": {"test": 90.0}, "retrain": None}, "gap": None})
        {'method': 'neggrad', 'unlearned.test': 90.0}
    """
    row: dict[str, Any] = {key: record[key] for key in _FACTS if key in record}
    for model, metrics in record["metrics"].items():
        row |= {f"{model}.{key}": value for key, value in (metrics or {}).items()}
    for model, gaps in (record.get("gap") or {}).items():
        row |= {f"gap.{model}.{key}": value for key, value in gaps.items()}
    row |= {f"seconds.{model}": value for model, value in (record.get("seconds") or {}).items()}
    return row | {f"peak_bytes.{phase}": found["peak_bytes"] for phase, found in (record.get("phases") or {}).items()}


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return a pandas data frame of rows.

    Raises:
        UserError: pandas is not installed.
    """
    pandas = require("pandas", purpose="to_frame()", remedy="pip install 'pymixunlearn[pandas]'")
    return pandas.DataFrame(list(rows))
