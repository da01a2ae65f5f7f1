"""The report of a comparison: its table and pictures as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from pymixunlearn.reporting.comparison import DECIMALS, GAP, SECONDS, ComparisonRow, ComparisonTable
from pymixunlearn.reporting.explore import GROUP_NAMES, Explored, changed_samples, embedded, heat_map, page_data, row_id
from pymixunlearn.reporting.formats import COSTS, floor_sentences
from pymixunlearn.reporting.html import environment, figures
from pymixunlearn.reporting.narrowing import compare_command
from pymixunlearn.reporting.pictures.comparison import MethodResult, draw_gaps, draw_times
from pymixunlearn.reporting.pictures.style import Picture
from pymixunlearn.reporting.table import column_label

ACCEPTANCE = "acceptance"


def comparison_pictures(table: ComparisonTable) -> list[Picture]:
    """Draw the gaps and the times of a comparison; nothing where no method has a result."""
    results = method_results(table)
    if not results:
        return []
    seconds = table.rows[0].cells.get(SECONDS)
    return [draw_gaps(results), draw_times(results, None if seconds is None else seconds.mean)]


def method_results(table: ComparisonTable) -> list[MethodResult]:
    """Return what the pictures need of every method that has a result."""
    retrain = table.rows[0].cells
    return [
        MethodResult(
            row.name,
            row.group,
            row.cells[GAP].mean,
            row.cells[GAP].std,
            {key: abs(row.cells[key].mean - retrain[key].mean) for key in table.metrics if key in row.cells},
            row.cells[SECONDS].mean,
            row.answer,
        )
        for row in table.rows
        if row.group in GROUP_NAMES and GAP in row.cells
    ]


def comparison_verdict(table: ComparisonTable) -> list[str]:
    """Return a sentence for each group of methods: which is closest to Retrain, and is that more than chance?"""
    return [_best(group, meaning, table.rows) for group, meaning in GROUP_NAMES.items() if _ranked(group, table.rows)]


def _ranked(group: str, rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The methods of a group that have a result for every seed, the closest to Retrain first."""
    complete = [row for row in rows if row.group == group and GAP in row.cells and row.finished == row.asked]
    return sorted(complete, key=lambda row: row.cells[GAP].mean)


def _best(group: str, meaning: str, rows: Sequence[ComparisonRow]) -> str:
    from scipy.stats import t

    first, *others = _ranked(group, rows)
    within = [row.name for row in rows if row.group == group and row.within_floor]
    if within:
        names = ", ".join(within)
        return (
            f"Of the methods {meaning}, {names} {'is' if len(within) == 1 else 'are'} within the noise floor: no "
            "further from Retrain than a second Retrain may be. They are not ranked."
        )
    gap = first.cells[GAP]
    best = f"Of the methods {meaning}, {first.name} is closest to Retrain (mean gap {_text(gap)})"
    if not others:
        return f"{best}; no other has results for every seed."
    second = others[0].cells[GAP]
    runner_up = f"before {others[0].name} ({_text(second)})"
    if gap.std is None or second.std is None:
        return f"{best}, {runner_up}; with a single seed, whether another would give the same is not known."
    shared = sorted(first.gaps.keys() & others[0].gaps.keys())
    differences = [others[0].gaps[seed] - first.gaps[seed] for seed in shared]
    if len(differences) < 2:
        return f"{best}, {runner_up}; they share fewer than two seeds, so that no test can tell them apart."
    spread = stdev(differences)
    statistic = math.inf if spread == 0 else fmean(differences) / (spread / math.sqrt(len(differences)))
    chance = float(2 * t.sf(abs(statistic), len(differences) - 1)) if fmean(differences) else 1.0
    sure = "they differ" if chance < 0.05 else "they cannot be told apart"  # noqa: PLR2004 - the usual level
    shown = "p < 0.001" if chance < 0.001 else f"p = {chance:.3f}"  # noqa: PLR2004 - as many digits as are shown
    return f"{best}, {runner_up}; paired t-test over {len(differences)} seeds: {shown}, {sure}."


def render_comparison(record: Mapping[str, Any], table: ComparisonTable, pictures: Mapping[str, str]) -> str:
    """Return the report as HTML text.

    Args:
        record: The content of ``compare.json``.
        table: Its table.
        pictures: SVG documents by name.
    """
    case = explored_comparison(record, table)
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            record=record,
            table=table,
            verdict=comparison_verdict(table),
            floor=floor_sentences(table),
            results=results_lines(table),
            published=_published(table),
            figures={picture.name: picture for picture in figures(pictures)},
            heat=heat_map(case),
            changed=changed_samples(case),
            data=embedded(page_data([case])),
        )
    )


def explored_comparison(record: Mapping[str, Any], table: ComparisonTable) -> Explored:
    """Return what the page of a comparison needs besides its table.

    Args:
        record: The content of ``compare.json``.
        table: Its table.
    """
    cells = list(record["cells"].values())
    seeds = {
        name: [cell["seed"] for cell in cells if cell["name"] == name] for name in {cell["name"] for cell in cells}
    }
    commands = [
        compare_command(
            cell.get("command_line") or record["command_line"],
            cell["name"],
            sorted(seeds[cell["name"]]),
            record["threads"],
        )
        for cell in cells
    ]
    return Explored(
        table.title,
        table,
        [{**cell, "command": command} for cell, command in zip(cells, commands, strict=True)],
        record.get("class_names", ()),
        record["params"].get("classes", ()),
    )


def results_lines(table: ComparisonTable) -> dict[str, Any]:
    """Return headings (key, text) and rows of the table with every column, as the template of a page takes them."""
    keys = [*table.metrics, GAP, *table.costs]
    rows, last = [], ""
    for row in table.rows:
        cells = [(ACCEPTANCE, row.accepted, "")] if table.judged else []
        for key in keys:
            found = row.cells.get(key)
            digits = COSTS.get(key, DECIMALS)
            mark = " *" if key in row.closest else " (within the floor)" if key == GAP and row.within_floor else ""
            text = row.lacking if found is None else f"{found.mean:.{digits}f}{mark}"
            cells.append((key, text, "" if found is None or found.std is None else f"± {found.std:.{digits}f}"))
        group = "" if row.group == last else GROUP_NAMES[row.group]
        last = row.group
        rows.append(
            {"id": row_id(row), "label": row.name, "emphasis": GAP in row.closest, "group": group, "cells": cells}
        )
    headings = [*([(ACCEPTANCE, "Acceptance")] if table.judged else []), *((key, column_label(key)) for key in keys)]
    return {"headings": headings, "rows": rows}


def _published(table: ComparisonTable) -> dict[str, Any] | None:
    if table.published is None:
        return None
    keys = [*table.metrics, GAP]
    rows = []
    for row in table.rows:
        if row.published:
            found = [row.published.get(key) for key in keys]
            rows.append((row.name, False, [("-" if cell is None else _text(cell), "") for cell in found]))
    return {"headings": [column_label(key) for key in keys], "rows": rows}


def _text(statistic: Any) -> str:
    spread = "" if statistic.std is None else f" ± {statistic.std:.{DECIMALS}f}"
    return f"{statistic.mean:.{DECIMALS}f}{spread}"
