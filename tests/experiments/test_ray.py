from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn.experiments import (
    CompareInputs,
    ComparisonOutcome,
    resolve_comparison,
    run_comparison,
)
from tests.experiments.ray_clusters import Killer, two_machines

pytestmark = pytest.mark.extras

FEW = {"initial": {"epochs": 1}, "retrain": {"epochs": 1}, "mixunlearn-aware": {"epochs": 1}, "neggrad.epochs": 1}
OWN = ("seconds", "times", "chain", "versions", "ran_on", "command_line")
"""What differs between two equal runs: the time, the random key of a chain, and where it was."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    with two_machines() as found:
        yield found


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Function that has the next command use an empty cache."""

    def use(name: str) -> None:
        monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / name))

    yield use


def compared(out: Path, **fields: Any) -> ComparisonOutcome:
    observer = fields.pop("observer", None)
    inputs = CompareInputs(
        ("neggrad", "laf", "mixunlearn-aware"), (0,), device="cpu", settings={**FEW, "laf.epochs": 1}, **fields
    )
    return run_comparison(resolve_comparison(inputs), out, threads=1, observer=observer)


def result(value: Any) -> Any:
    """A record without what differs between two equal runs."""
    if isinstance(value, dict):
        kept = {key: result(one) for key, one in value.items() if key not in OWN}
        kept.get("hashes", {}).pop("model.safetensors", None)  # its header holds the chain
        return kept
    return [result(one) for one in value] if isinstance(value, list) else value


def test_a_comparison_that_loses_a_machine_is_the_local_one(
    tmp_path: Path, caches: Any, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    caches("here")
    here = compared(tmp_path / "local")
    caches("there")
    killer = Killer(cluster)
    there = compared(tmp_path / "ray", on="ray", observer=killer)
    assert killer.killed and any("its worker was lost" in note for note in killer.notes)
    assert result(there.record) == result(here.record) and there.finished == 3
    for cell in ("neggrad-seed0", "laf-seed0", "mixunlearn-aware-seed0"):
        folders = [tmp_path / name / "cells" / cell for name in ("local", "ray")]
        names = [{path.name for path in folder.iterdir()} for folder in folders]
        assert names[0] == names[1] and "pictures" in names[0]
        assert not any((folder / ".partial").exists() for folder in folders)
        for name in ("metrics.json", "config.json", "split.json"):
            ours, theirs = (json.loads((folder / name).read_text("utf-8")) for folder in folders)
            assert result(ours) == result(theirs), name
    models = [{path.name for path in (tmp_path / name / "models").glob("*.json")} for name in ("here", "there")]
    assert models[0] == models[1] and len(models[0]) == 3  # of all cells together: no model is trained twice
    assert {cell["ran_on"]["node"] for cell in there.record["cells"].values()}
    output = capfd.readouterr()
    assert not output.out and not output.err  # Ray says nothing of its own
