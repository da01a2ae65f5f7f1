from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pymixunlearn import data, models
from pymixunlearn.data import TrainingSet
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import DataRequest, ModelRequest, Observer, Plan, SplitRequest, run_unlearning
from pymixunlearn.experiments.common.forget_chain import KEY_FILE
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.unlearn.run import FILES
from pymixunlearn.experiments.verify import run_verification
from pymixunlearn.models import Ensemble
from pymixunlearn.models.weight_files import read_tensors
from pymixunlearn.seeding import derive_seed
from pymixunlearn.tasks import Split
from pymixunlearn.training import MeanTeacherConfig, fit, load_model, model_hash, tensors_hash, train
from tests.hashes import hashes_of

Make = Callable[..., Plan]


class Stop(Observer):
    """Interrupts a run, as Ctrl-C would, when ``phase`` has got to ``step``; and remembers what it heard."""

    def __init__(self, phase: str = "", step: int = 0) -> None:
        self.phase, self.step = phase, step
        self.notes: list[str] = []
        self.started: dict[str, int] = {}
        self.finished: dict[str, str] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        self.started[phase] = done

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        if phase == self.phase and done >= self.step:
            raise KeyboardInterrupt

    def phase_finished(self, phase: str, detail: str) -> None:
        self.finished[phase] = detail


def weights(folder: str | Path) -> str:
    """Return the hash of a run's weights; the file's header holds hashes that are keyed, and every run has its key."""
    return tensors_hash(read_tensors(Path(folder) / "model.safetensors")[0])


