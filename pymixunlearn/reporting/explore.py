"""What a page of a comparison shows of each cell on demand: means, deviations, seeds, gaps, classes and the command.

Everything is written out here, so that the script of the page formats no number of the tables: what it shows is what
the tables and their CSV say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from pymixunlearn.display import printable
from pymixunlearn.reporting.comparison import (
    AGNOSTIC,
    AWARE,
    DECIMALS,
    GAP,
    MEMORY,
    REFERENCE,
    SECONDS,
    Cell,
    ComparisonRow,
    ComparisonTable,
    Statistic,
    group_of,
    megabytes,
)
from pymixunlearn.reporting.metrics_record import MODELS, SECOND, row_name
from pymixunlearn.reporting.table import column_label

GROUP_NAMES = {AWARE: "with labels", AGNOSTIC: "without labels"}
PRECISE = 4
"""Digits behind the point of what is shown on demand."""
MAX_CLASSES = 20
_OF_ROWS = {row_name(model): model for model in (*MODELS, SECOND) if model != "unlearned"}
_PARTS = {"forget": "forgotten", "retain": "remaining", "test": "test"}
_OPAQUE = 0.6
"""Of the strongest colour of the heat map, on which the numbers can still be read."""


@dataclass(frozen=True)
class Explored:
    """What a page needs of a comparison besides its table.

    Attributes:
        label: What is compared.
        table: The table.
        cells: The entries of ``compare.json``, their "name" as the rows of the table are called; "command" is the
            command that repeats the cells of the row.
        classes: Names of the classes; () where they are not known.
        forgotten: Indices of the classes to mark as forgotten.
    """

    label: str
    table: ComparisonTable
    cells: Sequence[Cell] = ()
    classes: Sequence[str] = ()
    forgotten: Sequence[int] = ()


class HeatMap(NamedTuple):
    """Accuracy of every class as a table: headings (key, name, whether forgotten), rows (id, name, cells), a remark.

    A cell is its key, text, and the strength of its colour.
    """

    headings: list[tuple[str, str, bool]]
    rows: list[tuple[str, str, list[tuple[str, str, float]]]]
    remark: str


def row_id(row: ComparisonRow) -> str:
    """Return what tells a row from the others of its table."""
    return f"{row.group}/{row.name}"


def called(row: ComparisonRow, table: ComparisonTable) -> str:
    """Return the name of a row, with its group where another group has a row of that name too."""
    return f"{row.name}, {GROUP_NAMES[row.group]}" if _is_twin(row, table) else row.name


def _is_twin(row: ComparisonRow, table: ComparisonTable) -> bool:
    """Whether the other group has a method of the same name."""
    return (
        row.group != REFERENCE and sum(other.group != REFERENCE and other.name == row.name for other in table.rows) > 1
    )


def embedded(content: Mapping[str, Any]) -> Markup:
    r"""Return JSON that can stand in a ``script`` element: no text in it can end the element or begin another.

    Example:
        >>> embedded({"name": "</script>"})
        Markup('{"name": "\\u003c/script\\u003e"}')
    """
    text = json.dumps(_shown(content), allow_nan=False, sort_keys=True)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def page_data(cases: Iterable[Explored]) -> dict[str, Any]:
    """Return what the script of a page needs of its comparisons, JSON-able."""
    return {"cases": [_case(case) for case in cases]}


def heat_map(case: Explored) -> HeatMap | None:
    """Return the test accuracy of every class and row; None where no cell says it.

    Of more than :data:`MAX_CLASSES` classes those are shown in which some row is farthest from Retrain.
    """
    found = {row_id(row): _by_class(row, case) for row in case.table.rows}
    found = {name: classes for name, classes in found.items() if any(classes)}
    if not found:
        return None
    retrain = found.get(f"{REFERENCE}/{row_name('retrain')}")
    chosen = list(range(len(case.classes)))
    if len(chosen) > MAX_CLASSES:
        farthest = {index: max(_distance(classes, retrain, index) for classes in found.values()) for index in chosen}
        chosen = sorted(sorted(chosen, key=lambda index: -farthest[index])[:MAX_CLASSES])
    rows = []
    for row in case.table.rows:
        classes = found.get(row_id(row))
        if classes is not None:
            cells = [_heat(index, classes[index]) for index in chosen]
            rows.append((row_id(row), called(row, case.table), cells))
    left_out = "" if len(chosen) == len(case.classes) else f"The {len(chosen)} of {len(case.classes)} classes in which "
    remark = f"{left_out}some row is farthest from Retrain." if left_out else ""
    headings = [(_class_key(index), case.classes[index], index in case.forgotten) for index in chosen]
    return HeatMap(headings, rows, remark)


class ChangedSamples(NamedTuple):
    """Samples of a row: its id and name, and lines: set, index, seed, label, three predictions, change."""

    row: str
    name: str
    lines: list[tuple[str, ...]]


def changed_samples(case: Explored) -> list[ChangedSamples]:
    """Return the samples whose predictions each method changed most: over its seeds, the same number as of one."""
    found = []
    for row in case.table.rows:
        if row.group == REFERENCE:
            continue
        _, done = _measured(row, case.cells)
        lines = []
        for part, name in _PARTS.items():
            lists = [(cell["seed"], (cell.get("most_changed") or {}).get(part, ())) for cell in done]
            every = [(seed, entry) for seed, entries in lists for entry in entries]
            every.sort(key=lambda item: (-item[1]["change"], item[0], item[1]["index"]))
            count = max((len(entries) for _, entries in lists), default=0)
            lines += [_changed(name, seed, entry, case.classes) for seed, entry in every[:count]]
        if lines:
            found.append(ChangedSamples(row_id(row), called(row, case.table), lines))
    return found


def _changed(part: str, seed: int, entry: Mapping[str, Any], classes: Sequence[str]) -> tuple[str, ...]:
    def named(label: int) -> str:
        return classes[label] if label < len(classes) else str(label)

    def predicted(model: str) -> str:
        return f"{named(entry[model][0])} ({entry[model][1]:.1f} %)" if model in entry else "-"

    predictions = (predicted(model) for model in ("initial", "unlearned", "retrain"))
    return (part, str(entry["index"]), str(seed), named(entry["label"]), *predictions, f"{entry['change']:.1f}")


def _case(case: Explored) -> dict[str, Any]:
    table = case.table
    seconds = table.rows[0].cells.get(SECONDS) if table.rows else None
    keys = [*table.metrics, GAP, *table.costs]
    return {
        "label": case.label,
        "metrics": [{"key": key, "label": column_label(key)} for key in keys],
        "seconds": None if seconds is None else seconds.mean,
        "floor": None if table.floor is None else [table.floor.low, table.floor.high],
        "rows": {row_id(row): _row(row, case) for row in table.rows},
    }


def _row(row: ComparisonRow, case: Explored) -> dict[str, Any]:
    model, done = _measured(row, case.cells)
    cells = {}
    for key in (*case.table.metrics, GAP, *case.table.costs):
        if key in row.cells:
            cells[key] = _metric(row, key, model, done)
    for index, values in enumerate(_by_class(row, case)):
        if values:
            retrain = _of_classes(done, "retrain", index)
            gaps = [] if model == "retrain" else [a - b for a, b in zip(values, retrain, strict=False)]
            cells[_class_key(index)] = {**_shown_values(values, 1), **_gap(gaps, 1, signed=True)}
    return {
        "name": called(row, case.table),
        "twin": _is_twin(row, case.table),
        "group": row.group,
        "decision": row.answer,
        "answers": row.accepted if row.decisions else "",
        "seeds": [cell["seed"] for cell in done],
        "asked": row.asked,
        "command": next((cell["command"] for cell in done if cell.get("command")), ""),
        "cells": cells,
    }


def _metric(row: ComparisonRow, key: str, model: str, done: Sequence[Cell]) -> dict[str, Any]:
    """Return a value of a row with what lies behind it: its seeds, its gap, and the intervals by the draw."""
    if key == SECONDS:
        return _shown_values([cell["seconds"].get(model) for cell in done], 1, row.cells[key])
    if key == MEMORY:
        return _shown_values([megabytes(cell, model) for cell in done], 0, row.cells[key])
    if key == GAP:
        return _shown_values(
            [((cell["gap"] or {}).get(model) or {}).get(GAP) for cell in done], DECIMALS, row.cells[key]
        )
    values = [cell["metrics"][model].get(key) for cell in done]
    gaps = [((cell["gap"] or {}).get(model) or {}).get(key) for cell in done]
    spans = [((cell.get("intervals") or {}).get(model) or {}).get(key) for cell in done]
    intervals = [None if span is None else f"{span[0]:.1f}–{span[1]:.1f}" for span in spans]
    return {
        **_shown_values(values, DECIMALS, row.cells[key]),
        **_gap(gaps, DECIMALS),
        **({"intervals": intervals} if any(intervals) else {}),
    }


def _gap(gaps: Sequence[float | None], digits: int, *, signed: bool = False) -> dict[str, Any]:
    return {"gap": _shown_values(gaps, digits, signed=signed)} if any(gap is not None for gap in gaps) else {}


def _shown_values(
    values: Sequence[float | None], digits: int, found: Statistic | None = None, *, signed: bool = False
) -> dict[str, Any]:
    """Return one value a seed as a mean with its deviation, as the tables write it and more precisely."""
    known = [value for value in values if value is not None]
    statistic = found or Statistic.of(known)
    std = statistic.std
    return {
        "value": statistic.mean,
        "text": _written(statistic.mean, digits, signed),
        "below": "" if std is None else f"± {std:.{digits}f}",
        "mean": _written(statistic.mean, PRECISE, signed),
        "std": None if std is None else f"{std:.{PRECISE}f}",
        "seeds": [None if value is None else _written(value, PRECISE, signed) for value in values],
    }


def _written(value: float, digits: int, signed: bool) -> str:
    """Write a number, with its sign if ``signed``; what is written as 0 has none."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if signed and float(text) == 0 else text


