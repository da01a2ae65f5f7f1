"""Run of an experiment: cells that no exhibit has finished are run, and its tables and figures made of all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import RecordFolder, RunFolder
from pymixunlearn.experiments.compare.cells import CellResult, entry_of, run_cells
from pymixunlearn.experiments.paper.figures import FIGURE, Drawn, draw_figure
from pymixunlearn.experiments.paper.plan import ExhibitCell, ExperimentPlan
from pymixunlearn.experiments.paper.results import NOT_RUN, class_names, exhibit_report
from pymixunlearn.experiments.unlearn.report import HTML
from pymixunlearn.files import json_sha256, write_atomically
from pymixunlearn.reporting import upgraded
from pymixunlearn.reporting.exhibit import ExhibitReport, exhibit_as_csv, exhibit_as_latex, exhibit_as_markdown
from pymixunlearn.reporting.exhibit_html import render_exhibit

RECORD = "experiment.json"
STORE = Path("runs") / "cells"
"""Where the run folders of all experiments lie, unless another folder is given."""


@dataclass(frozen=True)
class ExperimentOutcome:
    """Result of an experiment: its folder, the content of its ``experiment.json``, its tables, and its files."""

    folder: Path
    record: dict[str, Any]
    report: ExhibitReport
    files: tuple[str, ...]

    @property
    def finished(self) -> int:
        """How many cells have a result."""
        return sum(cell["status"] == "finished" for cell in self.record["cells"].values())


def default_experiment_folder(plan: ExperimentPlan) -> Path:
    """Return ``runs/NAME-SCALE``."""
    return Path("runs") / f"{plan.exhibit.name}-{plan.exhibit.scale}"


def run_experiment(
    plan: ExperimentPlan,
    out: Path | None = None,
    *,
    cells: Path | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    retry_failed: bool = False,
    observer: Observer | None = None,
    command_line: str = "",
) -> ExperimentOutcome:
    """Run every cell that is not finished, and write ``report.html``, tables, figures and ``experiment.json``.

    Args:
        plan: What to do, from :func:`pymixunlearn.experiments.paper.plan.resolve_experiment`.
        out: The folder; :func:`default_experiment_folder` if None.
        cells: Where the run folders lie, each named by what determines its outcome: experiments that share the folder
            share the runs. :data:`STORE` if None.
        jobs: How many processes work at once; with 1 it is this one. A script that sets more must be importable
            without running (``if __name__ == "__main__"``), as for all of Python's multiprocessing. None is 1, and on
            Ray as many tasks as there is room for.
        threads: CPU threads of each; None is 1 where several work at once and PyTorch's number where one does.
        retry_failed: Run cells again that failed before.
        observer: Receives the progress as the phase "cells", and a note for every cell that ends.
        command_line: The command that repeats the experiment, for the record.

    Raises:
        UserError: A folder holds something else or cannot be written, another process is at work in it, or a number is
            below 1.
    """
    for name, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and number < 1:
            raise UserError(f"{name} is {number}; expected at least 1")
    where = plan.inputs.placement
    alone = not where.is_ray and jobs in (None, 1)
    watcher = Observer() if observer is None else observer
    store = STORE if cells is None else cells
    folder = RecordFolder(default_experiment_folder(plan) if out is None else out, RECORD, "experiment")
    with folder.held():
        held = folder.read(plan.identity)
        number = threads or (torch.get_num_threads() if alone else 1)
        record: dict[str, Any] = {
            **plan.identity,
            "definition": asdict(plan.exhibit),
            "threads": number,
            "jobs": 1 if alone else jobs,
            "command_line": command_line,
            "versions": versions(),
            "class_names": class_names(plan),
            "cells": {},
            "figure": held.get("figure"),
        }
        missing = _fill(plan, record, held, store, folder.path, retry_failed)
        groups = _same(plan, number)

        def ended(cell: ExhibitCell, result: CellResult) -> None:
            for same in groups[_name(cell, number)]:
                record["cells"][same.key] = _entry(same, result, store, folder.path, number)
            _write(folder, plan, record)

        _write(folder, plan, record)
        run_cells(
            missing,
            lambda cell: store / str(cell.run_folder(number)),
            phase="cells",
            total=len(groups),
            jobs=jobs,
            threads=number,
            placement=where,
            command_line=command_line,
            watcher=watcher,
            ended=ended,
        )
        return _finish(plan, record, folder, watcher)


def _finish(plan: ExperimentPlan, record: dict[str, Any], folder: RecordFolder, watcher: Observer) -> ExperimentOutcome:
    """Draw the figure, unless it was drawn of the same results before, and write everything."""
    figures, csv = _figure(plan, record, folder.path, watcher)
    report = _write(folder, plan, record, csv)
    pictures = {name: (folder.path / f"{name}.svg").read_text("utf-8") for name in figures}
    html = render_exhibit(report, record, pictures)
    write_atomically(folder.path / HTML, html.encode())
    names = (HTML, "table.md", "table.tex", "table.csv", *([] if csv is None else [f"{FIGURE}.csv"]))
    return ExperimentOutcome(folder.path, record, report, (*names, *(f"{name}.svg" for name in figures)))


def _figure(
    plan: ExperimentPlan, record: dict[str, Any], folder: Path, watcher: Observer
) -> tuple[list[str], str | None]:
    """Return the names of the pictures and the text of their numbers; none for a table."""
    made_of = {key: cell["identity"] for key, cell in record["cells"].items() if cell["status"] == "finished"}
    sha256, before = json_sha256(made_of), record["figure"] or {}
    if before.get("sha256") == sha256 and all((folder / f"{name}.svg").is_file() for name in before["names"]):
        file = folder / f"{FIGURE}.csv"
        return before["names"], file.read_text("utf-8") if file.is_file() else None
    try:
        drawn = draw_figure(plan, record, folder, watcher)
    except UserError as error:  # the tables are worth having all the same
        watcher.note(f"The figure is not drawn: {error}.")
        drawn = Drawn()
    for picture in drawn.pictures:
        picture.save(folder)
    for name, svg in drawn.copies.items():
        write_atomically(folder / f"{name}.svg", svg.encode())
    names = [*(picture.name for picture in drawn.pictures), *drawn.copies]
    record["figure"] = {"sha256": sha256, "names": names}
    return names, drawn.csv


def _fill(
    plan: ExperimentPlan,
    record: dict[str, Any],
    held: Mapping[str, Any],
    store: Path,
    folder: Path,
    retry_failed: bool,
) -> list[ExhibitCell]:
    """Enter what is known of every cell; return those to run, of equal ones the first."""
    missing: dict[str, ExhibitCell] = {}
    threads = record["threads"]
    for cell in plan.cells:
        known = _known(cell, store, threads)
        before = held.get("cells", {}).get(cell.key, {})
        failed = before.get("status") == "failed" and before.get("identity") == cell.identity_hash()
        if known is not None:
            result = known
        elif not cell.available:
            result = CellResult(NOT_RUN, reason=cell.reason)
        elif not cell.selected:
            result = CellResult(NOT_RUN, reason="left out")
        elif failed and not retry_failed:
            result = CellResult("failed", reason=before["reason"])
        else:
            result = CellResult("unfinished", reason="not run yet")
            missing.setdefault(_name(cell, threads), cell)
        record["cells"][cell.key] = _entry(cell, result, store, folder, threads)
    return list(missing.values())


def _known(cell: ExhibitCell, store: Path, threads: int) -> CellResult | None:
    """Return the result of a cell that some experiment has finished; a conflict in the folder is an error."""
    name = cell.run_folder(threads)
    if name is None or cell.plan is None:
        return None
    run = RunFolder(store / name, cell.plan.identity)
    return CellResult("finished", upgraded(run.read_json("metrics.json"))) if run.finished else None


def _same(plan: ExperimentPlan, threads: int) -> dict[str, list[ExhibitCell]]:
    """Return the cells that can be run, equal ones together."""
    groups: dict[str, list[ExhibitCell]] = {}
    for cell in plan.cells:
        if cell.available and cell.selected:
            groups.setdefault(_name(cell, threads), []).append(cell)
    return groups


def _name(cell: ExhibitCell, threads: int) -> str:
    """Return what tells a cell from others: its run folder, or its own name where it cannot start."""
    return cell.run_folder(threads) or cell.key


def _entry(cell: ExhibitCell, result: CellResult, store: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Return what ``experiment.json`` says about a cell."""
    name = cell.run_folder(threads)
    place = "" if name is None else Path(os.path.relpath(store / name, folder)).as_posix()
    return {"case": cell.case, **entry_of(cell, result, place)}


def _write(
    folder: RecordFolder, plan: ExperimentPlan, record: Mapping[str, Any], csv: str | None = None
) -> ExhibitReport:
    """Write the record and the tables, each whole or not at all."""
    report = exhibit_report(plan, record)
    tasks = {case.key: case.task.task for case in plan.cases}
    texts = {
        "table.md": exhibit_as_markdown(report),
        "table.tex": exhibit_as_latex(report),
        "table.csv": exhibit_as_csv(record["cells"], tasks),
    }
    folder.write(record, texts if csv is None else {**texts, f"{FIGURE}.csv": csv})
    return report
