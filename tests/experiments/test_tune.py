from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pymixunlearn import data
from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    BadRequest,
    DataRequest,
    ModelRequest,
    Observer,
    SplitRequest,
    TuneInputs,
    TuningPlan,
    UnlearnInputs,
    default_tuning_folder,
    resolve_tuning,
    resolve_unlearning,
    run_tuning,
)
from pymixunlearn.experiments.common.settings import parse_settings
from pymixunlearn.experiments.tune import run as running
from pymixunlearn.experiments.tune.plan import validation_dataset

SMALL = {"epochs": 1, "initial.epochs": 1, "retrain.epochs": 1}


def plan(method: str = "neggrad", **fields: Any) -> TuningPlan:
    settings = {**SMALL, **fields.pop("settings", {})}
    fields = {"sampler": "grid", "trials": 2, "device": "cpu", **fields}
    return resolve_tuning(TuneInputs(method, settings=settings, **fields))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of the runs from here on."""
    seen: list[dict[str, Any]] = []
    original = running.run_unlearning

    def counting(resolved: Any, *args: Any, **keywords: Any) -> Any:
        seen.append(resolved.method.config.to_dict())
        return original(resolved, *args, **keywords)

    monkeypatch.setattr(running, "run_unlearning", counting)
    return seen


# The test set plays no part


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_validation_part_comes_from_the_training_data() -> None:
    digits = data.load("digits")
    part = validation_dataset(digits, 0.2)
    assert part.name == "digits-validation"
    assert len(part.train) + len(part.test) == len(digits.train)
    assert len(part.test) == pytest.approx(0.2 * len(digits.train), rel=0.02)
    both = torch.cat([part.train.images, part.test.images])
    assert torch.equal(both.flatten(1).sum(1).sort().values, digits.train.images.flatten(1).sum(1).sort().values)
    assert torch.bincount(part.test.targets).min() >= 20
    whole = plan().splits[0]
    assert whole.test.images.shape[0] == len(part.test)
    assert not rows(whole.train.images) & rows(whole.test.images)


def test_a_search_does_not_depend_on_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = [run_tuning(plan(trials=1), tmp_path / "a").record["trials"]]
    original = DataRequest.load

    def other_test_set(request: DataRequest, observer: Observer | None = None) -> Dataset:
        dataset = original(request, observer)
        count = len(dataset.test) // 2
        return replace(dataset, test=dataset.test.subset(torch.arange(count)))

    monkeypatch.setattr(DataRequest, "load", other_test_set)
    gaps.append(run_tuning(plan(trials=1), tmp_path / "b").record["trials"])
    assert gaps[0] == gaps[1]


def test_presets_that_were_chosen_on_the_test_set_do_not_apply() -> None:
    tuned = plan("mixunlearn", settings={"epochs": 3})
    assert tuned.example.preset is None
    assert tuned.example.method.config.to_dict()["omega"] == 0.5  # the preset's is 10


# The plan


def test_trials_are_as_many_as_there_are_combinations_at_most() -> None:
    assert plan(trials=None).trials == 6
    assert plan(trials=None, sampler="tpe").trials == 6
    assert plan("mixunlearn", trials=None, sampler="tpe").trials == 20
    assert plan("mixunlearn", trials=None).trials == 2500
    assert plan(trials=4).trials == 4


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("neggard", {}, "Did you mean 'neggrad'?"),
        ("retrain", {}, "unknown method 'retrain'"),
        ("neggrad", {"sampler": "tpee"}, "unknown sampler 'tpee'.* Did you mean 'tpe'?"),
        ("neggrad", {"seeds": ()}, "seeds are none"),
        ("neggrad", {"seeds": (1, 1)}, "expected each once"),
        ("neggrad", {"validation": 1.0}, "validation is 1.0"),
        ("neggrad", {"trials": 0}, "trials is 0; expected at least 1"),
        ("neggrad", {"model": ModelRequest("my.safetensors")}, "specification without weights"),
        ("neggrad", {"split": SplitRequest(indices=Path("ids.txt"))}, "leave out lists of samples"),
        ("neggrad", {"split": SplitRequest(manifest=Path("split.json"))}, "leave out lists of samples"),
        ("neggrad", {"settings": {"retain_weight": 1}}, "nothing to search"),
        ("neggrad", {"settings": {"epoch": 1}}, "unknown setting 'epoch'"),
        ("neggrad", {"label_aware": False}, "needs labels; it cannot run label-agnostic"),
    ],
)
def test_what_cannot_be_tuned_is_refused(method: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        plan(method, **fields)


def test_the_default_folder_is_the_same_for_more_trials_only() -> None:
    folder = default_tuning_folder(plan())
    assert folder.parent == Path("runs") and folder.name.startswith("tune-neggrad-digits-class-")
    assert default_tuning_folder(plan(trials=5, sampler="tpe")) == folder
    for changed in ({"seeds": (1,)}, {"settings": {"lr": 1e-3}}, {"validation": 0.3}, {"grid": {"lr": [1e-3]}}):
        assert default_tuning_folder(plan(**changed)) != folder


# The search


def test_the_best_combination_is_written_for_unlearn(tmp_path: Path, counted: list[dict[str, Any]]) -> None:
    chosen = plan(grid={"retain_weight": ["0.001", "1"], "lr": ["1e-4"]}, seeds=(0, 1))
    outcome = run_tuning(chosen, tmp_path / "t", command_line="mixunlearn-cli tune …")
    assert [(one["retain_weight"], one["lr"]) for one in counted] == [(0.001, 1e-4)] * 2 + [(1.0, 1e-4)] * 2
    record = json.loads((tmp_path / "t" / "tune.json").read_text())
    assert record == outcome.record and len(record["trials"]) == 2

    for trial, weight in zip(record["trials"], (0.001, 1.0), strict=True):
        runs = [json.loads(path.read_text()) for path in (tmp_path / "t" / "trials").glob("*/config.json")]
        mine = [run for run in runs if run["settings"]["retain_weight"] == weight]
        assert sorted(run["seed"] for run in mine) == [0, 1]
        assert trial["settings"] == {"retain_weight": weight, "lr": 1e-4}
    measured = [json.loads(path.read_text()) for path in (tmp_path / "t" / "trials").glob("*/metrics.json")]
    gaps = [metrics["gap"]["unlearned"]["mean"] for metrics in measured]
    assert sum(gaps) / 2 == pytest.approx(sum(trial["gap"] for trial in record["trials"]))
    best = min(record["trials"], key=lambda trial: trial["gap"])
    assert outcome.best is not None and outcome.best.settings == best["settings"] == record["best"]["settings"]

    text = (tmp_path / "t" / "best.yaml").read_text()
    assert text.startswith("# neggrad on digits, task class: the best of 2 combinations.\n")
    assert f"Mean gap to Retrain {best['gap']:.3f} on 20 %" in text and "# mixunlearn-cli tune …\n" in text
    assert yaml.safe_load(text) == {**best["settings"], "epochs": 1}


def test_the_file_outweighs_a_preset(tmp_path: Path) -> None:
    chosen = plan("mixunlearn", settings={"epochs": 2, "tau_real": 7}, grid={"omega": [3]}, trials=1)
    run_tuning(chosen, tmp_path / "t")
    settings = parse_settings((tmp_path / "t" / "best.yaml").read_text(), "best.yaml")
    assert "label_aware" not in settings
    used = resolve_unlearning(UnlearnInputs("mixunlearn", device="cpu", settings=settings))
    assert used.preset is not None  # it sets epochs, tau_real, tau_mix and omega
    tuned = next((tmp_path / "t" / "trials").glob("*/config.json"))
    assert used.method.config.to_dict() == json.loads(tuned.read_text())["settings"]


def test_a_search_goes_on_and_further(tmp_path: Path, counted: list[dict[str, Any]]) -> None:
    def weights() -> list[float]:
        return [one["retain_weight"] for one in counted]

    run_tuning(plan(trials=2), tmp_path / "t")
    again = run_tuning(plan(trials=2), tmp_path / "t")
    assert weights() == [0.001, 0.01] and again.best is not None
    run_tuning(plan(trials=3), tmp_path / "t")
    assert weights() == [0.001, 0.01, 0.1]


class Stop(Observer):
    """Interrupts, as Ctrl-C would, once it hears of ``text``; remembers the notes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        if self.text in detail:
            raise KeyboardInterrupt


