"""Rows of measurements, objects of one dataclass, as a CSV file under the names of its fields."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from pymixunlearn.errors import UserError
from pymixunlearn.files import write_atomically

R = TypeVar("R")

_PARSERS = {"str": str, "int": int, "float": float, "float | None": float, "int | None": int}


def columns(row_class: type[Any]) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(field.name for field in fields(row_class))


def read_rows(path: Path, row_class: type[R]) -> list[R]:
    """Read rows of one dataclass.

    Raises:
        UserError: The file cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != columns(row_class):
        raise UserError(f"'{path}' is not a file of measurements; expected the columns {', '.join(columns(row_class))}")
    try:
        return [_parsed(record, row_class) for record in reader]
    except (TypeError, ValueError) as error:
        raise UserError(f"'{path}' is not a file of measurements: {error} in line {reader.line_num}") from error


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write rows; the file appears whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns(type(rows[0])))
    writer.writerows([_text(value) for value in asdict(row).values()] for row in rows)
    write_atomically(path, stream.getvalue().encode())


def _parsed(record: dict[str, str], row_class: type[R]) -> R:
    values: dict[str, Any] = {}
    for field in fields(row_class):  # type: ignore[arg-type]
        text, kind = record[field.name], str(field.type)
        values[field.name] = None if text == "" and kind.endswith("None") else _PARSERS[kind](text)
    return row_class(**values)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
