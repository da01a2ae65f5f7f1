"""Tables over the exhibits that were run."""

from __future__ import annotations

import csv
from pathlib import Path

from click.testing import CliRunner

from benchmarks.paper_tables import count_finished, gaps, main, read_cells, summary

ROOT = Path(__file__).parents[2]
HEAD = ("case", "row", "labels", "seed", "model", "status", "mean_gap", "acceptance", "seconds")
INITIAL = {0: "refused", 1: "cannot tell"}


def write(folder: Path, name: str, cells: dict[tuple[str, str, int], tuple[str, str, str] | None]) -> None:
    """Write a ``table.csv``: case, row and seed to mean gap, acceptance and seconds, or None where it was not run."""
    (folder / name).mkdir()
    with (folder / name / "table.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(HEAD)
        for (case, row, seed), values in cells.items():
            start = (case, row, "aware", seed)
            if values is None:
                lines.writerow((*start, "unlearned", "not run", "", "", ""))
                continue
            lines.writerow((*start, "initial", "finished", "20", INITIAL[seed], "5"))
            lines.writerow((*start, "unlearned", "finished", *values))
            lines.writerow((*start, "retrain", "finished", "", "accepted", "10"))
            lines.writerow((*start, "second_retrain", "finished", "1", "accepted", "10"))


def lines_of(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_only_cells_that_the_test_can_tell_are_counted_and_missing_ones_are_named(tmp_path: Path) -> None:
    one = {
        ("a", "good", 0): ("1", "accepted", "2"),
        ("a", "good", 1): ("4", "accepted", "4"),
        ("b", "good", 0): None,
        ("b", "bad", 0): ("7", "refused", "30"),
    }
    write(tmp_path, "table1", one)
    write(tmp_path, "table2", {("a", "good", 0): ("3", "cannot tell", "9")})
    cells = read_cells(tmp_path)
    counted = lines_of(summary(cells))
    assert counted["good"] == ["aware", "1", "0", "1", "2", "3.0"]
    assert counted["bad"] == ["aware", "0", "1", "0", "1", "7.0"]
    assert counted["initial"][1:5] == ["0", "3", "0", "3"]
    near = lines_of(gaps(cells, "table1"))
    assert near["good"] == ["aware", "2.5 ± 2.1 (2)", "not run"]
    assert near["bad"] == ["aware", "not run", "7.0"]
    assert near["second Retrain"] == ["", "1.0 ± 0.0 (2)", "1.0"]
    assert count_finished(tmp_path) == 4
    printed = CliRunner().invoke(main, [str(tmp_path)])
    assert printed.exit_code == 0 and "table2, samples forgotten" in printed.output


def test_the_page_shows_what_was_measured() -> None:
    page = (ROOT / "docs" / "reproduction.md").read_text("utf-8")
    folder = ROOT / "benchmarks" / "results" / "paper"
    cells = read_cells(folder)
    for table in (summary(cells), *(gaps(cells, name) for name in {cell.exhibit for cell in cells})):
        assert table in page
    assert f"Of the plan's 327 cells {count_finished(folder)} were run" in page