def test_an_interrupted_combination_goes_on(tmp_path: Path, counted: list[dict[str, Any]]) -> None:
    chosen = plan(settings={"epochs": 3}, sampler="tpe")
    with pytest.raises(KeyboardInterrupt):
        run_tuning(chosen, tmp_path / "t", observer=Stop("unlearn 50 %"))
    watcher = Stop("never")
    outcome = run_tuning(chosen, tmp_path / "t", observer=watcher)
    assert any(note.startswith("Resuming the interrupted run") for note in watcher.notes)
    assert counted[0] == counted[1] and len(counted) == 3
    straight = run_tuning(chosen, tmp_path / "straight")
    assert straight.record["trials"] == outcome.record["trials"]


def test_a_combination_that_fails_keeps_its_reason(tmp_path: Path) -> None:
    grid = {"lr": ["1e5", "1e-5"]}
    chosen = plan("gradient-ascent", grid=grid, settings={"epochs": 30})
    outcome = run_tuning(chosen, tmp_path / "t")
    failed, worked = outcome.record["trials"]
    assert failed["gap"] is None and "unlearning diverged" in failed["reason"]
    assert worked["gap"] is not None and outcome.best is not None and outcome.best.settings == {"lr": 1e-5}

    hopeless = run_tuning(plan("gradient-ascent", grid={"lr": ["1e5"]}, settings={"epochs": 30}), tmp_path / "h")
    assert hopeless.best is None and not (tmp_path / "h" / "best.yaml").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    run_tuning(plan(trials=1), tmp_path / "t")
    with pytest.raises(UserError, match=r"holds another search \(its .*seeds"):
        run_tuning(plan(trials=1, seeds=(1,)), tmp_path / "t")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty and holds no search"):
        run_tuning(plan(trials=1), tmp_path / "mine")


def test_labels_are_part_of_what_is_tuned() -> None:
    def config(label_aware: bool | None) -> Mapping[str, Any]:
        return plan("mixunlearn", label_aware=label_aware).example.method.config.to_dict()

    assert config(True)["label_aware"] is True and config(None)["label_aware"] is False
