"""Decisions of the acceptance test in a run folder: made again, and found where they are forged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pymixunlearn import data, tasks
from pymixunlearn.evaluation import Acceptance
from pymixunlearn.experiments import DataRequest, UnlearnInputs, resolve_unlearning, run_unlearning
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.unlearn.report import write_report
from pymixunlearn.experiments.verify import Verification, run_verification
from pymixunlearn.experiments.verify_acceptance import _differences, check_acceptance

SMALL = {"epochs": 2, "initial.epochs": 1, "retrain.epochs": 1}


@pytest.fixture(scope="module")
def finished(model_cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on data with a validation set; tests work on copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYMIXUNLEARN_CACHE", str(model_cache_folder))
        plan = resolve_unlearning(UnlearnInputs(device="cpu", settings=SMALL, data=DataRequest("digits@700")))
        return run_unlearning(plan, tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def verify(folder: Path) -> Verification:
    return run_verification(VerifyInputs(folder, device="cpu"))


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change metrics.json, and write every hash and the report anew."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text("utf-8"))
    change(metrics)
    path.write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")
    write_report(folder)


def test_decisions_are_made_again(folder: Path) -> None:
    found = verify(folder)
    tested = {check.subject: check.detail for check in found if check.subject.startswith("acceptance")}
    assert found.holds and set(tested) == {f"acceptance of {name}" for name in ("initial", "unlearned", "Retrain")}
    assert all(detail.endswith(", as recorded") for detail in tested.values())
    assert not any("acceptance" in sentence for sentence in found.not_checked)


def test_a_forged_decision_is_found(folder: Path) -> None:
    forge(folder, lambda metrics: metrics["acceptance"]["unlearned"].update(decision="accepted", ks=0.01))
    (wrong,) = (check for check in verify(folder) if not check.holds)
    assert wrong.subject == "acceptance of unlearned"
    assert "ks is" in wrong.detail and "the decision is" in wrong.detail


def test_a_decision_without_a_validation_set_is_none() -> None:
    split, missing = tasks.class_split(data.load("digits")), list[str]()
    metrics = {"acceptance": {"unlearned": FOUND}, "seed": 0}
    options = {"device": torch.device("cpu"), "watcher": Observer(), "missing": missing, "same_machine": True}
    (check,) = check_acceptance({}, split, {}, metrics, **options)  # type: ignore[arg-type]
    assert not check.holds and "no validation set" in check.detail and not missing


def test_without_the_initial_model_nothing_is_tested_and_that_is_said() -> None:
    split, missing = tasks.class_split(data.load("digits@700")), list[str]()
    metrics = {"acceptance": {"unlearned": FOUND}, "seed": 0}
    options = {"device": torch.device("cpu"), "watcher": Observer(), "missing": missing, "same_machine": True}
    for config in ({"initial": {"lr": 1e-3}}, {"initial": None, "resurfacing_lr": 1e-3}, {"initial": None}):
        assert not list(check_acceptance({}, split, config, metrics, **options))  # type: ignore[arg-type]
    needs, _, unknown = missing
    assert needs.endswith("it needs the initial model") and unknown.endswith("learning rate is not recorded")


FOUND = Acceptance(
    "accepted", "because", 0.095, 0.02, 0.1, initial_ks=0.4, smallest_ks=0.2, forget_samples=400, unseen_samples=400
).to_dict()


@pytest.mark.parametrize(
    ("recorded", "same_machine", "right"),
    [
        ({}, True, True),
        ({"decision": "refused"}, True, False),
        ({"decision": "refused"}, False, True),  # 0.095 lies at the bound of 0.1, and rounding differs there
        ({"decision": "cannot tell"}, True, False),
        ({"ks": 0.104}, False, True),
        ({"ks": 0.106}, False, False),
        ({"ks": None}, False, False),
        ({"eps": 1.0}, True, False),
        ({"bound": 0.9}, False, False),
        ({"unseen_samples": 500}, False, False),
        ({"reason": "for another reason"}, True, False),
        ({"reason": "because (0.096)", "ks": 0.096}, False, True),  # it has the numbers in it
    ],
)
def test_what_another_machine_may_find(recorded: dict[str, Any], same_machine: bool, right: bool) -> None:
    assert (not _differences(FOUND, {**FOUND, **recorded}, same_machine=same_machine)) is right


@pytest.mark.parametrize(
    ("name", "another", "forged"),
    [
        ("probe_auc", 0.604, 0.5),
        ("probe_interval", [0.565, 0.645], [0.45, 0.64]),
        ("auc_interval", [0.555, 0.645], [0.555, 0.9]),
        ("eps_interval", [1.2, 4.9], [5.0]),
        ("shown_again", 61.0, 55.0),
    ],
)
def test_numbers_beside_a_decision_are_looked_at_too(name: str, another: Any, forged: Any) -> None:
    numbers = {"probe_auc": 0.6, "probe_interval": [0.56, 0.64], "auc_interval": [0.55, 0.65]}
    found = {**FOUND, **numbers, "eps_interval": [1.0, 5.0], "shown_again": 60.0}
    assert not _differences(found, {**found, name: another}, same_machine=False)
    assert _differences(found, {**found, name: forged}, same_machine=False)[0].startswith(f"{name} is")
    older = {key: value for key, value in found.items() if key != name}
    assert not _differences(found, older, same_machine=True)


def test_a_reason_is_not_another_one_because_a_number_is() -> None:
    clear = {**FOUND, "ks": 0.05, "reason": "distance 0.050"}
    assert not _differences(clear, {**clear, "ks": 0.051, "reason": "distance 0.051"}, same_machine=True)
    assert _differences(clear, {**clear, "ks": 0.051, "reason": "no trace at all"}, same_machine=True)


def test_far_from_the_bound_no_machine_decides_otherwise() -> None:
    clear = {**FOUND, "ks": 0.05}
    assert _differences(clear, {**clear, "decision": "refused"}, same_machine=False)
