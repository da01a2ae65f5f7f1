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
    detail_keys,
    detail_lines,
    row_label,
)
from pymixunlearn.reporting.explore import Explored, changed_samples, embedded, heat_map, page_data, row_id
from pymixunlearn.reporting.formats import GROUPS, cell_label, cell_text, floor_sentences
from pymixunlearn.reporting.html import environment, figures


def render_exhibit(report: ExhibitReport, record: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Return the page as HTML text.

    Args:
        report: What there is to say.
        record: The content of ``experiment.json``.
        pictures: SVG documents by name.
    """
    explored = {
        case.key: Explored(case.label, case.table, case.cells, case.classes, case.forgotten)
        for case in report.cases
        if case.table is not None
    }
    numbers = {key: number for number, key in enumerate(explored)}
    return (
        environment()
        .get_template("exhibit.html.j2")
        .render(
            report=report,
            record=record,
            figures=figures(pictures),
            blocks=[_block(block, numbers) for block in report.blocks],
            details=[_detail(case, numbers, explored) for case in report.cases],
            data=embedded(page_data(explored.values())),
        )
    )


def _block(block: Sequence[CaseResult], numbers: Mapping[str, int]) -> dict[str, Any]:
    keys = block_keys(block)
    rows, last = [], None
    for group, name, found in block_rows(block):
        cells = [
            (numbers[case.key], key, *_cell(case, (group, name), row, key))
            for case, row in zip(block, found, strict=True)
            for key in keys
        ]
        known = next(row for row in found if row is not None)
        rows.append((GROUPS[group] if group != last else "", row_id(known), row_label(name), cells))
        last = group
    return {
        "cases": [(case.label, len(keys)) for case in block],
        "headings": [(key, cell_label(key)) for _ in block for key in keys],
        "rows": rows,
    }


def _cell(case: CaseResult, name: tuple[str, str], row: ComparisonRow | None, key: str) -> tuple[str, str, bool]:
    """Return a value, what stands below it in small (deviation, interval or remark), and whether it is the closest."""
    found = None if row is None else row.cells.get(key)
    if row is None or found is None:
        return "-" if row is None else row.lacking, "", False
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


def _detail(case: CaseResult, numbers: Mapping[str, int], explored: Mapping[str, Explored]) -> dict[str, Any]:
    if case.table is None:
        return {"case": case, "table": None, "floor": []}
    number, last = numbers[case.key], ""
    keys = detail_keys(case.table)
    heads, lines = detail_lines(case.table)
    rows = []
    for row, (group, name, *cells) in zip(case.table.rows, lines, strict=True):
        rows.append(
            {
                "id": row_id(row),
                "label": name,
                "emphasis": False,
                "group": group if group != last else "",
                "cells": [(key, cell, "") for key, cell in zip(keys, cells, strict=True)],
            }
        )
        last = group
    return {
        "case": case,
        "number": number,
        "table": {"headings": list(zip(keys, heads[2:], strict=True)), "rows": rows},
        "floor": floor_sentences(case.table),
        "heat": heat_map(explored[case.key]),
        "changed": changed_samples(explored[case.key]),
    }
