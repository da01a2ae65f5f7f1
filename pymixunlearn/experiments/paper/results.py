"""Results of an experiment: what its record says, as the tables of an exhibit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pymixunlearn.experiments.compare.cells import MAX_CLASSES
from pymixunlearn.experiments.compare.published import published_tables, same_network
from pymixunlearn.experiments.paper.exhibit import Exhibit, read_exhibit
from pymixunlearn.experiments.paper.plan import ExhibitCase, ExperimentPlan
from pymixunlearn.experiments.unlearn.plan import Plan
from pymixunlearn.reporting import comparison_table
from pymixunlearn.reporting.comparison import AGNOSTIC, AWARE, REFERENCE, Numbers
from pymixunlearn.reporting.exhibit import CaseResult, ExhibitReport
from pymixunlearn.reporting.narrowing import experiment_command

NOT_RUN: Literal["not run"] = "not run"
"""Status of a cell that was not asked for, or whose data are not there."""
_PRESETS = {
    "tuned": "Settings are the shipped presets where there are some, and the methods' defaults elsewhere, all fixed "
    "before the first run.",
    "paper": "Settings are the paper's, and the middle of each of its grids where it gives no choice.",
    "none": "Settings are the methods' defaults.",
}
_ATTACKS = {
    "default": "ASR is made in this package's own way and is not comparable with the paper's.",
    "paper": "ASR is made as by the code that the paper follows.",
}

_TRAINING_IMAGES = {"cifar10": 50_000, "svhn": 73_257, "mnist": 60_000, "fashion-mnist": 60_000, "imagenet": 40_000}
"""What the paper trains on; ImageNet's are four fifths of the validation images."""


def exhibit_report(plan: ExperimentPlan, record: Mapping[str, Any]) -> ExhibitReport:
    """Return the tables of an experiment, and what has to be said with them.

    Args:
        plan: The experiment.
        record: The content of its ``experiment.json``.
    """
    exhibit = plan.exhibit
    cases, sources = [], set[str]()
    for case in plan.cases:
        result, source = _case_result(exhibit, case, record)
        cases.append(result)
        sources |= set() if source is None else {source}
    return ExhibitReport(
        title=exhibit.title,
        facts=tuple(_facts(plan, record)),
        notes=tuple(_notes(plan, record)),
        cases=tuple(cases),
        published=", ".join(sorted(sources)) or None,
        command_line=record["command_line"],
    )


