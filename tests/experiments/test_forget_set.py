"""What a request forgets: lists are read first, earlier requests stay in force, what is odd about a split is said."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from pymixunlearn import data, models, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    AuditInputs,
    BadRequest,
    CompareInputs,
    DataRequest,
    EvaluateInputs,
    ModelRequest,
    Plan,
    RetrainInputs,
    SplitRequest,
    TuneInputs,
    UnlearnInputs,
    VerifyInputs,
    resolve_audit,
    resolve_comparison,
    resolve_retraining,
    resolve_tuning,
    resolve_unlearning,
    run_evaluation,
    run_unlearning,
)
from pymixunlearn.experiments.common.forget_set import load_split, notes
from pymixunlearn.experiments.common.given import GivenData
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.verify import run_verification
from pymixunlearn.reporting.deletion_record import schema
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.manifest import read_manifest
from pymixunlearn.training import load_model, read_metadata, save_model

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


def older(run: Path, folder: Path) -> Path:
    """Copy a run as an older version wrote it: without a chain of requests and its key."""
    shutil.copytree(run, folder)
    (folder / "forget.key").unlink()
    file = folder / "model.safetensors"
    metadata = {key: value for key, value in read_metadata(file).items() if key != "chain"}
    save_model(file, load_model(file), metadata=metadata)
    return folder


def test_the_run_folder_of_an_older_version_is_read_by_its_manifest(
    tmp_path: Path, first_run: Path, small_plan: Make
) -> None:
    folder = older(first_run, tmp_path / "older")
    split = small_plan(model=ModelRequest(str(folder)), split=listed(tmp_path, "14\n20\n")).split
    assert split.excluded_indices is not None and split.excluded_indices.tolist() == [3, 159]
    assert dict(split.history) == {"requests": 1, "samples": 3, "not_found": 0, "classes": []}


def of_unlearn(common: dict[str, Any], notes: Notes, tmp_path: Path) -> list[Split]:
    return [resolve_unlearning(UnlearnInputs(**common), observer=notes).split]


def of_retrain(common: dict[str, Any], notes: Notes, tmp_path: Path) -> list[Split]:
    split = resolve_retraining(RetrainInputs(**common), observer=notes).split
    assert split is not None
    return [split]


def of_compare(common: dict[str, Any], notes: Notes, tmp_path: Path) -> list[Split]:
    inputs = CompareInputs(methods=("neggrad", "fine-tune"), seeds=(0, 1), **common)
    plans = [cell.plan for cell in resolve_comparison(inputs, observer=notes).cells]
    return [plan.split for plan in plans if plan is not None]


def of_evaluate(common: dict[str, Any], notes: Notes, tmp_path: Path) -> list[Split]:
    inputs = EvaluateInputs(checkpoint=Path(common.pop("model").model), **common)
    run_evaluation(inputs, tmp_path / "measured", observer=notes)
    return [Split.load(tmp_path / "measured" / "split.json", data.load("digits"))]


def of_evaluate_reference(common: dict[str, Any], notes: Notes, tmp_path: Path) -> list[Split]:
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    save_model(tmp_path / "plain.safetensors", model)
    reference = Path(common.pop("model").model)
    inputs = EvaluateInputs(checkpoint=tmp_path / "plain.safetensors", reference=reference, **common)
    run_evaluation(inputs, tmp_path / "measured", observer=notes)
    return [Split.load(tmp_path / "measured" / "split.json", data.load("digits"))]


def of_audit(common: dict[str, Any], notes: Notes, tmp_path: Path) -> list[Split]:
    plan = resolve_audit(AuditInputs(shadow_models=8, **common), observer=notes)
    shadows = [plan.samples.shadow_split(0), plan.samples.shadow_split(1)]
    earlier = {bytes(image.numpy().data) for image in data.load("digits").train.images[[3, 14, 159]]}
    for split in shadows:
        assert not earlier & {bytes(image.numpy().data) for image in split.train.images}
    return [plan.samples.split]


@pytest.mark.parametrize(
    "command",
    [of_unlearn, of_retrain, of_compare, of_evaluate, of_evaluate_reference, of_audit],
    ids=lambda of: of.__name__,
)
def test_no_command_puts_back_what_the_model_forgot_before(
    command: Callable[..., list[Split]], tmp_path: Path, first_run: Path
) -> None:
    rows = "".join(f"{index}\n" for index in range(20, 60))
    common = {"split": listed(tmp_path, rows), "model": ModelRequest(str(first_run)), "device": "cpu"}
    notes = Notes()
    splits = command(dict(common), notes, tmp_path)
    assert splits
    for split in splits:
        assert split.excluded_indices is not None and split.excluded_indices.tolist() == [3, 14, 159]
        assert not {3, 14, 159} & set(split.retain_indices.tolist())
        assert len(split.retain) == 1438 - 43 and len(split.training_set.labelled) == 1438 - 3
    assert notes.text.count("forgot 3 other samples before: they are left out of the retain set") == 1
    assert notes.text.count("Read 40 rows from") == 1


def test_tune_takes_no_model_that_has_forgotten_anything(first_run: Path) -> None:
    with pytest.raises(BadRequest, match="tuning trains its own models"):
        resolve_tuning(TuneInputs(model=ModelRequest(str(first_run)), device="cpu"))


def test_only_one_function_makes_the_splits_of_commands() -> None:
    """A split that another module made would not take the earlier requests into account; `verify` only measures."""
    package = Path(str(files("pymixunlearn.experiments")))
    makers = {
        "Split.load",
        "make",
        "class_split",
        "data_split",
        "noisy_split",
        "semi_supervised_split",
        "index_split",
        "Split",
    }
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in makers or ast.unparse(node.func) in makers:
                    found.add(path.relative_to(package).as_posix())
    assert found == {
        "common/forget_set.py",
        "common/given.py",
        "common/hashed_split.py",
        "common/split_request.py",
        "verify.py",
    }


def test_what_is_not_known_of_an_earlier_request_is_said(tmp_path: Path, first_run: Path) -> None:
    shutil.copy(first_run / "model.safetensors", tmp_path / "lone.safetensors")
    model = load_model(tmp_path / "lone.safetensors")
    save_model(tmp_path / "old.safetensors", model, metadata={"purpose": "unlearned"})  # as version 0.1.0 wrote it
    request = UnlearnInputs(model=ModelRequest(str(tmp_path / "old.safetensors")), device="cpu", settings={"epochs": 1})
    notes = Notes()
    assert resolve_unlearning(request, observer=notes).split.excluded_indices is None
    assert "is an unlearned model of an older version outside its run folder" in notes.text
    checkpoint = EvaluateInputs(checkpoint=tmp_path / "old.safetensors", device="cpu")
    notes = Notes()
    run_evaluation(checkpoint, observer=notes)
    assert "is an unlearned model of an older version outside its run folder" in notes.text

    other = UnlearnInputs(
        data=DataRequest("digits@500"), model=ModelRequest(str(first_run)), device="cpu", settings={"epochs": 1}
    )
    notes = Notes()
    split = resolve_unlearning(other, observer=notes).split  # those that are in this part are found by their pixels
    before = set(read_manifest(first_run / "split.json")["forget"]["ids"])
    assert split.excluded_indices is not None and split.dataset.validation is not None
    assert {split.train.ids[index] for index in split.excluded_indices.tolist()} == before & set(split.train.ids)
    # The others are in the part's validation set, and are left out there, too.
    assert not before & set(split.dataset.validation.ids) and split.history["not_found"] == 0
    assert "forgot 2 images of the validation set before: left out" in notes.text

    images, targets = split.train.images[:, :, :7, :7], split.train.targets
    foreign = GivenData(dataset="other", loaded=data.from_tensors(images, targets, images, targets))
    folder = older(first_run, tmp_path / "older")
    manifest = json.loads((folder / "split.json").read_text())
    del manifest["samples"]  # as an earlier version wrote it
    (folder / "split.json").write_text(json.dumps(manifest))
    notes = Notes()
    load_split(foreign, SplitRequest(), folder, seed=0, observer=notes)
    assert "forgot samples of other data ('digits')" in notes.text
    notes = Notes()
    assert load_split(foreign, SplitRequest(), first_run, seed=0, observer=notes).history["not_found"] == 3
    assert "3 of the samples that the model of" in notes.text and "are not in these data, by their ids" in notes.text


@pytest.mark.parametrize(
    "command", [of_unlearn, of_retrain, of_compare, of_evaluate, of_audit], ids=lambda of: of.__name__
)
def test_a_list_is_read_before_the_data(
    command: Callable[..., list[Split]], tmp_path: Path, first_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", None)
    common = {"split": listed(tmp_path, "1\n1_0\n"), "model": ModelRequest(str(first_run)), "device": "cpu"}
    with pytest.raises(UserError, match="line 2: an index must be an integer, got '1_0'"):
        command(common, Notes(), tmp_path)


def test_choices_that_contradict_each_other_are_found_before_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(BadRequest, match="a fraction to forget belongs to tasks like 'data'"):
        resolve_tuning(TuneInputs(split=SplitRequest(task="class", fraction=0.5), device="cpu"))


def test_a_damaged_manifest_is_found_before_the_data(
    tmp_path: Path, first_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (older(first_run, tmp_path / "damaged") / "split.json").write_text("{")
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(UserError, match="cannot be read as a split manifest"):
        resolve_unlearning(UnlearnInputs(model=ModelRequest(str(tmp_path / "damaged")), device="cpu"))


def test_a_link_to_the_model_of_a_run_is_that_model(tmp_path: Path, first_run: Path) -> None:
    (tmp_path / "current.safetensors").symlink_to(first_run / "model.safetensors")
    request = ModelRequest(str(tmp_path / "current.safetensors"))
    split = resolve_unlearning(UnlearnInputs(model=request, split=listed(tmp_path, "20\n"), device="cpu")).split
    assert split.excluded_indices is not None and split.excluded_indices.tolist() == [3, 14, 159]


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
    assert "1 image of them taken out of the test set" in notes.text
    assert "1 exact copy of forgotten images stays in the retain set: 'train/dog/copy.png'" in notes.text

    folder = run_unlearning(plan, tmp_path / "run").folder
    record = json.loads((folder / "report.json").read_text())
    jsonschema.validate(record, schema())
    asked = record["request"]
    assert asked["forgotten"]["count"] == 2 and asked["forgotten"]["ids"]["count"] == 2
    assert asked["removed"]["test"]["count"] == asked["copies"]["retain"]["count"] == 1
    html = (folder / "report.html").read_text()
    assert "Taken out of the test set, since the request names them: 1 image." in html
    assert "broken.png" in html and "1 exact copy of forgotten images stays" in html
    with pytest.warns(UserWarning, match="1 images that cannot be read"):
        checks = run_verification(VerifyInputs(folder, deletion_list=split.indices))
    assert all(check.holds for check in checks)


def test_a_forgotten_class_without_test_images_is_told() -> None:
    images, targets = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    others = torch.rand(8, 1, 8, 8), torch.arange(8) % 2
    few = data.from_tensors(images, targets, *others, classes=("cat", "dog", "owl"))
    for classes, told in (([2], True), ([1], False)):
        split = tasks.class_split(few, classes)
        said = list(notes(split, split, SplitRequest()))
        assert said == ["The test set has no image of the forgotten 'owl': what needs one is not measured."] * told
