"""Seconds and memory of a run's phases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pymixunlearn.experiments import Plan, run_unlearning
from pymixunlearn.experiments.common import phases as module
from pymixunlearn.experiments.common.phases import NOTHING, PROCESS, Phases

CPU = torch.device("cpu")
SIZE = 100 * 2**20


def touched(size: int) -> None:
    """Use so much memory, and give it back."""
    assert len(bytes(size)) == size and bytearray(size).count(1) == 0


def test_a_phase_has_a_peak_of_its_own() -> None:
    found = Phases(CPU)
    with found.measured("large"):
        touched(SIZE)
    with found.measured("small"):
        pass
    large, small = (found.to_dict()[name] for name in ("large", "small"))
    if found.memory == NOTHING:  # not Linux
        assert large["peak_bytes"] is small["peak_bytes"] is None
        return
    assert found.memory == PROCESS
    assert large["peak_bytes"] - large["start_bytes"] > 0.9 * SIZE
    assert small["peak_bytes"] - small["start_bytes"] < 0.5 * SIZE
    assert small["peak_bytes"] < large["peak_bytes"]


def test_another_run_of_the_process_starts_anew() -> None:
    first, second = Phases(CPU), Phases(CPU)
    with first.measured("unlearned"):
        touched(SIZE)
    with second.measured("unlearned"):
        pass
    peaks = [found.to_dict()["unlearned"]["peak_bytes"] for found in (first, second)]
    assert peaks == [None, None] or peaks[1] < peaks[0] - 0.5 * SIZE


@pytest.mark.parametrize("lacking", ["_CLEAR", "_STATUS"])
def test_where_the_system_does_not_tell_nothing_is_claimed(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, lacking, tmp_path / "none" / "file")
    found = Phases(CPU)
    with found.measured("unlearned"):
        pass
    assert found.memory == NOTHING
    measured = found.to_dict()["unlearned"]
    assert measured["peak_bytes"] is measured["start_bytes"] is None and measured["seconds"] >= 0


def test_a_run_records_its_phases(tmp_path: Path, small_plan: Callable[..., Plan]) -> None:
    plan = small_plan({"generator_warmup": 1, "omega": 7})
    run = run_unlearning(plan, tmp_path / "run")
    record = json.loads((run.folder / "metrics.json").read_text())
    found = record["phases"]
    assert list(found) == ["initial", "unlearned", "retrain", "evaluation"]  # no validation set: no acceptance test
    assert record["peak_memory"] in (PROCESS, NOTHING)
    for name in ("initial", "retrain"):
        assert found[name].get("cached") is not True or found[name]["peak_bytes"] is None
    parts = found["unlearned"]["parts"]
    assert list(parts) == ["setup", "warm_up", "epochs"]
    assert sum(parts.values()) == pytest.approx(record["seconds"]["unlearned"])
    assert found["unlearned"]["seconds"] >= record["seconds"]["unlearned"]
    page = (run.folder / "report.html").read_text()
    assert "Seconds and memory" in page and "of that, warm up" in page
    stated = json.loads((run.folder / "report.json").read_text())
    assert (stated["phases"], stated["peak_memory"]) == (found, record["peak_memory"])
    again = run_unlearning(small_plan({"omega": 8}), tmp_path / "again").record["phases"]
    assert again["retrain"]["cached"] is True and again["retrain"]["peak_bytes"] is None