def test_run_folder_keeps_the_contract(tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan()
    outcome = run_unlearning(plan, tmp_path / "run", command_line="mixunlearn-cli unlearn")
    assert sorted(path.name for path in outcome.folder.iterdir()) == sorted((*FILES, KEY_FILE))

    record = json.loads((outcome.folder / "metrics.json").read_text())
    assert record == json.loads(json.dumps(outcome.record))
    required = {"method", "dataset", "task", "seed", "metrics", "intervals", "gap", "seconds", "versions"}
    assert required <= set(record)
    assert record["version"] == 2 and list(record["metrics"]) == ["initial", "unlearned", "retrain", "second_retrain"]
    unlearned = record["metrics"]["unlearned"]
    assert list(unlearned) == list(record["metrics"]["retrain"])
    assert list(unlearned)[:3] == ["test_r", "test_f", "asr"]
    assert list(record["gap"]) == ["initial", "unlearned"] and list(record["gap"]["unlearned"]) == [*unlearned, "mean"]
    assert set(record["seconds"]) == {"initial", "unlearned", "retrain"}
    assert all(0 <= value <= 100 for value in unlearned.values())
    assert list(record["details"]) == list(record["intervals"]) == ["initial", "unlearned", "retrain"]
    assert all(
        {"samples", "attacks", "per_class", "class_samples", "confusion"} == set(details)
        for details in record["details"].values()
    )

    split = Split.load(outcome.folder / "split.json", plan.split.dataset)
    assert split.forget_indices.equal(plan.split.forget_indices)
    assert model_hash(load_model(outcome.folder / "model.safetensors")) == record["hashes"]["unlearned"]
    with (outcome.folder / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        ("initial", "1"),
        ("unlearned", "1"),
        ("unlearned", "2"),
        ("retrain", "1"),
    ]
    config = json.loads((outcome.folder / "config.json").read_text())
    assert config["settings"]["epochs"] == 2
    assert config["command_line"] == "mixunlearn-cli unlearn"


def test_images_that_no_model_saw_judge_the_forgetting(tmp_path: Path, small_plan: Make) -> None:
    watcher = Stop()
    run = run_unlearning(small_plan(data=DataRequest("digits@700")), tmp_path / "part", observer=watcher)
    found = run.record["acceptance"]
    assert list(found) == ["initial", "unlearned", "retrain"]
    assert all(test["unseen_samples"] > 30 and 0 <= test["ks"] <= 1 for test in found.values())
    assert found["unlearned"]["initial_ks"] == max(found["initial"]["ks"], found["initial"]["ks_resurfaced"])
    assert watcher.finished["acceptance"] == found["unlearned"]["decision"]
    record = json.loads((run.folder / "report.json").read_text())
    assert record["acceptance"] == json.loads(json.dumps(found))
    assert any(found["unlearned"]["reason"] in sentence for sentence in record["verdict"])
    page = (run.folder / "report.html").read_text()
    assert f"{found['retrain']['ks']:.3f}" in page and "was not tested" not in page

    whole = run_unlearning(small_plan(), tmp_path / "whole")
    assert whole.record["acceptance"] is None
    page = " ".join((whole.folder / "report.html").read_text().split())
    assert "was not tested: the data have no validation set" in page


def test_the_same_plan_gives_the_same_weights(tmp_path: Path, small_plan: Make) -> None:
    first, second = (run_unlearning(small_plan(), tmp_path / name) for name in ("a", "b"))
    assert weights(first.folder) == weights(second.folder)
    for key in ("metrics", "intervals", "gap"):
        assert first.record[key] == second.record[key]
    assert hashes_of(first.record) == hashes_of(second.record)


def test_a_finished_run_is_not_run_again(tmp_path: Path, small_plan: Make) -> None:
    first = run_unlearning(small_plan(), tmp_path / "run")
    watcher = Stop()
    again = run_unlearning(small_plan(), tmp_path / "run", observer=watcher)
    assert again.known and not first.known
    assert again.record == json.loads(json.dumps(first.record))
    assert not watcher.finished


def test_trained_models_are_taken_from_the_cache(tmp_path: Path, small_plan: Make) -> None:
    run_unlearning(small_plan(), tmp_path / "a")
    watcher = Stop()
    run_unlearning(small_plan({"omega": 5}), tmp_path / "b", observer=watcher)
    assert watcher.finished["initial"].startswith("from the cache")
    assert watcher.finished["retrain"].startswith("from the cache")
    assert set(watcher.started) == {"unlearn", "evaluation", "pictures"}


@pytest.mark.parametrize(
    ("phase", "step"),
    [("initial", 60), ("unlearn", 7), ("retrain", 60), ("evaluation", 1)],
    ids=lambda value: str(value),
)
def test_an_interrupted_run_goes_on_and_ends_the_same(
    tmp_path: Path, small_plan: Make, monkeypatch: pytest.MonkeyPatch, phase: str, step: int
) -> None:
    """The steps are in the second epoch, so that there is a first to go on from."""
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    settings = {"initial.epochs": 2, "retrain.epochs": 2}
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_unlearning(small_plan(settings), out, observer=Stop(phase, step))
    assert [path.name for path in out.iterdir()] == [".partial"]

    watcher = Stop()
    resumed = run_unlearning(small_plan(settings), out, observer=watcher)
    assert any("Resuming" in note for note in watcher.notes)
    assert not resumed.known and not (out / ".partial").exists()
    if phase != "evaluation":
        assert watcher.started[phase] > 0

    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "other"))
    whole = run_unlearning(small_plan(settings), tmp_path / "whole")
    assert weights(out) == weights(whole.folder)
    assert hashes_of(resumed.record) == hashes_of(whole.record)
    assert resumed.record["metrics"] == whole.record["metrics"]


def test_a_damaged_snapshot_costs_only_time(tmp_path: Path, small_plan: Make) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_unlearning(small_plan(), out, observer=Stop("unlearn", 7))
    (out / ".partial" / "unlearn.pt").write_bytes(b"half a file")
    watcher = Stop()
    run_unlearning(small_plan(), out, observer=watcher)
    assert any("is damaged; unlearning starts again" in note for note in watcher.notes)
    assert watcher.started["unlearn"] == 0


