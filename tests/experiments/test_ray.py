from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    TuneInputs,
    UnlearnInputs,
    resolve_tuning,
    resolve_unlearning,
    run_tuning,
    run_unlearning,
)
from pymixunlearn.experiments.common.parallel_tasks import run_tasks
from pymixunlearn.experiments.common.placement import Placement
from tests.experiments import tasks_to_run
from tests.experiments.ray_clusters import METHODS, Killer, audited, compared, result, two_machines

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("all_trees")]

FEW = {f"{name}.epochs": 1 for name in ("initial", "retrain", *METHODS)}


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


def test_a_comparison_that_loses_a_machine_is_the_local_one(
    tmp_path: Path, caches: Any, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    caches("here")
    here = compared(tmp_path / "local", FEW)
    caches("there")
    killer = Killer(cluster)
    there = compared(tmp_path / "ray", FEW, on="ray", observer=killer)
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


def test_an_audit_that_loses_a_machine_is_the_local_one(tmp_path: Path, caches: Any, cluster: Any) -> None:
    caches("here")
    few = {"epochs": 1, "initial.epochs": 1, "retrain.epochs": 1}
    plan = resolve_unlearning(UnlearnInputs("neggrad", device="cpu", settings=few))
    run = run_unlearning(plan, tmp_path / "run").folder
    here = audited(run, tmp_path / "local", shadow_models=4, epochs=1, jobs=1)
    caches("there")
    killer = Killer(cluster)
    there = audited(run, tmp_path / "ray", shadow_models=4, epochs=1, on="ray", observer=killer)
    assert killer.killed and any("was lost" in note for note in killer.notes)
    assert result(there) == result(here)
    again = audited(run, tmp_path / "again", shadow_models=4, epochs=1, jobs=1)  # of the cache that has them all now
    assert result(again) == result(here) and again["seconds"] < here["seconds"]


def test_errors_and_ends_of_tasks_are_those_of_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init("local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        heard: list[list[float]] = []
        where: dict[str, Any] = {"jobs": 2, "placement": Placement("ray")}
        results = run_tasks(tasks_to_run.square, 3, progress=lambda shares: heard.append(list(shares)), **where)
        assert [(square, threads) for square, _, threads in results] == [(0, 1), (1, 1), (4, 1)]
        assert heard[-1] == [1.0] * 3 and any(0.5 in shares for shares in heard)
        with pytest.raises(UserError, match="piece 1 does not fit"):
            run_tasks(tasks_to_run.refuse, 4, **where)
        with pytest.raises(RuntimeError, match="in break_down(?s:.*)by nothing"):
            run_tasks(tasks_to_run.break_down, 2, **where)
        notes: list[str] = []
        with pytest.raises(UserError, match="task 1 could not be done: 3 workers were lost over it, .*is saved"):
            run_tasks(tasks_to_run.vanish, 1, note=notes.append, **where)
        assert len(notes) == 2 and "task 1 was lost" in notes[0]

        def interrupt(shares: list[float]) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_tasks(tasks_to_run.square, 4, progress=interrupt, **where)
        assert ray.is_initialized()  # a cluster of the caller's is left as it was
        with pytest.raises(UserError, match="declares 1 CPUs and 1 GPUs, and no machine of the cluster has them"):
            run_tasks(tasks_to_run.square, 1, device="cuda", **where)
    finally:
        ray.shutdown()
    with pytest.raises(UserError, match="there is no cluster of Ray at ray://127.0.0.1:9 .*expected a running cluster"):
        run_tasks(tasks_to_run.square, 1, jobs=1, placement=Placement("ray://127.0.0.1:9"))


def test_a_search_on_ray_is_the_local_one(tmp_path: Path, caches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def tuned(out: Path, **fields: Any) -> dict[str, Any]:
        few = {"initial.epochs": 1, "retrain.epochs": 1, "epochs": 1}
        grid = {"retain_weight": ["0.1"], "lr": ["1e-4", "1e4"]}  # the last makes weights that are not finite
        inputs = TuneInputs("neggrad", grid=grid, sampler="grid", device="cpu", settings=few, **fields)
        return run_tuning(resolve_tuning(inputs), out, observer=fields.get("observer")).record

    caches("here")
    here = tuned(tmp_path / "local")
    caches("there")
    there = tuned(tmp_path / "ray", on="ray")
    assert result(there) == result(here) and len(there["trials"]) == 2
    runs = [{path.name for path in (tmp_path / name / "trials").iterdir()} for name in ("local", "ray")]
    assert runs[0] == runs[1]
    assert result(tuned(tmp_path / "ray", on="ray")) == result(here)  # finished: no run is made again
