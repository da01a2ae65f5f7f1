"""Data set of a table beside its images: a row has a file and a label, and perhaps a part of the data and an id."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.decoding import Files, decode_files
from pymixunlearn.data.listing import Member, file_reader, shown
from pymixunlearn.data.optional import require
from pymixunlearn.data.registry import Request, register_source
from pymixunlearn.data.rows import Row, dataset_of_rows
from pymixunlearn.data.text_table import read_table, read_text
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, reason_of, unknown_name

FILE = ("file", "path", "filename", "file_name", "image")
LABEL = ("label", "class", "target", "category")
PART = ("split", "part", "set", "subset")
ID = "id"


@register_source("table")
def load_table(request: Request) -> Dataset:
    """Load the images that a table names, in the table's order.

    The columns are ``file`` (a path from the table's folder on), ``label``, and, if they are there, ``split`` (train,
    test, validation) and ``id``; :data:`FILE`, :data:`LABEL` and :data:`PART` are other names that are understood.
    Without a column of parts, a fifth becomes the test set by a hash of the file's path.
    """
    path = request.data_dir
    assert path is not None
    where = f"'{printable(str(path))}'"
    rows = list(_rows(path, request, where))
    if not rows:
        raise UserError(f"{where} has no rows; expected a heading and one row for each image")
    _check_once(rows, where)
    root = path.parent
    _check_files(root, rows, where, follow_links=request.follow_links)
    try:
        found = decode_files(_files(root, rows, where), request)
    except OSError as error:
        raise UserError(f"the images of {where} cannot be read ({error})") from error
    return dataset_of_rows(rows, found, request, where, notes=found.details)


def _rows(path: Path, request: Request, where: str) -> Iterator[Row]:
    columns = (*FILE, *LABEL, *PART, request.id_column or ID)
    cells = _parquet_rows(path, where) if path.suffix.lower() == ".parquet" else _text_rows(path, columns, where)
    names: dict[str, str | None] | None = None
    for line, values in cells:
        if names is None:
            names = _columns(values, request.id_column, where)
        place = f"{where}, row {line}" if path.suffix.lower() == ".parquet" else f"{where}, line {line}"
        file = _even(_cell(values, names["file"], place))
        yield Row(
            file,
            _cell(values, names["label"], place),
            None if names["part"] is None else _cell(values, names["part"], place),
            None if names["id"] is None else _cell(values, names["id"], place),
            file,
        )


def _text_rows(path: Path, columns: Iterable[str], where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read as a table: {reason_of(error)}") from error
    for cells, line in read_table(text, columns, (), where):
        yield line, cells


def _parquet_rows(path: Path, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    parquet = require(
        "pyarrow.parquet",
        purpose=f"the table {where}",
        remedy="pip install 'pymixunlearn[parquet]', or give a CSV file",
    )
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow raises errors of its own, OSError and ValueError
        raise UserError(f"{where} cannot be read as a Parquet table: {reason_of(error)}") from error
    yield from enumerate(table.to_pylist(), start=1)


def _columns(values: Mapping[str, Any], id_column: str | None, where: str) -> dict[str, str | None]:
    """Find the columns by their names, in any case."""
    by_name: dict[str, str] = {}
    for name in values:
        by_name.setdefault(str(name).strip().lower(), name)

    def find(known: tuple[str, ...]) -> str | None:
        return next((by_name[name] for name in known if name in by_name), None)

    found: dict[str, str | None] = {"file": find(FILE), "label": find(LABEL), "part": find(PART), "id": find((ID,))}
    if id_column is not None:
        if id_column not in values:
            raise UserError(f"{where}: {unknown_name('column', id_column, map(str, values))}")
        found["id"] = id_column
    for kind, known in (("file", FILE), ("label", LABEL)):
        if found[kind] is None:
            raise UserError(
                f"{where} has the columns {shown(values)}; expected a column of {kind}s, named {' or '.join(known)}"
            )
    return found


def _cell(values: Mapping[str, Any], column: str | None, place: str) -> str:
    assert column is not None
    value = values.get(column)
    text = "" if value is None else str(value).strip()
    if not text:
        raise UserError(f"{place}: the column '{printable(column)}' is empty")
    return text


def _even(path: str) -> str:
    """Path with the separators, ``./`` and ``..`` evened out, so that a file has one name."""
    return posixpath.normpath(path.replace("\\", "/"))


def _check_once(rows: Iterable[Row], where: str) -> None:
    seen: set[str] = set()
    twice = [row.name for row in rows if row.name in seen or seen.add(row.name)]  # type: ignore[func-returns-value]
    if twice:
        raise UserError(f"{where} names {shown(twice)} in more than one row; expected each file once")


def _check_files(root: Path, rows: Iterable[Row], where: str, *, follow_links: bool) -> None:
    """Check that no file is elsewhere, unless links may be followed, nor there under two names.

    What is forgotten by one of its names would stay under the other.
    """
    real_root = os.path.realpath(root) + os.sep
    real = {row.name: os.path.realpath(root / row.name) for row in rows}
    first: dict[str, str] = {}
    for name, place in real.items():
        if first.setdefault(place, name) != name:
            raise UserError(f"{where} names one file twice, as {shown([first[place], name])}; expected each file once")
    outside = [name for name, place in real.items() if not place.startswith(real_root)]
    if outside and not follow_links:
        raise UserError(
            f"{where} names files that are not below its folder: {shown(outside)}; allow them with follow_links "
            "(--follow-links), or move the table"
        )


def _files(root: Path, rows: Iterable[Row], where: str) -> Files:
    names = sorted(row.name for row in rows)
    digest = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape"))
    for name in names:
        try:
            status = (root / name).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # told when it is read, together with all others
            state = "missing"
        digest.update(f"\n{name} {state}".encode("utf-8", "surrogateescape"))

    def finished(decoded: list[str]) -> list[str]:
        if not decoded:
            raise UserError(f"{where} names no image that can be read")
        return []

    return Files(
        where=where,
        key=f"table {digest.hexdigest()}",
        members=lambda: (Member(PurePosixPath(name), 0, file_reader(root / name)) for name in names),
        total=len(names),
        shown=lambda name: f"'{printable(str(root / name))}'",
        finished=finished,
    )
