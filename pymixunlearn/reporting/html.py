"""The report of a run: one HTML file that needs nothing else, readable in light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pymixunlearn.reporting import curves
from pymixunlearn.reporting.table import column_label, columns, format_cell, result_rows

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
    keys = columns(rows)
    return environment.get_template("report.html.j2").render(
        config=config,
        record=record,
        split=split,
        task_meaning=_TASKS[split["task"]],
        classes=[config["class_names"][label] for label in split["params"].get("classes", [])],
        headings=[column_label(key) for key in keys],
        rows=[(row.label, row.emphasis, [format_cell(key, row) for key in keys]) for row in rows],
        charts=curves.charts(history),
        size=curves,
    )


def _setting_text(value: object) -> str:
    """Write a setting as ``--set`` would read it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
