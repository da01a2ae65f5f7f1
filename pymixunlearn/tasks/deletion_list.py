"""Deletion list: samples to forget, by index or file, with the ids that a request names them by.

The ids never leave the list: a split and a report hold their number and one sha256, which anyone who has the list can
compute again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pymixunlearn.data.text_table import has_heading, parse_integer, read_table, read_text
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, reason_of
from pymixunlearn.tasks.indices import to_indices

if TYPE_CHECKING:
    from pymixunlearn.tasks.manifest import JSON

INDEX_COLUMN = "index"
FILE_COLUMN = "file"
ID_COLUMN = "id"

_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3}){1,2}")
"""Numbers joined by commas that may as well be one number below a milliard."""


@dataclass(frozen=True, eq=False)
class DeletionList:
    """Samples to forget, row by row.

    Attributes:
        indices: ``N`` indices into the training set, in the file's order; empty where rows name files or ids only.
        id_column: The column of the ids; None for a list without ids.
        ids: ``N`` texts; several samples may have one id (all images of one person), and one sample several. Without
            indices and files they are the data's own (``ImageSet.known_ids``), and every sample of one is meant.
        files: ``N`` paths or unique base names, of training, test or validation images; empty where rows give indices
            only.

    Raises:
        UserError: Columns of different lengths.

    Example:
        >>> from pymixunlearn import tasks
        >>> persons = tasks.DeletionList(indices=(3, 14), id_column="person", ids=("p7", "p7"))
        >>> len(persons), persons.summary()["count"]
        (2, 1)
    """

    indices: tuple[int, ...]
    id_column: str | None = None
    ids: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the lengths."""
        lengths = {name: len(getattr(self, name)) for name in ("indices", "ids", "files")}
        if len({length for length in lengths.values() if length}) > 1:
            raise UserError(f"indices, ids and files must be of one length, got {lengths}")

    def __len__(self) -> int:
        """Return the number of rows N."""
        return max(len(self.indices), len(self.files), len(self.ids))

    @property
    def by_id(self) -> bool:
        """Whether the samples are named by the data's own ids alone."""
        return bool(self.ids) and not self.indices and not self.files

    def summary(self) -> dict[str, JSON]:
        """Return what a manifest may hold of the ids: their column, the number of different ones, and their sha256."""
        return {"column": self.id_column, "count": len(set(self.ids)), "sha256": ids_sha256(self.ids)}


