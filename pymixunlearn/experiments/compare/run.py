"""Run of a comparison: cells that are not finished yet are run, and after each of them the tables are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.frames import frame, run_row
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import RecordFolder, RunFolder, read_json
from pymixunlearn.experiments.compare.cells import MAX_CLASSES, CellResult, entry_of, recorded, run_cells
from pymixunlearn.experiments.compare.plan import Cell, ComparisonPlan, default_comparison_folder
from pymixunlearn.experiments.compare.published import find_published
from pymixunlearn.experiments.unlearn.figures import PICTURES
from pymixunlearn.experiments.unlearn.report import HTML
from pymixunlearn.files import write_atomically
from pymixunlearn.reporting import upgraded
from pymixunlearn.reporting.comparison import ComparisonTable, comparison_table
from pymixunlearn.reporting.comparison_html import comparison_pictures, render_comparison
from pymixunlearn.reporting.formats import to_csv, to_latex, to_markdown

RECORD = "compare.json"
CELLS = "cells"


@dataclass(frozen=True)
class ComparisonOutcome:
    """Result of a comparison: its folder, the content of its ``compare.json``, and its table."""

    folder: Path
    record: dict[str, Any]
    table: ComparisonTable

    @property
    def finished(self) -> int:
        """How many cells have a result."""
        return sum(cell["status"] == "finished" for cell in self.record["cells"].values())

    def to_frame(self) -> Any:
        """Return the comparison as a pandas data frame, one row for each method and seed.

        The columns are "name", "seed", "status" and "reason", and for finished cells those of a run.

        Raises:
            UserError: pandas is not installed.
        """
        shared = {key: self.record[key] for key in ("dataset", "task")}
        rows = []
        for cell in self.record["cells"].values():
            own = {key: cell.get(key) for key in ("name", "seed", "status", "reason")}
            rows.append({**own, **shared, **(run_row(cell) if cell.get("metrics") else {})})
        return frame(rows)


def run_comparison(
    plan: ComparisonPlan,
    out: Path | None = None,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    retry_failed: bool = False,
    observer: Observer | None = None,
    command_line: str = "",
) -> ComparisonOutcome:
    """Run every cell that is not finished, and write ``compare.json``, the tables and ``report.html``.

    The folder may hold the results of other methods and seeds for the same case: they stay, and are in the tables.

    Args:
        plan: What to do, from :func:`pymixunlearn.experiments.compare.plan.resolve_comparison`.
        out: The folder; :func:`default_comparison_folder` if None.
        jobs: How many processes work at once; with 1 it is this one. A script that sets more must be importable
            without running (``if __name__ == "__main__"``), as for all of Python's multiprocessing. None is 1, and on
            Ray as many tasks as there is room for.
        threads: CPU threads of each; None takes what the folder was begun with, otherwise 1 where several work at once
            and PyTorch's number where one does.
        retry_failed: Run cells again that failed before.
        observer: Receives the progress as the phase "compare", and a note for every cell that ends.
        command_line: The command that repeats the comparison, for the record.

    Raises:
        UserError: The folder holds something else or cannot be written, another process is at work in it, or it was
            begun with other ``threads``; or a number is below 1.
    """
    for name, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and number < 1:
            raise UserError(f"{name} is {number}; expected at least 1")
    where = plan.inputs.placement
    watcher = Observer() if observer is None else observer
    folder = RecordFolder(default_comparison_folder(plan) if out is None else out, RECORD, "comparison")
    with folder.held():
        alone = not where.is_ray and jobs in (None, 1)
        record = _begin(plan, folder, threads or (torch.get_num_threads() if alone else 1), threads, command_line)
        cells = record["cells"]
        missing = [cell for cell in plan.cells if _is_missing(cell, folder.path, cells, retry_failed)]

        def ended(cell: Cell, result: CellResult) -> None:
            entry = entry_of(cell, result, f"{CELLS}/{cell.key}")
            cells[cell.key] = {**entry, "command_line": command_line}
            _write(folder, record)

        for cell in missing:
            cells[cell.key] = entry_of(cell, CellResult("unfinished", reason="not run yet"), f"{CELLS}/{cell.key}")
        _write(folder, record)
        run_cells(
            missing,
            lambda cell: folder.path / CELLS / cell.key,
            phase="compare",
            total=len(plan.cells),
            jobs=jobs,
            threads=record["threads"],
            placement=where,
            command_line=record["command_line"],
            watcher=watcher,
            ended=ended,
        )
        table = _write(folder, record)
        _report(folder.path, record, table)
        return ComparisonOutcome(folder.path, record, table)


def _is_missing(cell: Cell, folder: Path, known: Mapping[str, Any], retry_failed: bool) -> bool:
    """Whether a cell is to be run; its folder is checked at the same time, so that a conflict stops nothing midway."""
    before = known.get(cell.key, {})
    if cell.plan is not None:
        run_folder = RunFolder(folder / CELLS / cell.key, cell.plan.identity)
        if run_folder.finished:
            # Finished, but the record may have been lost with the process that was to write it.
            return bool(before.get("status") != "finished")
    failed = before.get("status") == "failed" and before.get("identity") == cell.identity_hash()
    return retry_failed or not failed


def _begin(
    plan: ComparisonPlan, folder: RecordFolder, default: int, threads: int | None, command_line: str
) -> dict[str, Any]:
    """Return the record that the folder holds, or a new one; a new one has ``default`` threads."""
    held = folder.read(plan.identity)
    if held and threads not in (None, held["threads"]):
        raise UserError(
            f"output folder '{folder.path}' was begun with {held['threads']} threads, not {threads}, and other threads "
            "round differently; leave the threads out, or choose another with --out"
        )
    return {
        **plan.identity,
        "threads": held.get("threads") or default,
        "command_line": command_line,
        "versions": versions(),
        **_class_names(plan),
        "cells": {key: _known(cell, folder.path) for key, cell in held.get("cells", {}).items()},
    }


def _class_names(plan: ComparisonPlan) -> dict[str, Any]:
    """Return the names of the classes under "class_names"; nothing where cells do not say the accuracy of each."""
    split = next(cell.plan.split for cell in plan.cells if cell.plan is not None)
    names = list(split.train.classes)
    return {"class_names": names} if len(names) <= MAX_CLASSES else {}


def _known(cell: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a cell of the record that the folder holds; of an earlier one, with what its run folder has besides."""
    metrics = folder / cell["folder"] / "metrics.json"
    if cell["status"] != "finished" or "per_class" in cell or not metrics.is_file():
        return upgraded(cell)
    return {**upgraded(cell), **recorded(upgraded(read_json(metrics)))}


def _report(folder: Path, record: Mapping[str, Any], table: ComparisonTable) -> None:
    """Draw the pictures and write ``report.html``."""
    drawn = comparison_pictures(table)
    for picture in drawn:
        picture.save(folder / PICTURES)
    html = render_comparison(record, table, {picture.name: picture.svg() for picture in drawn})
    write_atomically(folder / HTML, html.encode())


def _write(folder: RecordFolder, record: Mapping[str, Any]) -> ComparisonTable:
    """Write the record and the tables, each whole or not at all."""
    paper = find_published(record)
    table = comparison_table(record) if paper is None else comparison_table(record, paper.rows, paper.source)
    texts = {
        "table.md": to_markdown(table),
        "table.csv": to_csv(table),
        "table.tex": to_latex(table),
    }
    folder.write(record, texts)
    return table
