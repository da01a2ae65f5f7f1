"""Deletion list: sample indices with the ids that a request names them by.

The ids never leave the list: a split and a report hold their number and one sha256, which anyone who has the list can
compute again.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pymixunlearn.errors import UserError, unknown_name

if TYPE_CHECKING:
    from pymixunlearn.tasks.manifest import JSON

INDEX_COLUMN = "index"


@dataclass(frozen=True, eq=False)
class DeletionList:
    """Samples to forget, each with the id that the request names it by.

    Attributes:
        indices: ``N`` indices into the training set, in the file's order.
        id_column: The column that the ids are from.
        ids: ``N`` texts; several samples may have one id (all images of one person).

    Example:
        >>> from pymixunlearn import tasks
        >>> persons = tasks.DeletionList(indices=(3, 14), id_column="person", ids=("p7", "p7"))
        >>> persons.summary()["count"]
        1
    """

    indices: tuple[int, ...]
    id_column: str
    ids: tuple[str, ...]

    def summary(self) -> dict[str, JSON]:
        """Return what a manifest may hold of the ids: their column, the number of different ones, and their sha256."""
        return {"column": self.id_column, "count": len(set(self.ids)), "sha256": ids_sha256(self.ids)}


def ids_sha256(ids: Iterable[str]) -> str:
    """Return the sha256 (hex) of the different ids in ascending order of code points, one per line, in UTF-8."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(ids))).encode()).hexdigest()


def read_deletion_list(path: Path | str, id_column: str) -> DeletionList:
    r"""Read a CSV file with a heading, a column "index" and the column ``id_column``.

    Raises:
        UserError: The file is missing or cannot be read, lacks a column, or a row lacks an integer index or an id.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pymixunlearn import tasks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "request.csv"
        ...     _ = path.write_text("index,person\n3,p7\n14,p7\n")
        ...     tasks.read_deletion_list(path, "person").indices
        (3, 14)
    """
    path = Path(path)
    indices: list[int] = []
    ids: list[str] = []
    try:
        # Spreadsheets put a byte order mark before the first heading.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            headings = reader.fieldnames or []
            for name in (INDEX_COLUMN, id_column):
                if name not in headings:
                    raise UserError(f"'{path}': {unknown_name('column', name, headings)}")
            for row in reader:
                where = f"'{path}', line {reader.line_num}"
                indices.append(_index(row[INDEX_COLUMN], where))
                ids.append(_id(row[id_column], where))
    except UserError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"'{path}' cannot be read as a CSV file of samples: {reason}") from error
    return DeletionList(tuple(indices), id_column, tuple(ids))


def _index(text: str | None, where: str) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise UserError(f"{where}: an index must be an integer, got '{text or ''}'") from None


def _id(text: str | None, where: str) -> str:
    name = (text or "").strip()
    if not name:
        raise UserError(f"{where}: the id is empty")
    return name
