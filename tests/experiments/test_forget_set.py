"""What a request forgets: lists are read first, earlier requests stay in force, what is odd about a split is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from pymixunlearn import data
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    DataRequest,
    ModelRequest,
    Plan,
    RetrainInputs,
    SplitRequest,
    UnlearnInputs,
    VerifyInputs,
    resolve_retraining,
    resolve_unlearning,
    run_unlearning,
)
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.verify import run_verification
from pymixunlearn.reporting.deletion_record import schema

Make = Callable[..., Plan]


class Notes(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    @property
    def text(self) -> str:
        return " ".join(self.lines)


def listed(tmp_path: Path, text: str, name: str = "list.csv") -> SplitRequest:
    (tmp_path / name).write_text(text)
    return SplitRequest(indices=tmp_path / name)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that forgot the training samples 3, 14 and 159 of the digits."""
    folder = tmp_path_factory.mktemp("first")
    settings = {"epochs": 1, "initial.epochs": 1}
    request = UnlearnInputs(
        split=listed(folder, "3\n14\n159\n"), device="cpu", settings=settings, retrain=False, thumbnails=False
    )
    return run_unlearning(resolve_unlearning(request), folder / "run").folder


def test_a_second_request_does_not_undo_the_first(tmp_path: Path, first_run: Path, small_plan: Make) -> None:
    for model in (first_run, first_run / "model.safetensors"):
        split = small_plan(model=ModelRequest(str(model)), split=listed(tmp_path, "14\n20\n")).split
        assert split.forget_indices.tolist() == [14, 20]  # what is asked for again is forgotten again
        assert split.excluded_indices is not None and split.excluded_indices.tolist() == [3, 159]
        assert not {3, 14, 20, 159} & set(split.retain_indices.tolist()) and len(split.retain) == 1438 - 4

    outcome = run_unlearning(
        small_plan(model=ModelRequest(str(first_run)), split=listed(tmp_path, "20\n")), tmp_path / "second"
    )
    record = json.loads((outcome.folder / "report.json").read_text())
    jsonschema.validate(record, schema())
    assert record["request"]["forgotten_before"]["count"] == 3
    assert "had forgotten 3 other training samples before" in (outcome.folder / "report.html").read_text()
    assert all(check.holds for check in run_verification(VerifyInputs(outcome.folder)))

    third = small_plan(model=ModelRequest(str(outcome.folder)), split=listed(tmp_path, "30\n")).split
    assert third.excluded_indices is not None and third.excluded_indices.tolist() == [3, 14, 20, 159]


def test_retrain_leaves_out_what_the_model_forgot_before(tmp_path: Path, first_run: Path) -> None:
    request = RetrainInputs(split=listed(tmp_path, "20\n"), model=ModelRequest(str(first_run)), device="cpu", seed=0)
    notes = Notes()
    plan = resolve_retraining(request, observer=notes)
    assert plan.split is not None and len(plan.split.retain) == 1438 - 4
    assert "forgot 3 other samples before: they are left out of the retain set" in notes.text


def test_what_is_not_known_of_an_earlier_request_is_said(tmp_path: Path, first_run: Path) -> None:
    shutil.copy(first_run / "model.safetensors", tmp_path / "lone.safetensors")
    request = UnlearnInputs(
        model=ModelRequest(str(tmp_path / "lone.safetensors")), device="cpu", settings={"epochs": 1}
    )
    notes = Notes()
    assert resolve_unlearning(request, observer=notes).split.excluded_indices is None
    assert "is an unlearned model outside its run folder" in notes.text

    other = UnlearnInputs(
        data=DataRequest("digits@500"), model=ModelRequest(str(first_run)), device="cpu", settings={"epochs": 1}
    )
    notes = Notes()
    assert resolve_unlearning(other, observer=notes).split.excluded_indices is None
    assert "forgot samples of other data ('digits')" in notes.text


def test_a_list_is_read_before_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(UserError, match="line 2: an index must be an integer, got '1_0'"):
        resolve_unlearning(UnlearnInputs(split=listed(tmp_path, "1\n1_0\n"), device="cpu"))


def photos(root: Path) -> Path:
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                path = root / part / name / f"{part}{label}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng([count, label, number]).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    shutil.copy(root / "train" / "cat" / "train00.png", root / "train" / "dog" / "copy.png")
    (root / "train" / "cat" / "broken.png").write_bytes(b"x")
    return root


def test_a_request_by_file_from_list_to_report(tmp_path: Path) -> None:
    text = "file;person\ntrain00.png;ann\ntrain/cat/train01.png;bob\ntrain00.png;bob\ntest01.png;ann\n"
    split = SplitRequest(indices=listed(tmp_path, text).indices, id_column="person")
    source = DataRequest("imagefolder", photos(tmp_path / "photos"), skip_unreadable=True)
    settings: dict[str, Any] = {"epochs": 1, "initial.epochs": 1}
    request = UnlearnInputs(data=source, split=split, device="cpu", settings=settings, retrain=False)
    notes = Notes()
    with pytest.warns(UserWarning, match="1 images that cannot be read"):
        plan = resolve_unlearning(request, observer=notes)
    assert "Read 4 rows from" in notes.text and "3 samples to forget" in notes.text
    assert "1 of them are images of the test set and are taken out of it" in notes.text
    assert "1 exact copies of forgotten images stay in the retain set: 'train/dog/copy.png'" in notes.text

    folder = run_unlearning(plan, tmp_path / "run").folder
    record = json.loads((folder / "report.json").read_text())
    jsonschema.validate(record, schema())
    asked = record["request"]
    assert asked["forgotten"]["count"] == 2 and asked["forgotten"]["ids"]["count"] == 2
    assert asked["removed"]["test"]["count"] == asked["copies"]["retain"]["count"] == 1
    html = (folder / "report.html").read_text()
    assert "broken.png" in html and "1 exact copies of forgotten images stay" in html
    with pytest.warns(UserWarning, match="1 images that cannot be read"):
        checks = run_verification(VerifyInputs(folder, deletion_list=split.indices))
    assert all(check.holds for check in checks)
