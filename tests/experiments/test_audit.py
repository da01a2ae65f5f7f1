from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pymixunlearn import data, models, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit import measure, plan_shadows
from pymixunlearn.experiments import (
    AuditInputs,
    AuditOutcome,
    BadRequest,
    DataRequest,
    ModelRequest,
    Observer,
    Plan,
    RetrainInputs,
    SplitRequest,
    TrainInputs,
    UnlearnInputs,
    resolve_audit,
    resolve_retraining,
    resolve_training,
    resolve_unlearning,
    run_audit,
    run_retraining,
    run_training,
    run_unlearning,
)
from pymixunlearn.experiments.audit import run as audit_run
from pymixunlearn.experiments.audit.shadows import Shadows, make_shadows, margins_of
from pymixunlearn.experiments.common import stages
from pymixunlearn.experiments.verify import VerifyInputs, run_verification
from pymixunlearn.methods import Method
from pymixunlearn.training import TrainConfig, train

CPU = torch.device("cpu")
MEMORISE = TrainConfig(epochs=40, lr=5e-3, batch_size=64)
ARCHITECTURE = {"name": "cnn", "num_classes": 2, "in_channels": 1, "image_size": 8}
Make = Callable[..., Plan]
Audit = Callable[..., AuditOutcome]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the trainings and unlearnings that are done, not taken from the cache."""
    done: list[str] = []
    whole, unlearn = stages.fit, Method.unlearn

    def counted(*arguments: Any, **keywords: Any) -> Any:
        result = whole(*arguments, **keywords)
        done.append(keywords["name"])
        return result

    def unlearnt(self: Method, *arguments: Any, **keywords: Any) -> Any:
        result = unlearn(self, *arguments, **keywords)
        done.append(self.name)
        return result

    monkeypatch.setattr(stages, "fit", counted)
    monkeypatch.setattr(Method, "unlearn", unlearnt)
    return done


@pytest.fixture
def small_run(tmp_path: Path, small_plan: Make) -> Path:
    """A run folder of a cheap method that forgets 40 % of five classes."""
    plan = small_plan({"epochs": 1}, method="fine-tune", split=SplitRequest(task="data"), retrain=False)
    return run_unlearning(plan, tmp_path / "run").folder


def audited(
    folder: Path | None, observer: Observer | None = None, out: Path | None = None, **fields: Any
) -> AuditOutcome:
    fields = {"device": "cpu", "jobs": 1, "epochs": 1, "shadow_models": 8, **fields}
    return run_audit(resolve_audit(AuditInputs(run=folder, **fields)), out, observer=observer)


def memories() -> tasks.Split:
    """Digits with random labels, which can be remembered but not learnt."""
    digits = data.load("digits")
    chance = torch.Generator().manual_seed(0)
    parts = []
    for images, count in ((digits.train, 160), (digits.test, 160)):
        parts += [images.images[:count], torch.randint(0, 2, (count,), generator=chance)]
    return tasks.index_split(data.from_tensors(*parts), list(range(80)))


def test_an_overfitted_model_is_found_out_and_a_retrained_one_is_not() -> None:
    split = memories()
    plan = plan_shadows(split, 4)
    margins = make_shadows(Shadows(plan, ARCHITECTURE, MEMORISE, None, None, CPU, 0), jobs=1, observer=Observer())
    found = {}
    for name, images in (("overfitted", split.train), ("retrained", split.retain)):
        model = train(
            models.build(**ARCHITECTURE, seed=7), images, split.preprocess, MEMORISE, device=CPU, seed=7
        ).model
        target = margins_of(model, plan.audited(), split.preprocess, CPU)
        found[name] = measure(plan, target, margins, ("lira", "rmia"))["attacks"]
    for attack in ("lira", "rmia"):
        overfitted, retrained = found["overfitted"][attack]["auc"], found["retrained"][attack]["auc"]
        assert overfitted["low"] > 0.7, attack
        assert retrained["low"] <= 0.5 <= retrained["high"], attack
    assert found["overfitted"]["lira"]["accuracy"]["low"] > 60


def test_an_audit_of_a_run_writes_its_file_into_the_folder(small_run: Path, trainings: list[str]) -> None:
    def others() -> dict[Path, bytes]:
        made_anew = ("audit.json", "report.html", "report.json")
        return {path: path.read_bytes() for path in small_run.rglob("*.*") if path.name not in made_anew}

    before = others()
    outcome = audited(small_run)
    assert outcome.file == small_run / "audit.json" and not outcome.known
    assert {name: trainings.count(name) for name in set(trainings)} == {"initial": 8, "fine-tune": 8, "retrain": 8}
    assert others() == before

    record = json.loads(outcome.file.read_text())
    assert record == json.loads(json.dumps(outcome.record))
    assert list(record["attacks"]) == ["lira", "rmia", "u-lira"]
    for attack in record["attacks"].values():
        for key, highest in (("accuracy", 100), ("auc", 1), ("tpr_at_1_fpr", 100), ("tpr_at_01_fpr", 100)):
            assert 0 <= attack[key]["low"] <= attack[key]["value"] <= attack[key]["high"] <= highest
    assert set(record["klom"]) == {"forget", "retain", "unseen", "floor"}
    assert record["shadow_models"] == 8
    assert f"With {record['samples']['unseen']} unseen samples" in record["limits"]
    assert record["samples"]["members"] == record["samples"]["unseen"] > 100

    # The report speaks of it, and still holds.
    page = (small_run / "report.html").read_text("utf-8")
    assert "Attacks with 8 shadow models" in page and "KLoM, forgotten samples" in page
    assert json.loads((small_run / "report.json").read_text())["audit"] == record
    assert all(check.holds for check in run_verification(VerifyInputs(small_run, hashes_only=True)))


def test_an_audit_runs_no_code_that_the_record_names(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n")
    config = json.loads((small_run / "config.json").read_text())
    code = f"{tmp_path / 'nets.py'}:make"
    for change in ({"architecture_name": code}, {"dataset_spec": code}, {"dataset_spec": None, "dataset": code}):
        (small_run / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match="code that a record names is not run unasked"):
            audited(small_run)
    assert not (tmp_path / "nets.ran").exists()


def test_a_finished_audit_is_not_run_again_and_another_one_replaces_it(small_run: Path, trainings: list[str]) -> None:
    first = audited(small_run)
    done = len(trainings)
    report, renewed = small_run / "report.json", (small_run / "report.json").read_bytes()
    again = audited(small_run)
    assert again.known and again.record == json.loads(json.dumps(first.record)) and len(trainings) == done
    assert report.read_bytes() == renewed

    # One that was killed before it renewed the report.
    before = json.loads(renewed) | {"audit": None}
    report.write_text(json.dumps(before))
    assert audited(small_run).known and len(trainings) == done
    assert json.loads(report.read_text())["audit"] == json.loads(json.dumps(first.record))
    assert all(check.holds for check in run_verification(VerifyInputs(small_run, hashes_only=True)))

    more = audited(small_run, shadow_models=10)
    assert not more.known and len(trainings) == done + 6  # two more of each kind
    assert json.loads(more.file.read_text())["shadow_models"] == 10


class Interrupt(Observer):
    """Interrupts, as Ctrl-C would, when so many of the shadow models' hundredths are done."""

    def __init__(self, hundredths: int) -> None:
        self.hundredths = hundredths

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        if phase == "shadows" and done >= self.hundredths:
            raise KeyboardInterrupt


