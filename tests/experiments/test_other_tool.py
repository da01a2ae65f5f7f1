"""Models that another tool unlearned: evaluated, audited and verified like a run of this package."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from mixunlearn_cli.main import main
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import pymixunlearn
from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.methods.function import LabelledInputs

NET = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_classes))
"""


def shown(result: Result) -> str:
    """Return what a command printed, its lines put together."""
    return " ".join(result.output.split())


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model: nn.Module, images: Dataset[Any], sign: float = 1.0) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for inputs, labels in DataLoader(images, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        (sign * F.cross_entropy(model(inputs), labels)).backward()
        optimizer.step()


def ascend(model: nn.Module, forget: Dataset[Any], retain: Dataset[Any]) -> None:
    train(model, forget, -1.0)
    train(model, retain)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a plain network before and after another tool unlearned class 0 of the digits."""
    root = tmp_path_factory.mktemp("other")
    (root / "net.py").write_text(NET)
    digits = data.load("digits", validation=0.1)
    split = tasks.class_split(digits, [0])
    torch.manual_seed(0)
    before = net()
    for _ in range(4):
        train(before, LabelledInputs(digits.train, digits.preprocess))
    after = copy.deepcopy(before)
    ascend(
        after,
        *(LabelledInputs(p, split.preprocess) for p in (split.forget, split.retain)),
    )
    for name, model in (("before", before), ("after", after)):
        torch.save(model.state_dict(), root / f"{name}.pt")
    return root


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


MODEL = ("--model", "net.py:make", "--weights", "after.pt", "--before", "before.pt")
DATA = ("--dataset", "digits", "--validation", "0.1", "--device", "cpu")


@pytest.fixture
def judged(folder: Path, tmp_path: Path) -> Path:
    made = folder / "judged"
    if not made.exists():
        result = run("evaluate", *MODEL, *DATA, "--out", "judged")
        assert result.exit_code == 0, result.output
        assert "Is this the accuracy that you know of" in " ".join(result.output.split())
        assert "cannot be known, since the run was made without Retrain" in " ".join(result.stdout.split())
        assert "Acceptance" in result.stdout
    return Path(shutil.copytree(made, tmp_path / "judged"))


def test_evaluate_writes_the_table_the_report_and_the_record(judged: Path) -> None:
    record = json.loads((judged / "report.json").read_text())
    assert record["method"]["name"] == "another-tool" and record["method"]["label_aware"] is None
    assert record["metrics"]["initial"]["test_f"] > 90 > record["metrics"]["unlearned"]["test_f"]
    assert set(record["intervals"]["unlearned"]) > {"test_r", "test_f"} and record["acceptance"]["unlearned"]
    assert record["models"]["initial_sha256"] != record["models"]["unlearned_sha256"]
    page = (judged / "report.html").read_text()
    assert "Another tool on digits" in page and "says nothing of how it was" in page
    assert "mixunlearn-cli unlearn" not in page and "all settings" not in page.lower()
    metrics = json.loads((judged / "metrics.json").read_text())
    assert metrics["seconds"] == {"initial": None, "unlearned": None, "retrain": None}


def test_verify_compares_the_record_with_weights_model_and_split_of_the_caller(judged: Path, folder: Path) -> None:
    alone = run("verify", str(judged))
    assert alone.exit_code == 0 and "--allow-code, or the same as --model, runs it" in " ".join(alone.output.split())
    given = ("--split", str(folder / "judged" / "split.json"))
    whole = run("verify", str(judged), *MODEL, *given, "--device", "cpu")
    assert whole.exit_code == 0, whole.output
    assert "the unlearned model of the record" in shown(whole) and "the run's data, D_f and D_r" in shown(whole)
    assert "metrics of initial" in shown(whole) and "metrics of unlearned" in shown(whole)
    other = run("verify", str(judged), "--model", "net.py:make", "--weights", "before.pt")
    assert other.exit_code == 3 and "another model than the record's unlearned one" in shown(other)
    torch.save(nn.Linear(2, 2).state_dict(), "small.pt")
    small = run("verify", str(judged), "--model", "net.py:make", "--weights", "small.pt")
    assert small.exit_code == 3 and "is not a" in small.output
    tasks.class_split(data.load("digits", validation=0.1), [1]).save("one.json")
    one = run("verify", str(judged), "--split", "one.json", "--hashes-only")
    assert one.exit_code == 3 and "another D_f and another D_r than the run's" in shown(one)
    wrong = run("verify", str(judged), "--model", "cnn")
    assert wrong.exit_code == 2 and "and --model says 'cnn'" in wrong.output
    (judged / "model.safetensors").write_bytes((judged / "model.safetensors").read_bytes()[:-1] + b"\1")
    assert run("verify", str(judged)).exit_code == 3


def test_audit_attacks_the_model_and_the_one_before(judged: Path) -> None:
    few = ("--shadow-models", "4", "--epochs", "1", "--jobs", "1", "--device", "cpu", "--allow-code")
    result = run("audit", str(judged), "--before", "before.pt", *few)
    assert result.exit_code == 0, result.output
    assert "LiRA, before" in result.stdout and "the shadow models did not unlearn" in " ".join(result.stdout.split())
    record = json.loads((judged / "audit.json").read_text())
    assert set(record["attacks"]) == set(record["before"]) == {"lira", "rmia"} and record["klom"] is None
    assert "RMIA, before" in (judged / "report.html").read_text()
    assert run("verify", str(judged), "--model", "net.py:make").exit_code == 0
    direct = run("audit", *MODEL, *DATA, *few, "--out", str(judged.parent / "a"))
    assert direct.exit_code == 0, direct.output
    assert json.loads((judged.parent / "a" / "audit.json").read_text())["before"] == record["before"]


def test_a_function_unlearns_the_shadow_models(judged: Path, folder: Path) -> None:
    calls = []

    def counted(model: nn.Module, forget: Dataset[Any], retain: Dataset[Any]) -> nn.Module:
        calls.append(float(next(model.parameters()).sum()))
        ascend(model, forget, retain)
        return model

    given = {"shadow_models": 4, "allow_code": True, "device": "cpu", "settings": {"epochs": 1, "lr": 3e-3}}
    found = pymixunlearn.audit(judged, method=counted, **given).record
    assert found["klom"] is not None and len(calls) == 4 and "the shadow models did not unlearn" not in found["limits"]
    again = pymixunlearn.audit(judged, method=counted, **given).record
    assert len(calls) == 8 and calls[:4] == calls[4:]
    assert again["attacks"] == found["attacks"] and again["klom"] == found["klom"]
    with pytest.raises(UserError, match="returned an int; expected the unlearned torch.nn.Module"):
        pymixunlearn.audit(judged, method=lambda model, forget, retain: 3, out=folder / "b", **given)
    with pytest.raises(UserError, match="method is 'neggrad'; expected a function"):
        pymixunlearn.audit(judged, method="neggrad", **given)  # type: ignore[arg-type]


def test_models_in_memory_are_judged_and_verified(folder: Path, tmp_path: Path) -> None:
    models = []
    for name in ("before", "after"):
        models.append(net())
        models[-1].load_state_dict(torch.load(folder / f"{name}.pt"))
    before, after = models
    digits = data.load("digits", validation=0.1)
    made = pymixunlearn.evaluate(after, digits, before=before, reference=net(), out=tmp_path / "m", device="cpu")
    assert made.record["metrics"]["retrain"]["test_r"] < 30 and made.record["gap"]["unlearned"]["mean"] > 0
    assert made.record["method"] == "another-tool" and made.to_frame is not None
    assert pymixunlearn.evaluate(after, digits, before=before, reference=net(), out=tmp_path / "m", device="cpu").known
    found = pymixunlearn.verify(made.folder, before, digits, device="cpu")
    assert found.holds and {"metrics of initial", "metrics of unlearned"} <= {check.subject for check in found}
    same = pymixunlearn.evaluate(before, digits, before=before, device="cpu")
    assert same.record["unchanged"] and same.folder == Path()


def test_what_is_meant_has_to_be_said(judged: Path) -> None:
    nothing = run("evaluate")
    assert nothing.exit_code == 2 and "an evaluation needs a trained model" in nothing.output
    untrained = run("evaluate", "--model", "net.py:make", *DATA)
    assert untrained.exit_code == 2 and "net.py:make' is a network without weights" in " ".join(
        untrained.output.split()
    )
    both = run("evaluate", "after.pt", "--weights", "before.pt", *DATA)
    assert both.exit_code == 2 and "and --weights gives another" in both.output
    assert run("evaluate", *MODEL[:4], "--before", "gone.pt", *DATA).exit_code == 1
    with pytest.raises(BadRequest, match="a function that unlearns"):
        pymixunlearn.audit(judged, attacks=("klom",))
    renamed = run("verify", str(judged), "--initial", "before.pt", "--hashes-only")
    assert renamed.exit_code == 0
