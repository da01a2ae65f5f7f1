"""Published numbers of a case, to show beside ours: the paper's tables, row by row.

A file in ``published/`` is one table: data set, then row (named as in a comparison), then metric, then mean and
standard deviation over five seeds, in percent; null where the copy that it was read from is illegible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

import yaml

from pymixunlearn.training.recipes import defaults_for

_TABLES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "class": ("table1", {"classes": [0]}),
    "data": ("table2", {"fraction": 0.4, "classes": [5, 6, 7, 8, 9]}),
    "noisy": ("table5", {"fraction": 0.6, "classes": [0, 1, 2, 3, 4]}),
    "semi": ("table6", {"labelled": 0.4, "fraction": 0.4, "classes": [5, 6, 7, 8, 9]}),
}
_NETWORKS: dict[str, tuple[str, int | None]] = {
    "mnist": ("cnn", None),
    "fashion-mnist": ("cnn", None),
    "cifar10": ("resnet18", 224),
    "svhn": ("resnet18", 224),
}
"""The network of each data set, and the side of its input; None is that of the stored images."""

Cells: TypeAlias = "dict[str, dict[str, tuple[float, float | None] | None]]"
"""Row to metric to mean and standard deviation."""


@dataclass(frozen=True)
class Published:
    """A paper's numbers for one case.

    Attributes:
        source: Where they stand, to print above them.
        rows: Row to metric to mean and standard deviation, which the paper's text leaves out here and there.
    """

    source: str
    rows: Mapping[str, Mapping[str, tuple[float, float | None]]]


def published_tables(name: str) -> tuple[str, dict[str, Cells]]:
    """Return where a table of the paper stands, and its cells by data set; None for a cell that is illegible.

    Args:
        name: "table1" to "table7".

    Example:
        >>> source, tables = published_tables("table1")
        >>> tables["mnist"]["retrain"]["test_r"]
        (98.79, 0.2)
    """
    table = yaml.safe_load((files("pymixunlearn.experiments") / "published" / f"{name}.yaml").read_text("utf-8"))
    cells: dict[str, Cells] = {
        dataset: {row: {metric: _cell(value) for metric, value in values.items()} for row, values in rows.items()}
        for dataset, rows in table["datasets"].items()
    }
    return table["source"], cells


def find_published(case: Mapping[str, Any]) -> Published | None:
    """Return the paper's numbers for a comparison, or None where it has none for exactly this one.

    The data set, what is forgotten, the network, the size of its input and both trainings have to be the paper's. Its
    numbers of the membership attack are left out unless ours was made in the same way.

    Args:
        case: What the cells of a comparison have in common: "dataset", "task", "params", "preprocess", "architecture",
            "checkpoint_sha256", "initial", "retrain", and "asr" where that is not the package's own.
    """
    name, wanted = _TABLES.get(case["task"], ("", None))
    if case["params"] != wanted or not same_network(case):
        return None
    source, tables = published_tables(name)
    if case["dataset"] not in tables:
        return None
    hidden = () if case.get("asr") == "paper" else ("asr",)
    if hidden:
        source += ", without its ASR, which is attacked in another way (--asr paper)"
    rows = {
        row: {metric: cell for metric, cell in cells.items() if cell is not None and metric not in hidden}
        for row, cells in tables[case["dataset"]].items()
    }
    return Published(source, {row: cells for row, cells in rows.items() if cells})


def same_network(case: Mapping[str, Any]) -> bool:
    """Whether the initial model and Retrain have the paper's network, input and training."""
    if case["dataset"] not in _NETWORKS or case["checkpoint_sha256"] is not None:
        return False
    network, size = _NETWORKS[case["dataset"]]
    semi = case["task"] == "semi"
    trainings = {
        purpose: defaults_for(network, purpose, semi_supervised=semi).to_dict() for purpose in ("initial", "retrain")
    }
    architecture, preprocess = case["architecture"], case["preprocess"]
    return (
        architecture.get("name") == network
        and preprocess["size"] == size
        and all(case[purpose] == training for purpose, training in trainings.items())
    )


def _cell(value: list[float | None] | None) -> tuple[float, float | None] | None:
    if value is None:
        return None
    mean, std = value
    assert mean is not None
    return float(mean), None if std is None else float(std)