def test_an_interrupted_audit_goes_on_and_ends_the_same(
    small_run: Path, tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        audited(small_run, Interrupt(250))
    assert not (small_run / "audit.json").exists()
    assert 6 <= len(trainings) < 12
    resumed = audited(small_run)
    assert len(trainings) == 24
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "other"))
    whole = audited(small_run, out=tmp_path / "whole")
    assert len(trainings) == 48
    for key in ("attacks", "klom", "limits", "findings"):
        assert resumed.record[key] == whole.record[key]


def test_processes_give_what_one_process_gives(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = audited(small_run, attacks=("lira",), shadow_models=4)
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    parallel = audited(small_run, attacks=("lira",), shadow_models=4, jobs=2, out=tmp_path / "parallel")
    assert parallel.record["attacks"] == alone.record["attacks"]


def test_retrained_models_serve_every_method(
    tmp_path: Path, small_run: Path, small_plan: Make, trainings: list[str]
) -> None:
    audited(small_run)
    trainings.clear()
    plan = small_plan({"epochs": 1}, method="gradient-ascent", split=SplitRequest(task="data"), retrain=False)
    audited(run_unlearning(plan, tmp_path / "other").folder)
    assert "retrain" not in trainings and "initial" not in trainings


def test_a_model_that_was_trained_with_few_labels_is_not_audited(tmp_path: Path) -> None:
    request = RetrainInputs(split=SplitRequest(task="semi"), device="cpu", settings={"epochs": 1})
    folder = run_retraining(resolve_retraining(request), tmp_path / "model").folder
    with pytest.raises(UserError, match="was trained with few labels"):
        resolve_audit(AuditInputs(model=ModelRequest(str(folder)), split=SplitRequest(task="data"), device="cpu"))


def test_a_model_that_never_unlearned_is_audited_as_it_was_trained(tmp_path: Path) -> None:
    request = TrainInputs(device="cpu", settings={"epochs": 2, "lr": 2e-3})
    folder = run_training(resolve_training(request), tmp_path / "trained").folder
    plan = resolve_audit(
        AuditInputs(
            model=ModelRequest(str(folder)), split=SplitRequest(task="data"), shadow_models=4, device="cpu", jobs=1
        )
    )
    assert (plan.shadows.initial.epochs, plan.shadows.initial.lr) == (2, 2e-3)
    assert plan.mismatch is None and plan.shadows.stages == ("initial",)
    outcome = run_audit(plan, tmp_path / "audit")
    assert set(outcome.record["attacks"]) == {"lira", "rmia"} and outcome.record["klom"] is None

    (folder / "config.json").unlink()
    plan = resolve_audit(AuditInputs(model=ModelRequest(str(folder)), split=SplitRequest(task="data"), device="cpu"))
    assert plan.shadows.initial == TrainConfig() and "is not recorded" in str(plan.mismatch)
    assert len(plan.samples.seen) == 16


def test_rmia_alone_needs_fewer_models(small_run: Path) -> None:
    plan = resolve_audit(AuditInputs(run=small_run, attacks=("rmia",), device="cpu"))
    assert len(plan.samples.seen) == 8 and plan.shadows.stages == ("initial", "unlearn")


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, BadRequest, "needs a run folder of 'unlearn', or a trained model"),
        ({"model": ModelRequest("cnn")}, BadRequest, "'cnn' is a network without weights"),
        ({"model": ModelRequest("gone.pt")}, UserError, "'gone.pt' does not exist"),
        ({"model": ModelRequest("gone.pt"), "settings": {"epoch": 1}}, BadRequest, "Did you mean 'epochs'"),
        ({"model": ModelRequest("gone.pt"), "attacks": ("klom",)}, BadRequest, "'klom' compares a method with retrain"),
        ({"attacks": ("ulira",)}, BadRequest, "unknown attack 'ulira'; .* Did you mean 'u-lira'"),
        ({"shadow_models": 5}, BadRequest, "in pairs .* got 5"),
        ({"run": Path("nowhere")}, UserError, "'nowhere' holds no finished run of 'unlearn'"),
        (
            {"run": Path("nowhere"), "shadow_models": 4, "attacks": ("u-lira",)},
            BadRequest,
            "'u-lira' needs at least 8 shadow models, got 4",
        ),
        ({"run": Path("nowhere"), "model": ModelRequest("cnn")}, BadRequest, "a run already says"),
        ({"run": Path("nowhere"), "split": SplitRequest(classes=("1",))}, BadRequest, "a run already says"),
        ({"run": Path("nowhere"), "settings": {"lr": 1}}, BadRequest, "a run already says"),
    ],
)
def test_mistakes_are_one_sentence(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_audit(AuditInputs(device="cpu", **fields))


def test_shadow_margins_are_of_models_that_saw_what_the_plan_says() -> None:
    """Random labels are remembered: margins are high exactly where a shadow model saw the sample."""
    plan = plan_shadows(memories(), 2)
    work = Shadows(plan, ARCHITECTURE, MEMORISE, None, None, CPU, 0)
    made = work(0, lambda share: None)
    margins = made.shadows
    assert made.retrained is None and made.initial is None
    own = margins[: plan.candidates]
    assert (own[plan.seen[0]] > 0).mean() > 0.97
    assert (own[~plan.seen[0]] > 0).mean() < 0.7
    assert np.mean(margins[-len(plan.retained) :] > 0) > 0.97


def test_shadow_models_unlearn_as_the_audited_one_did(
    tmp_path: Path, small_plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the run's trainings, and a setting chosen by the same validation set."""
    settings = {"epochs": None, "share": 0.9, "initial.epochs": 2, "retrain.epochs": 2}
    request = DataRequest("digits@600")
    plan = small_plan(settings, data=request, method="prune-reset")
    run = run_unlearning(plan, tmp_path / "run").folder
    work = resolve_audit(AuditInputs(run=run, device="cpu", shadow_models=8)).shadows
    assert work.recipe is not None and work.recipe == plan.recipe and work.recipe.initial.epochs == 2
    split, seen = work.plan.shadow_split(0), dict[str, Any]()
    assert split.dataset.validation is not None and plan.split.dataset.validation is not None
    assert split.dataset.validation.fingerprint() == plan.split.dataset.validation.fingerprint()

    def unlearn(self: Method, *arguments: Any, **keywords: Any) -> Any:
        seen.update(keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(Method, "unlearn", unlearn)
    with pytest.raises(KeyboardInterrupt):
        work(0, lambda share: None)
    assert seen["recipe"] == plan.recipe


def test_shadow_models_unroll_the_training_that_the_audited_one_had(tmp_path: Path) -> None:
    settings = {"initial.epochs": 2, "initial.lr": 5e-4}
    options: dict[str, Any] = {"split": SplitRequest(task="data"), "retrain": False, "settings": settings}
    plan = resolve_unlearning(UnlearnInputs("unroll", device="cpu", **options))
    run = run_unlearning(plan, tmp_path / "run").folder
    work = resolve_audit(AuditInputs(run=run, device="cpu", shadow_models=8)).shadows
    assert work.recipe is not None and work.recipe.initial == plan.recipe.initial
    assert (work.recipe.initial.epochs, work.recipe.initial.lr) == (2, 5e-4)


def test_outputs_that_no_attack_works_on_are_told_before_any_training(
    small_run: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_run, "margins_of", lambda *arguments: np.full(9, np.inf))
    with pytest.raises(UserError, match="target has 9 of 9 numbers that are NaN or infinite"):
        audited(small_run)
    assert not trainings


def test_a_method_that_retrains_is_not_told_from_retraining(tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan({"epochs": 1}, method="retrain", split=SplitRequest(task="data"), retrain=False)
    outcome = audited(run_unlearning(plan, tmp_path / "run").folder, attacks=("u-lira", "klom"), shadow_models=8)
    area = outcome.record["attacks"]["u-lira"]["auc"]
    assert area["low"] <= 0.5 <= area["high"] and area["value"] != 0.5
    forgotten, floor = (outcome.record["klom"][kind]["median"] for kind in ("forget", "floor"))
    assert forgotten == pytest.approx(floor, rel=0.3)
