"""Text of a list as people save it: in any usual encoding, and as a table with any usual separator."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, unknown_name

# UTF-32 comes first, since its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n")  # as Excel writes before a table
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


class Row(NamedTuple):
    """Row of a table: its cells by column, in the columns' order, and the line that it ends in."""

    cells: dict[str, str]
    line: int


def read_text(path: Path) -> str:
    """Read a text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is in no such encoding, or no text.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not in {encoding.upper()}, at byte {error.start}; save it in UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds NUL characters; save it in UTF-8, or in UTF-16 with a byte order mark")
    return text


def parse_integer(text: str, where: str) -> int:
    """Return an integer of ASCII digits with an optional sign; neither ``1_0`` nor ``1,000`` nor ``1.0`` is one.

    Raises:
        UserError: It is not an integer of 64 bits.
    """
    word = text.strip()
    if not _INTEGER.fullmatch(word) or abs(int(word)) >= 2**63:
        raise UserError(f"{where}: an index must be an integer, got '{printable(text)}'")
    return int(word)


def has_heading(text: str, columns: Iterable[str]) -> bool:
    """Return whether the first line names one of ``columns``."""
    return bool(_heading(_first_line(_without_separator_line(text)[0]), columns)[1])


def read_table(text: str, columns: Iterable[str], required: Iterable[str], where: str) -> Iterator[Row]:
    """Read a table with a heading, separated by commas, semicolons or tabs.

    Args:
        text: The table.
        columns: Names that tell the separator; a heading in other case is one of them.
        required: Those of them that must be there.
        where: Names the file in errors.

    Raises:
        UserError: A column is missing or is there twice, a row has more cells than the heading, or quotes do not match.
    """
    columns = list(columns)
    text, stated, skipped = _without_separator_line(text)
    separator, _ = _heading(_first_line(text), columns)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=stated or separator, strict=True)
    try:
        heading = [_column(cell, columns) for cell in next(reader, [])]
        for name in required:
            if name not in heading:
                raise UserError(f"{where}: {unknown_name('column', name, heading)}")
        for name in columns:
            if heading.count(name) > 1:
                raise UserError(f"{where}: the column '{name}' is there {heading.count(name)} times; expected one")
        for cells in reader:
            line = reader.line_num + skipped
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(heading):
                raise UserError(f"{where}, line {line}: expected {len(heading)} cells, got {len(cells)}")
            yield Row(dict(zip(heading, cells, strict=False)), line)
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num + skipped}: {error}") from error


def _without_separator_line(text: str) -> tuple[str, str | None, int]:
    stated = _SEPARATOR_LINE.match(text)
    return (text[stated.end() :], stated[1], 1) if stated else (text, None, 0)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip("\r")


def _heading(line: str, columns: Iterable[str]) -> tuple[str, int]:
    """Return the separator that shows the most of ``columns`` in a heading, or else the commonest, and how many."""

    def known(separator: str) -> int:
        cells = next(csv.reader([line], delimiter=separator), [])
        return sum(_column(cell, columns) in columns for cell in cells)

    best = max(_SEPARATORS, key=lambda separator: (known(separator), line.count(separator)))
    return best, known(best)


def _column(cell: str, columns: Iterable[str]) -> str:
    name = cell.strip()
    return next((column for column in columns if column == name or column == name.lower()), name)
