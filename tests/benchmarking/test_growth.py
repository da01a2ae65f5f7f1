"""What growth costs: the fit, and the tables that are made of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.growth import AXES, COLUMNS, PREDICTED, Point, points
from benchmarks.growth_tables import axis_table, fitted, measured_axes
from benchmarks.rows import Rows

SIZES = AXES["classes"]


def test_a_power_is_found_with_its_spread() -> None:
    found = fitted(SIZES, [3 * size**1.5 for size in SIZES])
    assert found.low == pytest.approx(1.5) and found.high == pytest.approx(1.5)
    assert str(found) == "1.50 (1.50 to 1.50)"


def test_a_constant_weighs_least_in_the_exponent_and_is_told() -> None:
    found = fitted(SIZES, [1 + 0.1 * size for size in SIZES])
    assert found.constant == pytest.approx(1)
    assert found.low < found.exponent < found.high < 1


def test_a_table_says_what_the_file_says(tmp_path: Path) -> None:
    results = Rows(tmp_path / "growth.csv", COLUMNS)
    for size in SIZES:
        for part in (part for axis, part in PREDICTED if axis == "classes"):
            peak = 50_000_000 + 1_000_000 * size if part == "evaluation" else 50_000_000
            row = {"axis": "classes", "size": size, "repeat": 1, "part": part, "peak_bytes": peak}
            results.add({**row, "idle_bytes": 50_000_000, "seconds": size / 20})
    rows = Rows(tmp_path / "growth.csv", COLUMNS).rows
    lines = axis_table(rows, "classes").splitlines()
    assert lines[0].startswith("| part | s at 10 | at 160 | constant |")
    (evaluation,) = (line for line in lines if line.startswith("| evaluation |"))
    assert "| 0.50 | 8.00 | " in evaluation and evaluation.endswith("| 10 | 160 | 1 | 1.00 (1.00 to 1.00) |")
    (data,) = (line for line in lines if line.startswith("| data |"))
    assert data.endswith("| 0 | 0 | 0 | - |")
    assert measured_axes(rows) == ["classes"]


def test_every_axis_grows_by_a_factor_of_16_with_all_else_fixed() -> None:
    assert all(len(sizes) == 5 and 15.9 < sizes[-1] / sizes[0] < 16.3 for sizes in AXES.values())
    for axis in ("classes", "parameters"):
        own = [point for point in points() if point.axis == axis and point.size in AXES[axis]]
        of = [(point.images, point.classes, point.width) for point in own]
        assert [len(set(values)) for values in zip(*of, strict=True)].count(1) == 2
    assert Point("classes", 40).images == Point("classes", 80).images
