"""`request export`: the entries of a ledger as JSON lines that verify alone; no images, no names, no paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError, reason_of
from pymixunlearn.experiments.common.provenance import utc_now
from pymixunlearn.experiments.common.signing import EXPORT, Signer
from pymixunlearn.experiments.request.entries import Entry
from pymixunlearn.experiments.request.inputs import ExportInputs
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.files import canonical_json, json_sha256, write_atomically

EXPORT_FORMAT = "pymixunlearn-ledger-export/1"


@dataclass(frozen=True)
class Export:
    """An export that was read back: its first line, and the entries."""

    header: Mapping[str, Any]
    entries: tuple[Entry, ...]


def run_export(inputs: ExportInputs) -> str:
    """Return the text of an export, and write it if there is a file to write to.

    The first line states how many entries there are and the hash of the last, so that none can be dropped.

    Raises:
        UserError: There is no ledger, it is damaged, or the file cannot be written.
    """
    signer = None if inputs.sign_key is None else Signer(inputs.sign_key)
    ledger = Ledger(inputs.ledger, inputs.ledger_dir)
    state, entries = ledger.state(), ledger.store.entries()
    header: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "entries": state.length,
        "head": state.head,
        "key_id": state.init["key_id"],
        "written": utc_now(),
    }
    if signer is not None:
        about = {"entries": state.length, "head": state.head}
        header["signature"] = signer.sign(EXPORT, "export of a ledger", header_sha256(header), about)
    lines = [canonical_json(header)]
    for entry in entries:
        signature = {} if entry.signature is None else {"signature": entry.signature}
        lines.append(canonical_json({"content": entry.text, "sha256": entry.sha256, **signature}))
    text = "".join(f"{line}\n" for line in lines)
    if inputs.out is not None:
        write_atomically(inputs.out, text.encode())
    return text


def header_sha256(header: Mapping[str, Any]) -> str:
    """Return the hash of an export's first line without its signature."""
    return json_sha256({name: value for name, value in header.items() if name != "signature"})


def read_export(path: Path) -> Export:
    """Read an export.

    Raises:
        UserError: The file cannot be read, or is none.
    """
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        header, *rest = lines
        if not isinstance(header, dict) or header.get("format") != EXPORT_FORMAT:
            raise ValueError(f"expected a first line of the format '{EXPORT_FORMAT}'")
        entries = tuple(Entry(str(line["content"]), str(line["sha256"]), line.get("signature")) for line in rest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(f"'{path}' cannot be read as an export of a ledger: {reason}") from error
    return Export(header, entries)