def cells_of(case: ExhibitCase, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a case."""
    return [record["cells"][cell.key] for cell in case.cells]


def finished(case: ExhibitCase, record: Mapping[str, Any], row: str | None = None) -> list[dict[str, Any]]:
    """Return the entries of a case, or of a row of it, that have a result, by seed."""
    cells = [cell for cell in cells_of(case, record) if cell["status"] == "finished" and row in (None, cell["name"])]
    return sorted(cells, key=lambda cell: int(cell["seed"]))


def _case_result(exhibit: Exhibit, case: ExhibitCase, record: Mapping[str, Any]) -> tuple[CaseResult, str | None]:
    example = case.example
    if case.reason is not None or not isinstance(example, Plan):
        return CaseResult(case.key, case.label, "" if case.reason else _context(case), None, case.reason), None
    published, source = published_numbers(exhibit, case)
    identity = example.identity
    about = {
        **{key: identity[key] for key in ("task", "params", "architecture")},
        "dataset": case.label,
        "command_line": record["command_line"],
        "cells": {cell["name"] + str(cell["seed"]): cell for cell in cells_of(case, record)},
    }
    table = comparison_table(about, published, source, [row.key for row in exhibit.rows])
    labels = {row.key: row.label for row in exhibit.rows}
    intervals = dict(_intervals(case, record, labels))
    shown = replace(
        table, rows=tuple(replace(row, name=labels.get(row.name, row.name)) for row in table.rows), notes=()
    )
    found = CaseResult(
        case.key,
        case.label,
        _context(case),
        shown,
        None,
        intervals,
        tuple(_named(case, cell, labels, record) for cell in cells_of(case, record)),
        tuple(record.get("class_names", {}).get(case.key, ())),
        tuple(identity["params"].get("classes", ())),
    )
    return found, source if published else None


def _named(
    case: ExhibitCase, cell: Mapping[str, Any], labels: Mapping[str, str], record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an entry under its row's label, with the command that repeats the cells of the row."""
    command = experiment_command(record["command_line"], case.key, cell["name"], record["threads"])
    return {**cell, "name": labels[cell["name"]], "command": command}


def class_names(plan: ExperimentPlan) -> dict[str, list[str]]:
    """Return the names of the classes of each case whose cells say the accuracy of each class."""
    plans = {case.key: case.example for case in plan.cases if case.reason is None}
    names = {key: list(example.split.train.classes) for key, example in plans.items() if isinstance(example, Plan)}
    return {key: classes for key, classes in names.items() if len(classes) <= MAX_CLASSES}


def published_numbers(exhibit: Exhibit, case: ExhibitCase) -> tuple[dict[str, Numbers] | None, str | None]:
    """Return the paper's numbers of a case, and where they stand: beside its own protocol only, otherwise none.

    What is forgotten, the data and how many there are, the network and both trainings have to be the paper's; its
    numbers of the membership attack are left out unless ours is made in the same way.
    """
    example = case.example
    if exhibit.scale != "paper" or exhibit.published is None or not isinstance(example, Plan):
        return None, None
    shipped = read_exhibit(exhibit.published, "paper")
    if case.data not in shipped.data or case.task not in shipped.tasks:
        return None, None
    if len(example.split.dataset.train) != _TRAINING_IMAGES[case.data.key]:
        return None, None
    if case.data.key == "imagenet":
        alike = exhibit.settings == shipped.settings
    else:
        alike = same_network({**example.identity, "dataset": case.data.key})
    source, tables = published_tables(exhibit.published)
    if not alike or case.key not in tables:
        return None, None
    hidden = () if exhibit.asr == "paper" else ("asr",)
    return {
        row: {metric: cell for metric, cell in cells.items() if cell is not None and metric not in hidden}
        for row, cells in tables[case.key].items()
    }, source


def _intervals(
    case: ExhibitCase, record: Mapping[str, Any], labels: Mapping[str, str]
) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """Yield group and name of the rows that have one seed, and their 95 % intervals."""
    cells = finished(case, record)
    names = {"retrain": "Retrain", "second_retrain": "second Retrain", "initial": "initial"}
    if len({cell["seed"] for cell in cells}) == 1:
        for model, name in names.items():
            yield (REFERENCE, name), (cells[0].get("intervals") or {}).get(model) or {}
    for key, label in labels.items():
        own = [cell for cell in cells if cell["name"] == key]
        if len(own) == 1:
            group = AWARE if own[0]["label_aware"] else AGNOSTIC
            yield (group, label), (own[0].get("intervals") or {}).get("unlearned") or {}


def _context(case: ExhibitCase) -> str:
    """Say which network saw which images."""
    example = case.example
    if example is None:
        return ""
    dataset = example.split.dataset if isinstance(example, Plan) else example.dataset
    size = dataset.preprocess.size or dataset.train.images.shape[-1]
    text = f"{example.initial.name}, {len(dataset.train)} training images of {size} x {size} pixels"
    if isinstance(example, Plan):
        text += f", {len(example.split.forget)} of them forgotten, {len(dataset.test)} test images"
    return f"{text}; {case.data.note}" if case.data.note else text


def _facts(plan: ExperimentPlan, record: Mapping[str, Any]) -> Iterator[str]:
    exhibit = plan.exhibit
    seeds = ", ".join(map(str, exhibit.seeds))
    yield f"Scale {exhibit.scale}: {exhibit.about} Seed{'s' if len(exhibit.seeds) > 1 else ''} {seeds}."
    if any(isinstance(case.example, Plan) for case in plan.cases):
        yield f"{_PRESETS[exhibit.preset]} {_ATTACKS[exhibit.asr]}"
    if exhibit.note:
        yield exhibit.note
    yield (
        f"On {record['device']}, {record['threads']} thread{'' if record['threads'] == 1 else 's'} each"
        + {None: ", as many cells at once as the cluster had room for.", 1: "."}.get(
            record["jobs"], f", {record['jobs']} cells at once."
        )
    )


def _notes(plan: ExperimentPlan, record: Mapping[str, Any]) -> Iterator[str]:
    """Say why cells have no result, seeds of one reason together."""
    left_out = 0
    for case in plan.cases:
        reasons: dict[tuple[str, str, str], list[str]] = {}
        labels = {row.key: row.label for row in plan.exhibit.rows}
        for planned, cell in zip(case.cells, cells_of(case, record), strict=True):
            if cell["status"] == "finished" or not planned.available:
                continue
            if not planned.selected:
                left_out += 1
                continue
            reasons.setdefault((labels[cell["name"]], cell["status"], cell["reason"]), []).append(str(cell["seed"]))
        for (name, status, reason), seeds in reasons.items():
            yield f"{case.label}, {name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}, {status}: {reason}"
        models: dict[int, set[str]] = {}
        for cell in finished(case, record):
            if cell.get("gap") is not None:
                models.setdefault(cell["seed"], set()).add(cell["hashes"]["retrain"])
        for seed, hashes in models.items():
            if len(hashes) > 1:
                yield f"{case.label}, seed {seed}: its cells were compared with {len(hashes)} different Retrain models"
    if left_out:
        yield f"{left_out} cell{'s were' if left_out > 1 else ' was'} left out by --only."
