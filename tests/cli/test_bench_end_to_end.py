"""``mixunlearn-cli bench end-to-end``: a request on digits beside Retrain, and growth over a few hundred images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pymixunlearn.benchmarking.end_to_end.request import PROVIDERS

Invoke = Callable[..., Result]


@pytest.mark.slow
def test_a_request_and_its_growth_are_measured(invoke: Invoke) -> None:
    result = invoke("bench", "end-to-end", "--device", "cpu", "--threads", "1", "--quick", "--out", "new")
    assert (result.exit_code, result.stderr) == (0, "")
    request = list(csv.DictReader(Path("new/request.csv").open()))
    assert {row["provider"] for row in request} == set(PROVIDERS)
    seconds = {row["provider"]: float(row["seconds"]) for row in request}
    for row in request:
        ratio = seconds["Retrain"] / seconds[row["provider"]]
        assert abs(float(row["ratio"]) - ratio) < 1e-4 * ratio
    growth = list(csv.DictReader(Path("new/growth.csv").open()))
    assert {row["grows"] for row in growth} == {"forget", "retain"}
    for text in ("Retrain / it", "R² of a line", "Memory over images to keep, streamed"):
        assert text in result.stdout
