"""Tables of what growth costs, from the file that :mod:`benchmarks.growth` wrote.

    python -m benchmarks.growth_tables benchmarks/results/growth-cpu.csv

The exponent is the slope of log seconds (or bytes) against log size through the largest three points, with those of
its two halves as its spread: what does not grow weighs least there. The constant is where the straight line through
all points, weighted by 1 / seconds, is at size 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from benchmarks.growth import AXES, PREDICTED
from benchmarks.rows import Rows

Row = dict[str, str]
SMALLEST_BYTES = 5_000_000
"""A part that never adds more has no exponent: such sizes are an allocator's steps."""
FITTED = 3
"""Points that an exponent is fitted through, the largest ones."""


class Growth(NamedTuple):
    """How a quantity grows.

    Attributes:
        exponent: Slope of its logarithm through the largest three sizes.
        low: The smaller slope of their two halves.
        high: The larger one.
        constant: The straight line through all of them at size 0.
    """

    exponent: float
    low: float
    high: float
    constant: float

    def __str__(self) -> str:
        """Return the exponent with its spread."""
        return f"{self.exponent:.2f} ({self.low:.2f} to {self.high:.2f})"


def fitted(sizes: Sequence[float], values: Sequence[float]) -> Growth:
    """Fit what is above 0 at every size."""
    x, y = np.log(np.asarray(sizes[-FITTED:])), np.log(np.asarray(values[-FITTED:]))
    halves = np.diff(y) / np.diff(x)
    line = np.polyfit(sizes, values, 1, w=1 / np.asarray(values))
    return Growth(float(np.polyfit(x, y, 1)[0]), float(halves.min()), float(halves.max()), float(line[1]))


def added(row: Row) -> float:
    """Return by how many bytes a part's peak is above the memory of a process that is ready to begin."""
    return float(row["peak_bytes"]) - float(row["idle_bytes"] or 0)


def series(rows: Iterable[Row], axis: str, part: str) -> list[Row]:
    """Return the rows of a part, by size."""
    found = [row for row in rows if (row["axis"], row["part"], row["repeat"]) == (axis, part, "1")]
    return sorted((row for row in found if int(row["size"]) in AXES[axis]), key=lambda row: int(row["size"]))


def measured_axes(rows: Sequence[Row]) -> list[str]:
    """Return the axes with enough points for an exponent."""
    return [axis for axis in AXES if len({row["size"] for row in rows if row["axis"] == axis}) >= FITTED]


def table(cells: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table of a heading and lines, whose first column alone is text."""
    heading, *lines = (tuple(map(str, line)) for line in cells)
    under = ("---", *("---:" for _ in heading[1:]))
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, under, *lines))


def axis_table(rows: Sequence[Row], axis: str) -> str:
    """Return how seconds and bytes of every part grow along an axis."""
    sizes = [int(row["size"]) for row in series(rows, axis, next(part for of, part in PREDICTED if of == axis))]
    first, last = (f"{size:_}".replace("_", " ") for size in (sizes[0], sizes[-1]))
    heading = ("part", f"s at {first}", f"at {last}", "constant", "predicted", "exponent")
    heading += (f"MB at {first}", f"at {last}", "predicted", "exponent")
    lines: list[tuple[object, ...]] = [heading]
    for (of, part), predicted in PREDICTED.items():
        if of != axis:
            continue
        found = series(rows, axis, part)
        seconds, extra = [float(row["seconds"]) for row in found], [added(row) for row in found]
        time = fitted(sizes, seconds)
        space = fitted(sizes, extra) if min(extra) > 0 and max(extra) >= SMALLEST_BYTES else "-"
        lines.append(
            (
                part,
                f"{seconds[0]:.2f}",
                f"{seconds[-1]:.2f}",
                f"{time.constant:.2f}",
                f"{predicted[0]:g}",
                time,
                f"{extra[0] / 1e6:.0f}",
                f"{extra[-1] / 1e6:.0f}",
                f"{predicted[1]:g}",
                space,
            )
        )
    return table(lines)


def file_table(rows: Sequence[Row]) -> str:
    """Return the kilobytes of the files that a run leaves, by classes."""
    of = {(row["part"], int(row["size"])): row["file_bytes"] for row in rows if row["axis"] == "classes"}
    names = dict.fromkeys(name for (name, _), content in of.items() if content)
    sizes = sorted({size for _, size in of})
    lines: list[tuple[object, ...]] = [("kB", *(f"{size} classes" for size in sizes))]
    lines += [
        (f"`{name.removeprefix('file ')}`", *(f"{int(of[name, size]) / 1000:.0f}" for size in sizes)) for name in names
    ]
    return table(lines)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
def main(file: Path) -> None:
    """Print all tables."""
    rows = Rows(file, ()).rows
    for axis in measured_axes(rows):
        click.echo(f"\n{axis}\n\n{axis_table(rows, axis)}")
    click.echo(f"\n{file_table(rows)}")


if __name__ == "__main__":
    main()
