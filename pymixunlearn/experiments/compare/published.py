"""Published numbers of a case, to show beside ours: the paper's tables, row by row.

A file in ``paper/`` is one table: data set, then row (named as in a comparison), then metric, then mean and
standard deviation over five seeds, in percent. Cells that the paper leaves out are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

_TABLES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "class": ("table1", {"classes": [0]}),
    "data": ("table2", {"fraction": 0.4, "classes": [5, 6, 7, 8, 9]}),
    "noisy": ("table5", {"fraction": 0.6, "classes": [0, 1, 2, 3, 4]}),
    "semi": ("table6", {"labelled": 0.4, "fraction": 0.4, "classes": [5, 6, 7, 8, 9]}),
}


@dataclass(frozen=True)
class Published:
    """A paper's numbers for one case.

    Attributes:
        source: Where they stand, to print above them.
        rows: Row to metric to mean and standard deviation.
    """

    source: str
    rows: Mapping[str, Mapping[str, tuple[float, float]]]


def find_published(dataset: str, task: str, params: Mapping[str, Any]) -> Published | None:
    """Return the paper's numbers for a split, or None where it has none for exactly this one."""
    name, wanted = _TABLES.get(task, ("", None))
    if params != wanted:
        return None
    table = yaml.safe_load((files("pymixunlearn.experiments") / "paper" / f"{name}.yaml").read_text("utf-8"))
    rows = table["datasets"].get(dataset)
    if rows is None:
        return None
    numbers = {
        row: {metric: (float(mean), float(std)) for metric, (mean, std) in values.items()}
        for row, values in rows.items()
    }
    return Published(table["source"], numbers)
