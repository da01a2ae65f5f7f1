"""The report of a run folder, made from the files in it: ``report.html`` to read, ``report.json`` to check."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.folder import read_json, write_json
from pymixunlearn.experiments.models import CHECKPOINT
from pymixunlearn.experiments.provenance import file_sha256, utc_now
from pymixunlearn.reporting import RECORD, deletion_record, render_report
from pymixunlearn.training.files import write_atomically

HTML = "report.html"
AUDIT = "audit.json"
SOURCES = ("config.json", "split.json", CHECKPOINT, "history.csv", "metrics.json")
"""What every run folder holds besides its report."""


def write_report(folder: Path) -> None:
    """Write ``report.html`` and ``report.json`` of a run folder, or renew them after ``audit.json`` has come into it.

    Raises:
        UserError: A file that they are made from is missing or damaged, or the folder cannot be written.
    """
    config, record, split = (read_json(folder / name) for name in ("config.json", "metrics.json", "split.json"))
    audit = read_json(folder / AUDIT) if (folder / AUDIT).is_file() else None
    html = render_report(config, record, split, read_history(folder / "history.csv"))
    write_atomically(folder / HTML, html.encode())
    hashes = {name: file_sha256(folder / name) for name in guarded_files(folder)}
    times = {**record["times"], "written": utc_now()}
    write_json(folder / RECORD, deletion_record(config, record, split, times=times, hashes=hashes, audit=audit))


def guarded_files(folder: Path) -> Iterator[str]:
    """Yield the names of the files that the record states hashes of."""
    yield from SOURCES
    yield HTML
    if (folder / AUDIT).is_file():
        yield AUDIT


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the records of a ``history.csv``, numbers as floats; a quantity that a record lacks is not in it.

    Raises:
        UserError: The file is missing or is not one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [_numbers(row) for row in csv.DictReader(stream)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"run file '{path}' cannot be read ({error})") from error


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    return {name: value if name == "phase" else float(value) for name, value in row.items() if value != ""}
