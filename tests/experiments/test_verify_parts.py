"""Verification of runs with data and a model in memory: each part that is another one than the run's is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pymixunlearn
from pymixunlearn import data
from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import record_sha256


def samples(seed: int) -> Dataset:
    """40 training, 20 test and 10 validation images of two classes; with another seed, other validation images."""
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    dataset = data.from_tensors(images[:40], torch.arange(40) % 2, images[40:], torch.arange(20) % 2, name="own")
    further = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return replace(dataset, validation=data.ImageSet(further, torch.arange(10) % 2, dataset.train.classes))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


@pytest.fixture(scope="module")
def finished(model_cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that forgot the samples 3 and 7, with Retrain."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "forget.csv").write_text("index,person\n3,anna\n7,bert\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYMIXUNLEARN_CACHE", str(model_cache_folder))
        few = {"epochs": 1, "retrain.epochs": 1}
        return pymixunlearn.unlearn(
            network(),
            samples(1),
            folder / "forget.csv",
            "neggrad",
            folder / "run",
            id_column="person",
            settings=few,
            thumbnails=False,
            device="cpu",
        ).folder


DATA = """
import torch
from pymixunlearn import data

def make():
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return data.from_tensors(images[:40], torch.arange(40) % 2, images[40:], torch.arange(20) % 2)
"""


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def failing(folder: Path, **options: Any) -> dict[str, str]:
    found = pymixunlearn.verify(folder, device="cpu", **options)
    return {check.subject: check.detail for check in found if not check.holds}


def reseal(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda record: None) -> None:
    record = json.loads((folder / "report.json").read_text("utf-8"))
    change(record)
    record["files"] = {name: file_sha256(folder / name) for name in record["files"]}
    (folder / "report.json").write_text(json.dumps({**record, "sha256": record_sha256(record)}))


def test_the_run_with_its_own_data_and_model_holds(folder: Path) -> None:
    found = pymixunlearn.verify(folder, network(), samples(1), device="cpu")
    details = {check.subject: check.detail for check in found if check.holds}
    assert len(details) == len(found)
    assert details["validation set"].startswith("10 images, fingerprint ")
    assert {"model unlearned", "model initial", "metrics of initial"} <= set(details)


def test_another_validation_set_is_found(folder: Path) -> None:
    stated = json.loads((folder / "split.json").read_text())["validation"]["sha256"]
    wrong = failing(folder, model=network(), data=samples(2))
    assert set(wrong) == {"validation set"} and f"recorded {stated[:12]}…" in wrong["validation set"]
    lacking = failing(folder, model=network(), data=replace(samples(1), validation=None))
    assert lacking["validation set"].startswith("missing, recorded ")


def test_other_data_are_found_without_the_model(folder: Path) -> None:
    own = samples(1)
    found = pymixunlearn.verify(folder, data=own, device="cpu")
    assert found.holds and "model unlearned" in {check.subject for check in found}
    stated = json.loads((folder / "report.json").read_text())["dataset"]["fingerprint"]
    other = replace(own, train=own.train.subset(torch.arange(39)))
    wrong = failing(folder, data=other)
    assert set(wrong) == {"data set"}
    assert f"{other.fingerprint()[:12]}…, recorded {stated[:12]}…" in wrong["data set"]


def test_without_retrain_the_gaps_to_it_are_named_as_not_checked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "empty"))
    found = pymixunlearn.verify(folder, network(), samples(1), device="cpu")
    assert found.holds
    assert any("every gap to Retrain" in sentence for sentence in found.not_checked)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("index,person\n7,bert\n3,anna\n", True),
        ("index,person\n3,anna\n8,bert\n", False),  # the persons of the request, and another sample
        ("index,person\n3,anna\n7,carl\n", False),  # the samples of the request, and another person
    ],
)
def test_a_list_is_compared_by_samples_and_by_ids(folder: Path, tmp_path: Path, text: str, holds: bool) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    wrong = failing(folder, model=network(), data=samples(1), forget=path)
    assert wrong == ({} if holds else {str(path): "2 indices and ids ('person'): other ones than were forgotten"})


def test_a_model_config_that_contradicts_the_run_is_found(folder: Path) -> None:
    file = folder / "model.yaml"
    file.write_text(file.read_text("utf-8") + "pretrained: true\n", "utf-8")
    reseal(folder)
    assert failing(folder, hashes_only=True) == {"model.yaml, content": "says something else"}


def test_what_is_not_of_the_form_of_a_record_is_named_by_its_place(folder: Path) -> None:
    reseal(folder, lambda record: record["request"].update(forgotten=3))
    assert failing(folder)["report.json, form"].startswith("request/forgotten is not what the schema demands: 3 ")
    reseal(folder, lambda record: record.pop("request"))
    assert failing(folder)["report.json, form"].startswith("the record is not what the schema demands: 'request' ")


def test_data_that_a_file_makes_are_loaded_only_with_leave(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(DATA)
    given = f"{tmp_path / 'own.py'}:make"
    few = {"epochs": 1, "initial.epochs": 1}
    folder = pymixunlearn.unlearn(
        "cnn", given, [3], "neggrad", tmp_path / "run", settings=few, retrain=False, thumbnails=False, device="cpu"
    ).folder
    unasked = pymixunlearn.verify(folder, device="cpu")
    assert unasked.holds and not {"data set", "model unlearned"} & {check.subject for check in unasked}
    assert any(f"loading the data runs '{given}'" in sentence for sentence in unasked.not_checked)
    allowed = pymixunlearn.verify(folder, device="cpu", allow_code=True)
    assert allowed.holds and {"data set", "metrics of unlearned"} <= {check.subject for check in allowed}


def test_hashes_alone_say_that_no_metric_was_measured(folder: Path) -> None:
    found = pymixunlearn.verify(folder, hashes_only=True)
    assert found.holds and any(sentence.startswith("metrics: ") for sentence in found.not_checked)


def test_a_list_is_compared_where_the_model_is_not_at_hand(folder: Path, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.csv", tmp_path / "wrong.csv"
    right.write_text("index,person\n7,bert\n3,anna\n")
    wrong.write_text("index,person\n8,bert\n3,anna\n")
    found = pymixunlearn.verify(folder, data=samples(1), forget=right, device="cpu")
    assert found.holds and str(right) in {check.subject for check in found}
    assert set(failing(folder, data=samples(1), forget=wrong)) == {str(wrong)}


@pytest.mark.parametrize(
    ("name", "option"),
    [("forget", "--forget"), ("weights", "--weights"), ("before", "--before"), ("retrain", "--retrain")],
)
def test_what_was_given_and_not_compared_is_said(folder: Path, tmp_path: Path, name: str, option: str) -> None:
    given = tmp_path / "given"
    with pytest.raises(UserError, match=f"'{re.escape(str(given))}' of {option} does not exist"):
        pymixunlearn.verify(folder, hashes_only=True, **{name: given})
    given.write_text("index,person\n3,anna\n")
    found = pymixunlearn.verify(folder, hashes_only=True, **{name: given})
    assert found.holds
    assert any(sentence.startswith(f"'{given}' of {option}: not compared") for sentence in found.not_checked)


def test_what_was_given_and_compared_is_not_said_to_be_left_out(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("index,person\n7,bert\n3,anna\n")
    own = folder / "model.safetensors"
    found = pymixunlearn.verify(
        folder, network(), samples(1), forget=listed, weights=own, split=folder / "split.json", device="cpu"
    )
    assert found.holds and not any("not compared" in sentence for sentence in found.not_checked)
    assert {str(listed), str(own), str(folder / "split.json")} <= {check.subject for check in found}
