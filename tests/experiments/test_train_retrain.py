from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    BadRequest,
    EvaluateInputs,
    ModelRequest,
    RetrainInputs,
    Run,
    SplitRequest,
    TrainInputs,
    resolve_retraining,
    resolve_training,
    run_evaluation,
    run_retraining,
    run_training,
)


def trained(out: Path, *, command: str, **fields: object) -> Run:
    given: dict[str, Any] = {"device": "cpu", "settings": {"epochs": "2"}, **fields}
    if command == "train":
        return run_training(resolve_training(TrainInputs(**given)), out)
    return run_retraining(resolve_retraining(RetrainInputs(**given)), out)


def test_a_curve_is_the_same_training_with_the_test_accuracy(tmp_path: Path) -> None:
    plain, curve = (trained(tmp_path / str(asked), command="train", curve=asked) for asked in (False, True))
    assert curve.record["hashes"]["initial"] == plain.record["hashes"]["initial"]
    lines = list(csv.DictReader((curve.folder / "history.csv").open()))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert float(lines[-1]["test"]) == pytest.approx(curve.record["metrics"]["initial"]["test"])
    assert "test" not in (plain.folder / "history.csv").read_text().splitlines()[0].split(",")


def test_train_writes_a_checkpoint_with_its_accuracies(tmp_path: Path) -> None:
    outcome = trained(tmp_path / "run", command="train")
    names = ["config.json", "history.csv", "metrics.json", "model.safetensors", "model.yaml"]
    assert sorted(path.name for path in outcome.folder.iterdir()) == names
    assert set(outcome.record["metrics"]["initial"]) == {"train", "test"}
    assert outcome.record["metrics"]["initial"]["test"] > 70
    assert trained(tmp_path / "run", command="train").known


def test_retrain_never_sees_what_is_forgotten(tmp_path: Path) -> None:
    outcome = trained(tmp_path / "run", command="retrain", split=SplitRequest(classes=("1",)))
    assert outcome.record["metrics"]["retrain"]["test_f"] == 0.0
    assert json.loads((outcome.folder / "split.json").read_text())["params"] == {"classes": [1]}


def test_retrain_with_few_labels_has_the_settings_of_mean_teacher(tmp_path: Path) -> None:
    settings = {"epochs": "1", "ema": "0.9"}
    outcome = trained(tmp_path / "a", command="retrain", split=SplitRequest(task="semi"), settings=settings)
    kept = json.loads((outcome.folder / "config.json").read_text())["settings"]
    assert (kept["ema"], kept["consistency"]) == (0.9, 30.0)
    for command in ("train", "retrain"):
        with pytest.raises(BadRequest, match="the setting ema belongs to semi-supervised training"):
            trained(tmp_path / "b", command=command, settings=settings)


def test_a_checkpoint_lends_retrain_its_architecture_only(tmp_path: Path) -> None:
    initial = trained(tmp_path / "initial", command="train")
    by_name = trained(tmp_path / "a", command="retrain")
    by_file = trained(tmp_path / "b", command="retrain", model=ModelRequest(str(initial.folder)))
    assert by_name.record["hashes"]["retrain"] == by_file.record["hashes"]["retrain"]


def test_train_refuses_a_checkpoint_and_unknown_settings(tmp_path: Path) -> None:
    initial = trained(tmp_path / "initial", command="train")
    with pytest.raises(BadRequest, match="trained from a network's name"):
        trained(tmp_path / "b", command="train", model=ModelRequest(str(initial.folder)))
    with pytest.raises(BadRequest, match="Did you mean 'epochs'"):
        trained(tmp_path / "b", command="train", settings={"epoch": 1})
    assert not (tmp_path / "b").exists()


def test_evaluation_measures_a_checkpoint_beside_a_reference(tmp_path: Path) -> None:
    initial = trained(tmp_path / "initial", command="train")
    retrain = trained(tmp_path / "retrain", command="retrain")
    request = EvaluateInputs(initial.folder, retrain.folder / "model.safetensors", device="cpu")
    outcome = run_evaluation(request, tmp_path / "evaluation")
    assert outcome.record["metrics"]["reference"] == retrain.record["metrics"]["retrain"]
    assert outcome.record["gap"]["model"]["test_f"] == outcome.record["metrics"]["model"]["test_f"]
    assert run_evaluation(request, tmp_path / "evaluation").known
    assert run_evaluation(EvaluateInputs(initial.folder, device="cpu")).record["gap"] is None


def test_evaluation_of_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'.*gone' does not exist"):
        run_evaluation(EvaluateInputs(tmp_path / "gone", device="cpu"))
