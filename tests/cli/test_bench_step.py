"""``mixunlearn-cli bench step``: steps and parts of the cases asked for, on the screen and in the file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pymixunlearn.benchmarking.step.measure import PARTS

Invoke = Callable[..., Result]


def test_step_writes_the_rows_and_shows_them(invoke: Invoke) -> None:
    arguments = ("--device", "cpu", "--case", "cnn-28", "--batch-size", "2", "--seconds", "0.01", "--threads", "1")
    result = invoke("bench", "step", *arguments, "--out", "new/rows.csv")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = list(csv.DictReader(Path("new/rows.csv").open()))
    assert {row["case"] for row in rows} == {"cnn-28"} and {row["threads"] for row in rows} == {"1"}
    assert {row["batch"] for row in rows} == {"2"} and all(float(row["p50_ms"]) > 0 for row in rows)
    parts = {row["part"] for row in rows} - {"step"}
    assert parts == set(PARTS) - {"teacher"}  # f_D's outputs are cached
    for text in ("cnn-28, batch 2", "pytorch, own", "adversary", "Passes through networks are", "new/rows.csv"):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--case", "cnn-29"), "unknown case 'cnn-29'"),
        (("--batch-size", "1"), "1 is not in the range x>=2"),
        (("--device", "cuda:77"), "device is 'cuda:77'"),
    ],
)
def test_a_users_mistake_is_one_sentence(invoke: Invoke, arguments: tuple[str, ...], said: str) -> None:
    result = invoke("bench", "step", *arguments)
    assert result.exit_code != 0 and said in result.stderr
    assert not Path("runs").exists()