def ids_sha256(ids: Iterable[str]) -> str:
    """Return the sha256 (hex) of the different ids in ascending order of code points, one per line, in UTF-8."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(ids))).encode()).hexdigest()


def read_deletion_list(path: Path | str, id_column: str | None = None) -> DeletionList:
    r"""Read a list of samples to forget.

    ``.npy`` holds an integer array of one dimension, ``.json`` a list of integers. Any other file is text in UTF-8, or
    in UTF-16 with a byte order mark: indices, one per line or separated by commas; or a table with a heading, separated
    by commas, semicolons or tabs, with a column "index" or "file", or both; or with a column "id" alone, the data's own
    ids. What could be read in two ways is refused: ``1,000``, which may be one number, and several lines of as many
    numbers each, which look like a table.

    Args:
        path: The file.
        id_column: The table's column of ids; None for a list without, or for the column "id" of one by ids alone.

    Raises:
        UserError: The file is missing or cannot be read, lacks a column, or a row lacks an integer index, a file or an
            id; the message names the line. Or numbers without a heading may mean other samples than they seem to.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pymixunlearn import tasks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "request.csv"
        ...     _ = path.write_text("file;person\ncat/0.jpg;p7\ncat/1.jpg;p7\n")
        ...     tasks.read_deletion_list(path, "person").files
        ('cat/0.jpg', 'cat/1.jpg')
    """
    path = Path(path)
    where = f"'{path}'"
    suffix = path.suffix.lower()
    try:
        if id_column is None and suffix == ".npy":
            return DeletionList(_read_array(path))
        text = read_text(path)
        if id_column is None and suffix == ".json":
            return DeletionList(tuple(to_indices(json.loads(text), where).tolist()))
    except UserError:
        raise
    except (OSError, ValueError, EOFError, RecursionError) as error:
        kind = "file of indices" if id_column is None else "CSV file of samples"
        raise UserError(f"{where} cannot be read as a {kind}: {reason_of(error)}") from error
    if id_column is None and has_heading(text, [ID_COLUMN]) and not has_heading(text, [INDEX_COLUMN, FILE_COLUMN]):
        id_column = ID_COLUMN
    columns = [INDEX_COLUMN, FILE_COLUMN, *([] if id_column is None else [id_column])]
    if id_column is not None or has_heading(text, columns):
        return _read_rows(text, columns, id_column, where)
    return DeletionList(tuple(_read_words(text, where)))


def _read_array(path: Path) -> tuple[int, ...]:
    array = np.load(path, allow_pickle=False)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"'{path}' must hold integers in one dimension, got {array.dtype} of shape {list(array.shape)}")
    return tuple(array.tolist())


def _read_words(text: str, where: str) -> list[int]:
    indices: list[int] = []
    lengths: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{where}, line {number}"
        for word in line.split():
            if _THOUSANDS.fullmatch(word):
                raise UserError(
                    f"{place}: '{word}' may be one index with a thousands comma, or several; write one index on each "
                    "line, or a space after each comma"
                )
        if line.lstrip().startswith(","):
            raise UserError(f"{place}: expected an index before the first comma, got '{printable(line)}'")
        words = line.replace(",", " ").split()
        indices += (_read_word(word, place) for word in words)
        lengths += [len(words)] if words else []
    if len(lengths) > 1 and lengths[0] > 1 and len(set(lengths)) == 1:
        raise UserError(
            f"{where} has {len(lengths)} lines of {lengths[0]} numbers each and no heading, so that it is not clear "
            f"which of them are indices; a table needs a heading with '{INDEX_COLUMN}' or '{FILE_COLUMN}', a list has "
            "one index on each line or all on one"
        )
    return indices


def _read_word(word: str, place: str) -> int:
    try:
        return parse_integer(word, place)
    except UserError as error:
        if not any(letter.isalpha() for letter in word):
            raise
        raise UserError(f"{error}; files are listed under a heading '{FILE_COLUMN}'") from error


def _read_rows(text: str, columns: list[str], id_column: str | None, where: str) -> DeletionList:
    by_file = not has_heading(text, [INDEX_COLUMN]) and has_heading(text, [FILE_COLUMN])
    by_id = id_column is not None and not by_file and not has_heading(text, [INDEX_COLUMN])
    required = [*([] if by_id else [FILE_COLUMN if by_file else INDEX_COLUMN]), *columns[2:]]
    indices: list[int] = []
    files: list[str] = []
    ids: list[str] = []
    for cells, line in read_table(text, columns, required, where):
        place = f"{where}, line {line}"
        if not by_file and not by_id:
            indices.append(parse_integer(cells[INDEX_COLUMN], place))
        if by_file or FILE_COLUMN in cells:
            _filled(cells[FILE_COLUMN], "file", place)
            files.append(cells[FILE_COLUMN])  # as it is: a name may begin or end with a space
        if id_column is not None:
            ids.append(_filled(cells.get(id_column, ""), "id", place))
    if files and indices and len(files) != len(indices):
        raise UserError(
            f"{where}: {len(indices) - len(files)} rows lack a file; expected one in each, or no such column"
        )
    return DeletionList(tuple(indices), id_column, tuple(ids), tuple(files))


def _filled(text: str, what: str, where: str) -> str:
    name = text.strip()
    if not name:
        raise UserError(f"{where}: the {what} is empty")
    return name


def read_indices(path: Path | str) -> Tensor:
    r"""Read sample indices from a file, in the file's order; see :func:`read_deletion_list` for its forms.

    Returns:
        int64 ``[N]``.

    Raises:
        UserError: The file is missing, cannot be read, or holds anything but integers.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pymixunlearn import tasks
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "forget.txt"
        ...     _ = path.write_text("3, 14\n159\n")
        ...     tasks.read_indices(path)
        tensor([  3,  14, 159])
    """
    request = read_deletion_list(path)
    if request.files:
        raise UserError(f"'{path}' names files; expected indices alone, or read it with read_deletion_list")
    return to_indices(list(request.indices), f"'{path}'")
