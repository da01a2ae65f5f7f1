"""Markdown tables of what :mod:`benchmarks.forgetting` measured.

    python -m benchmarks.forgetting_tables benchmarks/results/forgetting-cpu.csv --from-seed 20

"Told" cells are those in which the acceptance test refuses the initial model; elsewhere it can tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.rows import Rows

Row = dict[str, str]
SECOND = "second retrain"
BESIDE = ("retrain", SECOND, "initial")
"""What stands beside the methods."""
GENERATORS = ("mixunlearn", "mixunlearn-reset")
"""Methods that mix images."""


def table(rows: list[Row]) -> str:
    """Return one line for each row."""
    heading = (
        "network, task, seed", "model", "decision", "distance, after resurfacing (bound)", "gap", "test", "seconds",
        "of Retrain",
    )  # fmt: skip
    lines = []
    for row in sorted(rows, key=lambda row: (row["model"], row["task"], int(row["seed"]))):
        after = f"{float(row['ks_resurfaced']):.3f}" if row["ks_resurfaced"] else "-"  # refused at once, by far
        distances = f"{float(row['ks']):.3f}, {after} ({float(row['bound']):.3f})"
        cell = (f"{row['model']}, {row['task']}, {row['seed']}", row["subject"], row["decision"], distances)
        times = (f"{float(row['seconds']):.1f}", f"{100 * _share(row):.0f} %") if row["seconds"] else ("", "")
        lines.append((*cell, f"{float(row['gap']):.1f}", f"{test_of(row):.1f}", *times))
    return _markdown(heading, lines)


def summary(rows: list[Row]) -> str:
    """Return one line for each network, task and subject, over the seeds."""
    heading = (
        "network, task", "model", "accepted", "seconds", "of Retrain's time", "mean gap", "test less Retrain's",
    )  # fmt: skip
    cells, lines = Cells.of(rows), []
    for (name, task, subject), same in _grouped(rows, "model", "task", "subject"):
        timed = [row for row in same if row["seconds"]]
        seconds = _range([float(row["seconds"]) for row in timed], ".0f") if timed else ""
        shares = f"{_range([100 * _share(row) for row in timed], '.0f')} %" if timed else ""
        gaps = _range([float(row["gap"]) for row in same], ".1f")
        tests = _range([test_of(row) - test_of(cells.beside(row, "retrain")) for row in same], "+.1f")
        told = cells.told(same)
        lines.append((f"{name}, {task}", subject, _count(told, accepted), seconds, shares, gaps, tests))
    return _markdown(heading, lines)


def aims(rows: list[Row]) -> str:
    """Return one line for each subject, over all told cells: how often what was demanded was reached."""
    heading = (
        "model", "accepted", "and below Retrain's time", "and at most a third of it", "gap within the second Retrain's",
        "test not below by more than the second Retrain's differs",
    )  # fmt: skip
    cells, lines = Cells.of(rows), []
    for (subject,), same in _grouped(rows, "subject"):
        told = cells.told(same)
        if subject in BESIDE or not told:
            continue
        counts = [
            accepted,
            lambda row: accepted(row) and _share(row) < 1,
            lambda row: accepted(row) and _share(row) <= 1 / 3,
        ]
        beside = [
            lambda row: float(row["gap"]) <= float(cells.beside(row, SECOND)["gap"]),
            lambda row: cells.lost(row) <= abs(cells.lost(cells.beside(row, SECOND))),
        ]
        floored = [row for row in told if cells.has(row, SECOND)]
        near = (_count(floored, holds) if floored else "-" for holds in beside)
        lines.append((subject, *(_count(told, holds) for holds in counts), *near))
    return _markdown(heading, lines)


def masks(rows: list[Row]) -> str:
    """Return one line for each network, task and form with a generator, over the seeds.

    Negative in the last column: the generator's loss lies below that of plain mixup of the same pairs at the same
    ratio.
    """
    heading = (
        "network, task", "model", "distance of the mean from the ratio", "deviation inside a mask", "between masks",
        "loss less plain mixup's",
    )  # fmt: skip
    lines = []
    for (name, task, subject), same in _grouped(rows, "model", "task", "subject"):
        mixing = [row for row in same if subject.partition(",")[0] in GENERATORS and row["generator"]]
        if mixing:
            values = [_range([float(row[key]) for row in mixing], ".3f") for key in _MASKS]
            less = _range([float(row["generator"]) - float(row["generator_vanilla"]) for row in mixing], "+.2f")
            lines.append((f"{name}, {task}", subject, *values, less))
    return _markdown(heading, lines)


_MASKS = ("mask_error", "mask_within", "mask_between")


class Cells(NamedTuple):
    """Rows by network, task, seed and subject."""

    found: dict[tuple[str, str, str, str], Row]

    @classmethod
    def of(cls, rows: list[Row]) -> Cells:
        """Index rows."""
        return cls({(row["model"], row["task"], row["seed"], row["subject"]): row for row in rows})

    def beside(self, row: Row, subject: str) -> Row:
        """Return another subject's row of the same cell."""
        return self.found[row["model"], row["task"], row["seed"], subject]

    def has(self, row: Row, subject: str) -> bool:
        """Return whether the same cell has a row of another subject."""
        return (row["model"], row["task"], row["seed"], subject) in self.found

    def told(self, rows: list[Row]) -> list[Row]:
        """Return those rows in whose cell the test refuses the initial model."""
        return [row for row in rows if self.beside(row, "initial")["decision"] == "refused"]

    def lost(self, row: Row) -> float:
        """Return by how many points the test accuracy lies below Retrain's."""
        return test_of(self.beside(row, "retrain")) - test_of(row)


def accepted(row: Row) -> bool:
    """Whether the test accepts the model."""
    return row["decision"] == "accepted"


def test_of(row: Row) -> float:
    """Return the accuracy on test images, where a class is forgotten on those of the other classes."""
    return float(row["test"] or row["test_r"])


def _share(row: Row) -> float:
    return float(row["share_of_retrain"])


def _grouped(rows: list[Row], *keys: str) -> Iterable[tuple[tuple[str, ...], list[Row]]]:
    """Yield rows that agree in the columns, networks and tasks by name, subjects in the order of the file."""
    subjects = [*BESIDE, *dict.fromkeys(row["subject"] for row in rows)]
    ordered = sorted(rows, key=lambda row: (row["model"], row["task"], subjects.index(row["subject"])))
    if keys == ("subject",):
        ordered = sorted(rows, key=lambda row: subjects.index(row["subject"]))
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in ordered:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups.items()


def _count(rows: list[Row], holds: Callable[[Row], bool]) -> str:
    return f"{sum(map(holds, rows))} of {len(rows)}"


def _range(values: list[float], form: str) -> str:
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _markdown(heading: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, ("---",) * len(heading), *lines))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--from-seed", type=int, default=0, show_default=True, help="The lowest seed.")
@click.option("--to-seed", type=int, help="The highest seed.  [default: the file's]")
def main(file: Path, from_seed: int, to_seed: int | None) -> None:
    """Print the tables."""
    rows = [row for row in Rows(file, ()).rows if from_seed <= int(row["seed"])]
    rows = [row for row in rows if to_seed is None or int(row["seed"]) <= to_seed]
    for made in (summary, aims, masks):
        click.echo(made(rows) + "\n")


if __name__ == "__main__":
    main()
