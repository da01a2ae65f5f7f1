"""A dry run says what a run would do, and does none of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pymixunlearn
from pymixunlearn import data, methods, models, tasks
from pymixunlearn.data import cache_dir
from pymixunlearn.data.dataset import part_of
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import Plan, SplitRequest, preview_unlearning, run_unlearning
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.training import model_hash

Make = Callable[..., Plan]


class Totals(Observer):
    """The number of steps that each phase of a run has."""

    def __init__(self) -> None:
        self.of: dict[str, int | None] = {}

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        self.of[phase] = total


def everything_in(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.suffix != ".lock")


def test_its_steps_are_those_of_the_run_and_nothing_is_written(
    tmp_path: Path, small_plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = small_plan(seed=41, split=SplitRequest(classes=("3", "8")))
    cached, drawn = everything_in(cache_dir()), torch.get_rng_state()
    preview = preview_unlearning(plan, tmp_path / "run")
    assert everything_in(cache_dir()) == cached and everything_in(tmp_path) == []
    assert torch.equal(torch.get_rng_state(), drawn)
    assert preview.state == "new" and preview.folder == tmp_path / "run"
    assert preview.forgotten.classes == (("3", 146, 146), ("8", 139, 139))
    assert preview.forgotten.remaining == 1438 - 285 and preview.forgotten.files == ()

    totals = Totals()
    folder = run_unlearning(plan, tmp_path / "run", observer=totals).folder
    steps = {phase.name: phase.steps for phase in preview.phases}
    assert {name: totals.of[name] for name in ("initial", "unlearn", "retrain")} == {
        name: steps[name] for name in ("initial", "unlearn", "retrain")
    }
    assert all(phase.seconds is not None and phase.seconds > 0 for phase in preview.phases)
    assert preview.seconds == sum(phase.seconds or 0 for phase in preview.phases)
    assert preview.memory is not None and preview.memory > 50e6 and preview.device_memory is None

    written = everything_in(folder)
    again = preview_unlearning(plan, folder)
    assert everything_in(folder) == written and again.state == "finished"
    trained = {phase.name: phase.seconds for phase in again.phases if "trained already" in phase.work}
    assert trained == {"initial": 0.0, "retrain": 0.0}


def test_a_method_that_trains_as_the_initial_model_was_trained_is_estimated_so(small_plan: Make) -> None:
    settings = {"epochs": None, "share": 0.9, "initial.epochs": 4}
    plan = small_plan(settings, method="prune-reset", retrain=False)
    steps = {phase.name: phase.steps for phase in preview_unlearning(plan).phases}
    assert steps["unlearn"] == 2 * -(-len(plan.split.retain) // plan.method.config.to_dict()["batch_size"])


def test_a_second_retrain_is_counted(small_plan: Make, tmp_path: Path) -> None:
    plan = small_plan(seed=43, retrain="two")
    phases = {phase.name: phase for phase in preview_unlearning(plan).phases}
    first, second, evaluation = (phases[name] for name in ("retrain", "second_retrain", "evaluation"))
    assert second.steps == first.steps and second.seconds == first.seconds and "other weights" in second.work
    assert "through 4 models" in evaluation.work

    totals = Totals()
    run_unlearning(plan, tmp_path / "run", observer=totals)
    assert totals.of["second_retrain"] == second.steps
    again = {phase.name: phase.seconds for phase in preview_unlearning(plan).phases}
    assert again["retrain"] == again["second_retrain"] == 0.0


@pytest.mark.parametrize(("settings", "at_most"), [({}, True), ({"share": 0.9}, False)])
def test_a_search_takes_at_most_all_its_attempts(settings: dict[str, Any], at_most: bool) -> None:
    own = part_of(data.load("digits"), 300)
    own = replace(own, validation=own.train.subset(torch.arange(50)))
    split, model = tasks.class_split(own, [0]), models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    preview = pymixunlearn.dry_run(model, own, split, "prune-reset", settings=settings, retrain=False, device="cpu")
    assert preview.at_most is at_most
    unlearn = next(phase for phase in preview.phases if phase.name == "unlearn")
    assert ("at most all its attempts" in unlearn.work) is at_most
    # What Retrain takes is told, though the run has none.
    assert "retrain" not in {phase.name for phase in preview.phases}
    assert preview.retrain_seconds is not None and preview.retrain_seconds > 0


def test_a_folder_of_another_run_is_refused(tmp_path: Path, small_plan: Make) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        preview_unlearning(small_plan(), tmp_path)


@pytest.mark.parametrize("name", [name for name in methods.available() if name != "retrain"])
def test_a_method_begins_with_what_it_trains_first(name: str) -> None:
    """No method needs more than a few steps to be estimated, and none changes the model that it is given."""
    own = part_of(data.load("digits"), 200)
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    before = model_hash(model)
    split = tasks.class_split(own, [0, 1])
    preview = pymixunlearn.dry_run(model, own, split, name, settings={}, retrain=False, device="cpu")
    names = [phase.name for phase in preview.phases]
    first = ["original"] if name in ("sisa", "dsmixup") else []
    assert names == ["initial", *first, "unlearn", "evaluation"]
    assert all(phase.seconds is not None for phase in preview.phases)
    assert model_hash(model) == before


def test_what_is_odd_about_a_request_is_in_it() -> None:
    images = torch.arange(12, dtype=torch.uint8).repeat(2).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    train = data.ImageSet(images, torch.arange(24) % 2, ("cat", "dog"), tuple(f"train/{i}.png" for i in range(24)))
    test = data.ImageSet(images[:6], torch.arange(6) % 2, ("cat", "dog"), tuple(f"test/{i}.png" for i in range(6)))
    pets = data.Dataset("pets", train, test, data.Preprocess(size=16))
    listed = tasks.DeletionList((), files=("train/0.png", "train/1.png", "test/5.png"))
    split = tasks.index_split(pets, listed)
    options: dict[str, Any] = {"settings": {"epochs": 1, "initial.epochs": 1}, "retrain": False, "device": "cpu"}
    forgotten = pymixunlearn.dry_run(None, pets, split, "neggrad", **options).forgotten
    assert forgotten.classes == (("cat", 1, 12), ("dog", 1, 12))
    assert forgotten.files == ("train/0.png", "train/1.png")
    assert forgotten.removed == {"test": ("test/5.png",)}
    assert forgotten.copies == {"retain": ("train/12.png", "train/13.png"), "test": ("test/0.png", "test/1.png")}


def test_a_network_of_the_users_own() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    preview = pymixunlearn.dry_run(network, "digits", [3, 4], "neggrad", device="cpu")
    assert [phase.name for phase in preview.phases] == ["initial", "unlearn", "retrain", "evaluation"]


def test_mislabelled_samples_are_counted_by_the_class_they_were_named_by(small_plan: Make) -> None:
    split = small_plan(split=SplitRequest(task="noisy", classes=("3",), fraction=0.5)).split
    from pymixunlearn.experiments.unlearn.preview import Forgotten

    assert Forgotten.of(split).classes == (("3", 73, 146),)
