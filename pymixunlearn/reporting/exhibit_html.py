"""The page of an exhibit: its figure and tables as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymixunlearn.reporting.comparison import DECIMALS, GAP, ComparisonRow
from pymixunlearn.reporting.exhibit import (
    CaseResult,
    ExhibitReport,
    block_keys,
    block_rows,
    detail_lines,
    row_label,
    value_text,
)
from pymixunlearn.reporting.formats import GROUPS, cell_label, floor_sentences
from pymixunlearn.reporting.html import environment, figures


def render_exhibit(report: ExhibitReport, record: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Return the page as HTML text.

    Args:
        report: What there is to say.
        record: The content of ``experiment.json``.
        pictures: SVG documents by name.
    """
    return (
        environment()
        .get_template("exhibit.html.j2")
        .render(
            report=report,
            record=record,
            figures=figures(pictures),
            blocks=list(map(_block, report.blocks)),
            details=[_detail(case) for case in report.cases],
        )
    )


def _block(block: Sequence[CaseResult]) -> dict[str, Any]:
    keys = block_keys(block)
    rows, last = [], None
    for group, name, found in block_rows(block):
        cells = [_cell(case, name, row, key) for case, row in zip(block, found, strict=True) for key in keys]
        rows.append((GROUPS[group] if group != last else "", row_label(name), cells))
        last = group
    return {
        "cases": [(case.label, len(keys)) for case in block],
        "headings": [cell_label(key) for _ in block for key in keys],
        "rows": rows,
    }


def _cell(case: CaseResult, name: str, row: ComparisonRow | None, key: str) -> tuple[str, str, bool]:
    """Return a value, what stands below it in small (deviation, or interval), and whether it is the closest."""
    text = value_text(row, key)
    value, _, rest = text.partition(" ± ")
    interval = case.intervals.get(name, {}).get(key)
    if rest:
        spread, bracket, paper = rest.partition(" [")
        return f"{value}{bracket}{paper}", f"± {spread}", _is_closest(row, key)
    below = "" if interval is None or key == GAP else f"{interval[0]:.{DECIMALS - 1}f}–{interval[1]:.{DECIMALS - 1}f}"
    return text, below, _is_closest(row, key)


def _is_closest(row: ComparisonRow | None, key: str) -> bool:
    return row is not None and key in row.closest


def _detail(case: CaseResult) -> dict[str, Any]:
    found: dict[str, Any] = {"case": case, "table": None, "floor": []}
    if case.table is not None:
        heads, rows = detail_lines(case.table)
        lines = [(row[1], False, [(cell, "") for cell in row[2:]]) for row in rows]
        found |= {"table": {"headings": heads[2:], "rows": lines}, "floor": floor_sentences(case.table)}
    return found