def _measured(row: ComparisonRow, cells: Sequence[Cell]) -> tuple[str, list[Cell]]:
    """Return the model that a row is about, and the cells that have measured it, one a seed."""
    done = [cell for cell in cells if cell["status"] == "finished"]
    if row.group != REFERENCE:
        own = [cell for cell in done if cell["name"] == row.name and group_of(cell) == row.group]
        return "unlearned", sorted(own, key=lambda cell: int(cell["seed"]))
    model = _OF_ROWS[row.name]
    by_seed = {cell["seed"]: cell for cell in reversed(done) if cell["metrics"].get(model) is not None}
    return model, [by_seed[seed] for seed in sorted(by_seed)]


def _by_class(row: ComparisonRow, case: Explored) -> list[list[float]]:
    """Return the test accuracies of a row by class, one a seed; nothing where a cell does not say them."""
    model, done = _measured(row, case.cells)
    return [_of_classes(done, model, index) for index in range(len(case.classes))] if done else []


def _of_classes(done: Sequence[Cell], model: str, index: int) -> list[float]:
    lists = [(cell.get("per_class") or {}).get(model) for cell in done]
    values = [None if found is None else found[index] for found in lists]
    return [value for value in values if value is not None]


def _distance(classes: Sequence[Sequence[float]], retrain: Sequence[Sequence[float]] | None, index: int) -> float:
    if retrain is None or not classes[index] or not retrain[index]:
        return 0.0
    return abs(Statistic.of(classes[index]).mean - Statistic.of(retrain[index]).mean)


def _heat(index: int, values: Sequence[float]) -> tuple[str, str, float]:
    if not values:
        return _class_key(index), "-", 0.0
    mean = Statistic.of(values).mean
    return _class_key(index), f"{mean:.1f}", round(_OPAQUE * mean / 100, 3)


def _class_key(index: int) -> str:
    return f"class{index}"


def _shown(content: Any) -> Any:
    """Return the content with texts from outside made safe to show, and None for numbers that JSON lacks."""
    if isinstance(content, Mapping):
        return {_shown(key): _shown(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_shown(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return printable(content) if isinstance(content, str) else content
