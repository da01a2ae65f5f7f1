from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pymixunlearn.reporting import (
    Row,
    evaluation_rows,
    format_cell,
    further_rows,
    result_rows,
    rich_table,
    training_rows,
)
from pymixunlearn.reporting.table import columns

METRICS = {"test_r": 97.5, "test_f": 0.0, "asr": 40.123}


def record(**changes: Any) -> dict[str, Any]:
    return {
        "metrics": {
            "initial": {"test_r": 98.0, "test_f": 97.0, "asr": 50.0},
            "unlearned": METRICS,
            "retrain": METRICS,
            "second_retrain": None,
        },
        "gap": {
            "initial": {"test_r": 0.5, "test_f": 97.0, "asr": 9.877, "mean": 35.8},
            "unlearned": {"test_r": 0.0, "test_f": 0.0, "asr": 0.0, "mean": 0.0},
        },
        "seconds": {"initial": 3.21, "unlearned": 1.0, "retrain": 4.0},
        **changes,
    }


def printed(rows: list[Row], *, plain: bool = True) -> str:
    stream = StringIO()
    Console(file=stream, width=120, color_system=None).print(rich_table(rows, plain=plain))
    return stream.getvalue()


def test_rows_are_initial_unlearned_retrain_and_gaps() -> None:
    labels = [row.label for row in result_rows(record())]
    assert labels == ["initial", "unlearned", "Retrain", "gap |unlearned - Retrain|", "gap |initial - Retrain|"]


def test_without_retrain_there_are_no_gaps() -> None:
    rows = result_rows(record(metrics={"initial": METRICS, "unlearned": METRICS, "retrain": None}, gap=None))
    assert [row.label for row in rows] == ["initial", "unlearned"]
    assert "Mean gap" not in printed(rows)


def test_columns_are_the_metrics_then_the_mean_gap_then_seconds() -> None:
    text = printed(result_rows(record()))
    header = next(line for line in text.splitlines() if "Test_r" in line)
    assert header.replace("|", " ").split() == ["Test_r", "Test_f", "ASR", "Mean", "gap", "Seconds"]
    line = next(line for line in text.splitlines() if line.startswith("| initial"))
    assert line.replace("|", " ").split() == ["initial", "98.00", "97.00", "50.00", "3.2"]


def test_the_acceptance_test_is_no_metric_of_a_plug_in() -> None:
    decisions = {model: {"decision": "refused"} for model in ("initial", "unlearned")}
    rows = result_rows(record(acceptance=decisions))
    assert "Acceptance" in printed(rows) and columns(rows, further=True) == [] and further_rows(rows) == []


def test_plain_tables_are_ascii() -> None:
    assert printed(result_rows(record())).isascii()


@pytest.mark.parametrize(
    ("key", "cells", "text"),
    [
        ("asr", {"asr": 1 / 3}, "0.33"),
        ("seconds", {"seconds": 2.26}, "2.3"),
        ("asr", {"asr": None}, "-"),
        ("asr", {}, ""),
    ],
)
def test_cells(key: str, cells: dict[str, float | None], text: str) -> None:
    assert format_cell(key, Row("x", cells)) == text


def test_trainings_and_evaluations_have_their_own_rows() -> None:
    (row,) = training_rows({"metrics": {"initial": {"train": 99.0, "test": 98.0}}, "seconds": {"initial": 1.5}})
    assert (row.label, row.cells["seconds"]) == ("initial", 1.5)
    (row,) = training_rows({"metrics": {"retrain": METRICS}, "seconds": {"retrain": 1.5}})
    assert row.label == "Retrain"
    assert len(evaluation_rows({"metrics": {"model": METRICS}, "gap": None})) == 1
    assert len(evaluation_rows({"metrics": {"model": METRICS, "reference": METRICS}, "gap": {"model": METRICS}})) == 3
