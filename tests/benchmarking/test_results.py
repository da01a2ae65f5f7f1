"""The file of measurements, and comparisons of its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pymixunlearn.benchmarking import Machine
from pymixunlearn.benchmarking.ops import Case, ResultFile, read_results
from pymixunlearn.benchmarking.ops.comparison import compare
from pymixunlearn.benchmarking.ops.results import COLUMNS
from pymixunlearn.benchmarking.units import duration, share, size_of
from pymixunlearn.errors import UserError
from tests.benchmarking.measured import BASE, MACHINE, ROWS


def test_rows_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    ResultFile(path, MACHINE, 1.5).add(ROWS)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_results(path) == ROWS


def test_the_columns_are_the_promised_ones() -> None:
    promised = {"op", "pairing", "dtype", "size", "mode", "launch", "provider", "p20_ms", "p50_ms", "p80_ms", "ratio"}
    assert promised | {"bytes", "share_of_copy", "peak_bytes", "device", "versions"} <= set(COLUMNS)


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    ResultFile(path, MACHINE, 1.5).add(ROWS)
    results = ResultFile(path, MACHINE, 1.5)
    assert results.has(BASE.case, ["fused", "pytorch"], ["plain"])
    assert not results.has(BASE.case, ["fused", "compile"], ["plain"])
    assert not results.has(BASE.case, ["fused"], ["plain", "graph"])
    assert not results.has(Case("mask_mix", "zip", "small", "float32"), ["fused"], ["plain"])
    again = [replace(row, runs=99) for row in ROWS]
    other = replace(BASE, pairing="zip")
    results.add([other])
    results.add(again)
    assert read_results(path) == [other, *again]


@pytest.mark.parametrize(
    ("machine", "seconds", "message"),
    [
        (replace(MACHINE, threads=1), 1.5, "threads is 2, not 1"),
        (replace(MACHINE, device="Other"), 1.5, "device is Test processor, not Other"),
        (replace(MACHINE, versions="torch 0.1"), 1.5, "versions is torch 0.0"),
        (MACHINE, 0.3, r"seconds is 1\.5, not 0\.3"),
    ],
)
def test_measurements_do_not_mix(tmp_path: Path, machine: Machine, seconds: float, message: str) -> None:
    path = tmp_path / "rows.csv"
    ResultFile(path, MACHINE, 1.5).add(ROWS)
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        ResultFile(path, machine, seconds)
    assert path.read_bytes() == before


def test_what_is_no_result_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(UserError, match="cannot be read"):
        read_results(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_results(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="expected the columns op, pairing"):
        read_results(path)
    path.write_text(",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n")
    with pytest.raises(UserError, match="in line 2"):
        read_results(path)
    path.write_text(",".join(COLUMNS) + "\nmask_mix,grid\n")
    with pytest.raises(UserError, match="is not a file of measurements"):
        read_results(path)


def test_comparisons_know_who_won() -> None:
    (entry,) = compare(ROWS)
    assert entry.fused == BASE and entry.lost_to == ["pytorch"]
    assert [entry.ratio(name) for name in ("pytorch", "compile", "sdpa", "nobody")] == ["0.50", "-", "4.00", ""]


def test_numbers_are_written_with_units() -> None:
    assert [duration(value) for value in (0.00123, 0.25, 1.5, 150.0, 2500.0, None)] == [
        "1.23 µs",
        "250 µs",
        "1.50 ms",
        "150 ms",
        "2.50 s",
        "-",
    ]
    assert [size_of(value) for value in (0, 12, 1500, 12_345_678, 262_144_000, 3 * 10**9, None)] == [
        "0 B",
        "12 B",
        "1.50 kB",
        "12.3 MB",
        "262 MB",
        "3.00 GB",
        "-",
    ]
    assert [share(value) for value in (0.0123, 0.5, 1.75, None)] == ["1.2 %", "50 %", "175 %", "-"]
