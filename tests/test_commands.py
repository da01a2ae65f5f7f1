"""The commands as functions do what the commands do, with names of options as names of arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pymixunlearn
from pymixunlearn import UserError, data, models, tasks

FEW = {"epochs": 1, "initial.epochs": 1, "retrain.epochs": 1}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_unlearn_audit_and_verify_a_run() -> None:
    run = pymixunlearn.unlearn(forget_class=(3,), settings=FEW, retrain=False, thumbnails=False, device="cpu", out="r")
    assert run.folder == Path("r") and run.record["metrics"]["retrain"] is None
    assert json.loads(Path("r/split.json").read_text())["params"] == {"classes": [3]}
    assert all(check.holds for check in pymixunlearn.verify("r", hashes_only=True))
    measured = pymixunlearn.evaluate("r", split="r/split.json", device="cpu")
    assert measured.record["metrics"]["model"]["test_f"] == run.record["metrics"]["unlearned"]["test_f"]


def test_data_split_and_model_may_be_objects() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 1, 8, 8, generator=generator)
    own = data.from_tensors(images[:40], torch.arange(40) % 2, images[40:], torch.arange(20) % 2)
    model = models.build("cnn", num_classes=2, in_channels=1, image_size=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = pymixunlearn.unlearn(
        model, own, [3, 7], "neggrad", "r", settings={"epochs": 1}, retrain=False, thumbnails=False, device="cpu"
    )
    assert json.loads(Path("r/split.json").read_text())["forget"]["count"] == 2 and run.record["task"] == "indices"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    split = tasks.class_split(own, [1])
    trained = pymixunlearn.retrain("cnn", own, split, "t", settings={"epochs": 1}, device="cpu")
    assert trained.record["task"] == "class"
    other = data.from_tensors(images[:40], torch.arange(40) % 2, images[40:], torch.arange(20) % 2)
    with pytest.raises(UserError, match="expected one of the data given"):
        pymixunlearn.retrain("cnn", other, split)
    with pytest.raises(UserError, match="a Linear of your own; expected a model of models.build"):
        pymixunlearn.unlearn(torch.nn.Linear(2, 2), own)


def test_compare_and_tune() -> None:
    settings = {"initial": {"epochs": 1}, "retrain": {"epochs": 1}, "neggrad": {"epochs": 1}}
    compared = pymixunlearn.compare(["neggrad"], seeds=[0], settings=settings, device="cpu", out="c")
    assert compared.finished == 1
    pytest.importorskip("optuna")
    few = {"initial.epochs": 1, "retrain.epochs": 1}
    tuned = pymixunlearn.tune("neggrad", grid={"epochs": [1]}, settings=few, trials=1, device="cpu", out="t")
    assert tuned.best is not None and tuned.best.settings["epochs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"forget_clas": (1,)}, "unknown option 'forget_clas'.*Did you mean 'forget_class'"), ({"method": "x"}, "'x'")],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pymixunlearn.unlearn(**options)  # type: ignore[arg-type]


def test_importing_the_package_loads_nothing_large() -> None:
    code = "import sys, pymixunlearn; pymixunlearn.unlearn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