def test_a_run_without_retrain_has_no_gap(tmp_path: Path, small_plan: Make) -> None:
    record = run_unlearning(small_plan(retrain=False), tmp_path / "run").record
    assert record["metrics"]["retrain"] is None and record["gap"] is None
    assert record["seconds"]["retrain"] is None


def test_a_checkpoint_replaces_the_initial_training(tmp_path: Path, small_plan: Make) -> None:
    first = run_unlearning(small_plan(), tmp_path / "a")
    plan = small_plan(model=ModelRequest(str(first.folder)), split=SplitRequest(classes=("1",)))
    record = run_unlearning(plan, tmp_path / "b").record
    assert record["seconds"]["initial"] is None
    assert record["hashes"]["initial"] == first.record["hashes"]["unlearned"]


def test_a_run_that_cannot_work_leaves_nothing(tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan({"feature_layer": "no_such_layer"})
    with pytest.raises(UserError, match="no_such_layer"):
        run_unlearning(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_small_images_run_on_one_thread_and_the_number_comes_back(tmp_path: Path, small_plan: Make) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        outcome = run_unlearning(small_plan(), tmp_path / "run")
        assert torch.get_num_threads() == 2
        assert json.loads((outcome.folder / "config.json").read_text())["threads"] == 1
    finally:
        torch.set_num_threads(before)


SISA = {"shards": 2, "slices": 2, "batch_size": 32}


def test_an_ensemble_is_a_run_like_any_other(tmp_path: Path, small_plan: Make) -> None:
    watcher = Stop()
    outcome = run_unlearning(small_plan(SISA, method="sisa"), tmp_path / "run", observer=watcher)
    record = outcome.record
    assert set(record["seconds"]) == {"initial", "unlearned", "retrain", "original"}
    assert all(value > 0 for value in record["seconds"].values())
    assert list(watcher.finished) == ["initial", "original", "unlearn", "retrain", "evaluation", "pictures"]
    with (outcome.folder / "history.csv").open() as stream:
        phases = [row["phase"] for row in csv.DictReader(stream)]
    assert phases == ["initial", *["original"] * 2, *["unlearned"] * 2, "retrain"]
    loaded = load_model(outcome.folder / "model.safetensors")
    assert isinstance(loaded, Ensemble) and model_hash(loaded) == record["hashes"]["unlearned"]

    again = run_unlearning(small_plan({**SISA, "weights": "size"}, method="sisa"), tmp_path / "again", observer=watcher)
    assert watcher.finished["original"] == "from the cache"
    assert again.record["seconds"]["original"] == pytest.approx(record["seconds"]["original"], rel=0.5)
    assert again.record["hashes"]["unlearned"] != record["hashes"]["unlearned"]


@pytest.mark.parametrize(("phase", "step"), [("original", 60), ("unlearn", 60)])
def test_an_interrupted_ensemble_goes_on_and_ends_the_same(
    tmp_path: Path, small_plan: Make, monkeypatch: pytest.MonkeyPatch, phase: str, step: int
) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    plan = small_plan(SISA, method="sisa", retrain=False)
    with pytest.raises(KeyboardInterrupt):
        run_unlearning(plan, tmp_path / "run", observer=Stop(phase, step))
    watcher = Stop()
    resumed = run_unlearning(plan, tmp_path / "run", observer=watcher)
    assert watcher.started[phase] > 0 and not [note for note in watcher.notes if "starts again" in note]
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "other"))
    whole = run_unlearning(plan, tmp_path / "whole")
    assert hashes_of(resumed.record) == hashes_of(whole.record)


