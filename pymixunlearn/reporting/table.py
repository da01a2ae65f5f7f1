"""The table of a run: initial model, unlearned model, Retrain, and the gaps to Retrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pymixunlearn.evaluation.catalogue import FURTHER_METRICS, PAPER_METRICS, metric_info, plugged_keys
from pymixunlearn.reporting.folding import FoldingTable
from pymixunlearn.reporting.metrics_record import MODELS, SECOND, row_name
from pymixunlearn.reporting.noise_floor import run_floor

_LABELS = {
    "train": "Train",
    "mean": "Mean gap",
    "acceptance": "Acceptance",
    "seconds": "Seconds",
    "added_megabytes": "Memory MB",
}
_MAIN = ("train", *(info.key for info in PAPER_METRICS), "mean", "acceptance", "seconds")
_DECIMALS = {"%": 2, "": 3, "s": 1, "steps": 0}
_FURTHER = tuple(info.key for info in FURTHER_METRICS)


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: What it is about.
        cells: Values by column key; texts as they are.
        emphasis: Whether it is what the reader came for.
        model: The key of the model that it is about; None for a gap.
    """

    label: str
    cells: Mapping[str, float | str | None]
    emphasis: bool = False
    model: str | None = None


def result_rows(record: Mapping[str, Any]) -> list[Row]:
    """Return the rows for the content of a run's ``metrics.json``, the do-nothing model's first.

    Without Retrain there is nothing to be close to, and the gap rows are left out.
    """
    models = [model for model in (*MODELS, SECOND) if record["metrics"].get(model) is not None]
    rows = [_model_row(record, model) for model in models]
    gaps, floor = record["gap"] or {}, run_floor(record)
    for model in ("unlearned", SECOND, "initial"):
        if model in gaps:
            label = f"gap |{row_name(model)} - Retrain|"
            if model != SECOND and floor is not None and floor.holds(gaps[model]["mean"]):
                label += ", within the floor"
            rows.append(Row(label, gaps[model], emphasis=model == "unlearned"))
    return rows


def training_rows(record: Mapping[str, Any]) -> list[Row]:
    """Return the one row of a training's ``metrics.json``."""
    (model,) = record["metrics"]
    return [replace(_model_row(record, model), emphasis=True)]


def evaluation_rows(record: Mapping[str, Any]) -> list[Row]:
    """Return the rows of an evaluation's ``metrics.json``: the model, and the reference with the gap."""
    metrics, gaps = record["metrics"], record["gap"]
    judged = {name: {"acceptance": test["decision"]} for name, test in (record.get("acceptance") or {}).items()}
    rows = [
        Row(name, {**metrics[name], **judged.get(name, {})}, emphasis=name == "model")
        for name in ("model", "reference")
        if name in metrics
    ]
    return rows if gaps is None else [*rows, Row("gap |model - reference|", gaps["model"])]


def _model_row(record: Mapping[str, Any], model: str) -> Row:
    cells: dict[str, float | str | None] = {**record["metrics"][model], "seconds": record["seconds"].get(model)}
    judged = (record.get("acceptance") or {}).get(model)
    if judged is not None:
        cells["acceptance"] = judged["decision"]
    return Row(row_name(model), cells, emphasis=model == "unlearned", model=model)


def further_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that have metrics beyond the paper's; a gap of a comparison would be a comparison twice over."""
    return [
        row
        for row in rows
        if "mean" not in row.cells
        and any(row.cells.get(key) is not None for key in (*_FURTHER, *plugged_keys(row.cells)))
    ]


def columns(rows: Sequence[Row], *, further: bool = False) -> list[str]:
    """Return every column key that some row has: the paper's metrics and seconds, or the ``further`` metrics."""
    present = {key for row in rows for key in row.cells}
    return [key for key in ((*_FURTHER, *plugged_keys(present)) if further else _MAIN) if key in present]


def column_label(key: str) -> str:
    """Return how a column is headed."""
    return _LABELS[key] if key in _LABELS else metric_info(key).label


def format_cell(key: str, row: Row) -> str:
    """Return a cell's text: percentages with two decimals, seconds with one, "-" where a value is lacking."""
    if key not in row.cells:
        return ""
    value = row.cells[key]
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    unit = {"seconds": "s", "mean": "%", "train": "%"}.get(key) or metric_info(key).unit
    return f"{value:.{_DECIMALS[unit]}f}"


def rich_table(
    rows: Sequence[Row], *, title: str | None = None, plain: bool = False, further: bool = False
) -> FoldingTable:
    """Lay rows out for a terminal, folded where it is too narrow.

    Args:
        rows: The lines, top to bottom.
        title: What stands above the table.
        plain: Use ASCII rules only, for output that is not a terminal.
        further: Show the metrics beyond the paper's instead of the paper's.
    """
    keys = columns(rows, further=further)
    table = FoldingTable("", *map(column_label, keys), title=title, plain=plain)
    for row in rows:
        table.add_row(row.label, *(format_cell(key, row) for key in keys), style="bold" if row.emphasis else None)
    return table
