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
)
from pymixunlearn.reporting.formats import GROUPS, cell_label, cell_text, floor_sentences
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
        cells = [_cell(case, (group, name), row, key) for case, row in zip(block, found, strict=True) for key in keys]
        rows.append((GROUPS[group] if group != last else "", row_label(name), cells))
        last = group
    return {
        "cases": [(case.label, len(keys)) for case in block],
        "headings": [cell_label(key) for _ in block for key in keys],
        "rows": rows,
    }


def _cell(case: CaseResult, name: tuple[str, str], row: ComparisonRow | None, key: str) -> tuple[str, str, bool]:
    """Return a value, what stands below it in small (deviation, interval or remark), and whether it is the closest."""
    found = None if row is None else row.cells.get(key)
    if row is None or found is None:
        return "-", "", False
    text = f"{found.mean:.{DECIMALS}f}"
    if key in row.published:
        text += f" [{cell_text(row.published, key)}]"
    below = "" if found.std is None else f"± {found.std:.{DECIMALS}f}"
    interval = case.intervals.get(name, {}).get(key)
    if found.std is None and interval is not None:
        below = f"{interval[0]:.{DECIMALS - 1}f}–{interval[1]:.{DECIMALS - 1}f}"
    if key == GAP and row.within_floor:
        below = f"{below} within the floor".strip()
    return text, below, key in row.closest


def _detail(case: CaseResult) -> dict[str, Any]:
    found: dict[str, Any] = {"case": case, "table": None, "floor": []}
    if case.table is not None:
        heads, rows = detail_lines(case.table)
        names = [name for _, name, *_ in rows]
        lines = []
        for group, name, *cells in rows:
            label = f"{name}, {group}" if names.count(name) > 1 else name
            lines.append((label, False, [(cell, "") for cell in cells]))
        found |= {"table": {"headings": heads[2:], "rows": lines}, "floor": floor_sentences(case.table)}
    return found
