"""The report of a run folder, made from the files in it: ``report.html`` to read, ``report.json`` to check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.model_config import MODEL_CONFIG
from pymixunlearn.experiments.common.provenance import utc_now
from pymixunlearn.experiments.common.run_folder import read_json, write_json
from pymixunlearn.experiments.common.signing import DELETION, Signer
from pymixunlearn.experiments.unlearn.figures import PICTURES
from pymixunlearn.experiments.unlearn.original_form import ORIGINAL_FORM
from pymixunlearn.files import file_sha256, write_atomically
from pymixunlearn.reporting import RECORD, deletion_record, render_report, upgraded

HTML = "report.html"
SIGNATURE = "report.dsse.json"
"""The signature of ``report.json``."""
AUDIT = "audit.json"
PURGE = "purge.json"
SOURCES = ("config.json", "split.json", CHECKPOINT, "history.csv", "metrics.json")
"""What every run folder holds besides its report."""
FILES = (*SOURCES, MODEL_CONFIG, PICTURES, HTML, RECORD)
"""What a finished run folder holds."""


def write_report(folder: Path) -> None:
    """Write ``report.html`` and ``report.json`` of a run folder, or renew them after an audit or a purge of the cache.

    Raises:
        UserError: A file that they are made from is missing or damaged, or the folder cannot be written.
    """
    config, split = (read_json(folder / name) for name in ("config.json", "split.json"))
    record = upgraded(read_json(folder / "metrics.json"))
    audit, purge = (read_further(folder, name) for name in (AUDIT, PURGE))
    html = render_report(config, record, split, read_pictures(folder), audit, purge)
    write_atomically(folder / HTML, html.encode())
    hashes = {name: file_sha256(folder / name) for name in guarded_files(folder)}
    (folder / SIGNATURE).unlink(missing_ok=True)  # it is of the record as it was
    times = {**record["times"], "written": utc_now()}
    write_json(
        folder / RECORD, deletion_record(config, record, split, times=times, hashes=hashes, audit=audit, purge=purge)
    )


def sign_report(folder: Path, signer: Signer) -> None:
    """Sign a run's ``report.json``, which states the hash of every other file but the key: its envelope goes beside it.

    Raises:
        UserError: The record cannot be read, or the folder cannot be written.
    """
    record = read_json(folder / RECORD)
    about = {"models": record["models"], "chain": record.get("chain")}
    write_json(folder / SIGNATURE, signer.sign(DELETION, RECORD, file_sha256(folder / RECORD), about))


def sign_again(folder: Path, key: Path | None) -> None:
    """Sign a record with a private key, if there is one: renewing a record takes its signature away."""
    if key is not None:
        sign_report(folder, Signer(key))


def read_further(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the content of ``audit.json`` or ``purge.json``; None where the run has none."""
    return read_json(folder / name) if (folder / name).is_file() else None


def read_pictures(folder: Path) -> dict[str, str]:
    """Return the SVG documents of a run folder by name, in the order of the report."""
    return {path.stem: path.read_text("utf-8") for path in _in_order(folder / PICTURES)}


def guarded_files(folder: Path) -> Iterator[str]:
    """Yield the names of the files that the record states hashes of."""
    yield from SOURCES
    yield HTML
    if (folder / MODEL_CONFIG).is_file():  # 0.1.0 wrote none
        yield MODEL_CONFIG
    for inner in (PICTURES, ORIGINAL_FORM):
        for path in sorted((folder / inner).glob("*")):
            yield path.relative_to(folder).as_posix()
    yield from (name for name in (AUDIT, PURGE) if (folder / name).is_file())


def _in_order(folder: Path) -> list[Path]:
    """Return the SVG files as a reader wants to see them: results first, mixes and curves last."""
    kinds = ("forgotten", "margins", "losses", "classes", "confusion", "representations", "mixes", "curves")
    phases = ("initial", "original", "unlearned", "stopping", "rollback", "retrain", "Retrain", "second_retrain")

    def place(path: Path) -> tuple[int, int, str]:
        kind, _, phase = path.stem.partition("-")
        return kinds.index(kind), phases.index(phase) if phase in phases else len(phases), phase

    return sorted(folder.glob("*.svg"), key=place)
