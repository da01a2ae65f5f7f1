"""The commands as functions do what the commands do, with names of options as names of arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


def test_frozen_weights_make_another_retrain() -> None:
    network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    first = next(network.parameters()).requires_grad_(False)
    split = tasks.class_split(data.load("digits"))
    runs = []
    for _ in range(2):
        runs.append(pymixunlearn.retrain(network, split.dataset, split, settings={"epochs": 1}, device="cpu"))
        with torch.no_grad():
            first.mul_(2)
    assert [run.known for run in runs] == [False, False] and runs[0].folder != runs[1].folder


class OwnNet(torch.nn.Module):
    """Network that ``models.build`` does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        self.head = torch.nn.Linear(4 * 36, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).flatten(1))


def test_the_whole_pipeline_takes_any_model_and_data_in_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(90, 1, 8, 8, generator=generator)
    images[::2] += 0.5
    own = data.from_tensors(images[:50], torch.arange(50) % 2, images[50:], torch.arange(40) % 2)
    model = OwnNet()
    few = {"epochs": 1, "retrain.epochs": 1}
    options = {"settings": few, "thumbnails": False, "device": "cpu"}
    run = pymixunlearn.unlearn(model, own, list(range(12)), "neggrad", "r", **options)  # type: ignore[arg-type]
    assert run.record["metrics"]["retrain"] is not None
    record = json.loads(Path("r/report.json").read_text())
    assert record["in_memory"] == ["data", "model"]
    assert "verify(run, model=…, data=…)" in Path("r/report.html").read_text("utf-8")

    whole = pymixunlearn.verify("r", model=model, data=own, device="cpu")
    assert whole.holds and len(whole.not_checked) == 1, list(whole)
    subjects = {check.subject for check in whole}
    assert {"data set", "model initial", "model unlearned", "model Retrain", "metrics of Retrain"} <= subjects
    without_model = pymixunlearn.verify("r", data=own, device="cpu")
    assert without_model.holds and any("cannot be rebuilt from names" in text for text in without_model.not_checked)
    assert "model unlearned" in {check.subject for check in without_model}
    without_data = pymixunlearn.verify("r", device="cpu")
    assert without_data.holds and any("made from data in memory" in text for text in without_data.not_checked)
    other = data.from_tensors(images[:50] + 1, torch.arange(50) % 2, images[50:], torch.arange(40) % 2)
    assert not pymixunlearn.verify("r", model=model, data=other, device="cpu").holds

    measured = pymixunlearn.evaluate(model, own, list(range(12)), device="cpu")
    again, before = measured.record["metrics"]["model"], run.record["metrics"]["initial"]
    assert {key: again[key] for key in ("test", "train_r", "train_f")} == {
        key: before[key] for key in ("test", "train_r", "train_f")
    }
    settings = {"retrain": {"epochs": 1}, "neggrad": {"epochs": 1}}
    compared = pymixunlearn.compare(["neggrad"], model, own, list(range(12)), [0], "c", settings=settings, device="cpu")
    assert compared.finished == 1
    found = pymixunlearn.audit("r", model, own, shadow_models=4, epochs=1, jobs=1, device="cpu")
    assert found.record["shadow_models"] == 4
    with pytest.raises(UserError, match="expected its name or specification, not a model in memory"):
        pymixunlearn.tune("neggrad", model, own)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot be rebuilt from names; expected it as model="):
        pymixunlearn.audit("r", None, own, shadow_models=4, epochs=1, jobs=1, device="cpu")


def test_compare_and_tune() -> None:
    settings = {"initial": {"epochs": 1}, "retrain": {"epochs": 1}, "neggrad": {"epochs": 1}}
    compared = pymixunlearn.compare(["neggrad"], seeds=[0], settings=settings, device="cpu", out="c")
    assert compared.finished == 1
    few = {"initial.epochs": 1, "retrain.epochs": 1}
    tuned = pymixunlearn.tune("neggrad", grid={"epochs": [1]}, settings=few, trials=1, device="cpu", out="t")
    assert tuned.best is not None and tuned.best.settings["epochs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget_clas": (1,)}, "unknown option 'forget_clas'.*Did you mean 'forget_class'"),
        ({"method": "x"}, "'x'"),
        ({"forget": [1.5]}, "forget: an index must be an integer, got 1.5"),
        ({"forget": torch.tensor([True, False])}, "forget: an index must be an integer, got True"),
        ({"forget": ["3", 4]}, "forget: an index must be an integer, got '3'"),
        ({"forget": 3}, "forget is an int; expected indices or ids"),
        ({"data": 3}, "data is an int; expected a name or path"),
        ({"model": 3}, "model is an int; expected a name or path"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pymixunlearn.unlearn(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_indices_to_forget_come_in_any_sequence(kind: Callable[[list[int]], Any]) -> None:
    few = {"initial.epochs": 1}
    preview = pymixunlearn.dry_run(forget=kind([3, 4]), method="neggrad", settings=few, retrain=False, device="cpu")
    assert preview.plan.split.forget_indices.tolist() == [3, 4]


def test_importing_the_package_loads_nothing_large() -> None:
    code = "import sys, pymixunlearn; pymixunlearn.unlearn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
