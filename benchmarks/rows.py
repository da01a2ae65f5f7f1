"""The CSV file of a benchmark: what is in it is not measured again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Rows:
    """Rows of a CSV file, each written as soon as it is measured.

    Attributes:
        rows: What is in the file, as text.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Read the file, if it is there."""
        self._path, self._columns = path, tuple(columns)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def find(self, **key: object) -> dict[str, str] | None:
        """Return the row that has these values, if it is there."""
        return next((row for row in self.rows if all(row[name] == str(value) for name, value in key.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; what it lacks is left empty."""
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        # As they are read again: the writer leaves None empty.
        self.rows.append({name: "" if row.get(name) is None else str(row[name]) for name in self._columns})