def test_wrong_labels_reach_the_initial_model_and_not_retrain(tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan(split=SplitRequest(task="noisy"), seed=2)
    record = run_unlearning(plan, tmp_path / "run").record
    split, fingerprint = plan.split, data.load("digits").fingerprint()
    assert split.dataset.fingerprint() != fingerprint == plan.identity["fingerprint"]
    hashes = {}
    for name, images, config in (
        ("initial", split.train, plan.initial_config),
        ("retrain", split.retain, plan.retrain_config),
    ):
        assert config is not None
        stream = derive_seed(2, name.lower())
        fresh = models.build(**plan.initial.architecture, seed=stream)
        with suited_threads(split.dataset, plan.device):
            trained = train(fresh, images, split.preprocess, config, device=plan.device, seed=stream)
        hashes[name] = model_hash(trained.model)
    assert {name: record["hashes"][name] for name in hashes} == hashes
    clean = data.load("digits").train.targets
    assert not torch.equal(split.train.targets, clean)
    assert torch.equal(split.retain.targets, clean[split.retain_indices])
    again = Split.load(tmp_path / "run" / "split.json", data.load("digits"))
    assert again.dataset.fingerprint() == split.dataset.fingerprint()


def test_withheld_labels_reach_no_training(tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan(split=SplitRequest(task="semi", labelled=0.5), seed=2)
    record = run_unlearning(plan, tmp_path / "run").record
    split, config = plan.split, plan.retrain_config
    assert isinstance(config, MeanTeacherConfig) and plan.identity["unlabelled_sha256"]
    stream = derive_seed(2, "retrain")
    fresh = models.build(**plan.initial.architecture, seed=stream)
    with suited_threads(split.dataset, plan.device):
        images = TrainingSet(
            split.train.subset(split.labelled_retain_indices),
            split.train.subset(split.unlabelled_indices).unlabelled(),
        )
        trained = fit(fresh, images, split.preprocess, config, device=plan.device, seed=stream)
    assert record["hashes"]["retrain"] == model_hash(trained.model)
    other = small_plan(split=SplitRequest(task="semi", labelled=0.4), seed=2)
    assert other.identity["unlabelled_sha256"] != plan.identity["unlabelled_sha256"]


@pytest.mark.parametrize(
    ("request_", "settings", "message"),
    [
        ({"split": SplitRequest(task="semi"), "label_aware": True}, {}, "method 'mixunlearn' needs labels here"),
        ({"split": SplitRequest(task="semi"), "method": "scrub"}, {}, "method 'scrub' needs labels here"),
        ({}, {"initial.ema": "0.9"}, "the setting ema belongs to semi-supervised training, that is to task 'semi'"),
        (
            {"split": SplitRequest(labelled=0.5)},
            {},
            "a share of labelled samples belongs to task 'semi'; in task 'class'",
        ),
        ({"split": SplitRequest(manifest=Path("s"), labelled=0.5)}, {}, "a saved split already says what to forget"),
    ],
)
def test_what_does_not_go_with_withheld_labels(
    small_plan: Make, request_: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        small_plan(settings, **{name: value for name, value in request_.items()})


def test_split_trainings_and_unlearning_can_have_seeds_of_their_own(tmp_path: Path, small_plan: Make) -> None:
    data_task = {"split": SplitRequest("data"), "seed": 1}
    plans = {
        "all": small_plan(**data_task),
        "split": small_plan(**data_task, split_seed=2),
        "training": small_plan(**data_task, training_seed=2),
        "given": small_plan(**data_task, split_seed=1, training_seed=1),
    }
    divided = {name: plan.split.forget_indices.tolist() for name, plan in plans.items()}
    assert divided["all"] == divided["training"] == divided["given"] != divided["split"]
    runs = {name: run_unlearning(plan, tmp_path / name) for name, plan in plans.items() if name != "split"}
    hashes = {name: hashes_of(run.record) for name, run in runs.items()}
    assert hashes["all"] == hashes["given"]
    assert all(hashes["all"][name] != hashes["training"][name] for name in ("initial", "retrain", "unlearned"))
    # What was trained for a run is found again by the seed that its record says.
    assert run_verification(VerifyInputs(runs["training"].folder, device="cpu")).holds
    config = json.loads((runs["training"].folder / "config.json").read_text())
    assert (config["seed"], config["training_seed"]) == (1, 2)
