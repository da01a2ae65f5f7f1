"""The report of a run: one HTML file that needs nothing else, readable in light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pymixunlearn.evaluation.catalogue import METRICS
from pymixunlearn.reporting import curves
from pymixunlearn.reporting.table import Row, column_label, columns, format_cell, further_rows, result_rows

_TASKS = {
    "class": "every training sample of the forgotten classes",
    "data": "a random share of the training samples of some classes",
    "indices": "the training samples of a list of indices",
}


def render_report(
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    split: Mapping[str, Any],
    history: Sequence[Mapping[str, object]],
) -> str:
    """Return the report as HTML text.

    Args:
        config: The content of ``config.json``.
        record: The content of ``metrics.json``.
        split: The content of ``split.json``.
        history: The rows of ``history.csv``.
    """
    environment = Environment(
        loader=PackageLoader("pymixunlearn.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["setting"] = _setting_text
    rows = result_rows(record)
    further = further_rows(rows)
    further_keys = columns(further, further=True)
    return environment.get_template("report.html.j2").render(
        config=config,
        record=record,
        split=split,
        task_meaning=_TASKS[split["task"]],
        classes=[config["class_names"][label] for label in split["params"].get("classes", [])],
        results=_table(rows, columns(rows)),
        further=_table(further, further_keys),
        explained=[METRICS[key] for key in further_keys],
        charts=curves.charts(history),
        size=curves,
    )


def _table(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, Any]:
    """Return the headings and the lines (label, emphasis, cells) of a table."""
    return {
        "headings": [column_label(key) for key in keys],
        "rows": [(row.label, row.emphasis, [format_cell(key, row) for key in keys]) for row in rows],
    }


def _setting_text(value: object) -> str:
    """Write a setting as ``--set`` would read it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
