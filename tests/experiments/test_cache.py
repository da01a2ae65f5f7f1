"""The cache: what it holds of a run's data, whether it is whole, and how it is purged."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from jsonschema import Draft202012Validator
from PIL import Image

import pymixunlearn
from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import VerifyInputs, run_verification
from pymixunlearn.experiments.cache import (
    CacheEntry,
    entries_of,
    list_cache,
    place_of,
    purge,
    purge_run,
    remains_of,
)
from pymixunlearn.reporting.deletion_record import schema

FEW = {"epochs": 1, "initial.epochs": 1, "retrain.epochs": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a run that forgot two of them, and the cache that it left."""
    base = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYMIXUNLEARN_CACHE", str(base / "cache"))
        forget_two(photos(base / "mine"), base / "run")
    return base


@pytest.fixture
def run(made: Path, own_cache: Path, tmp_path: Path) -> Path:
    """A copy of the run and of its cache."""
    shutil.copytree(made / "cache", own_cache)
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def photos(root: Path, seed: int = 0) -> Path:
    for label, name in enumerate(("cat", "dog")):
        for number in range(6):
            for part in ("train", "test"):
                path = root / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw = np.random.default_rng([seed, label, number, part == "test"])
                Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return root


def forget_two(where: Path, out: Path, **options: Any) -> Path:
    options = {"settings": FEW, "device": "cpu", "method": "neggrad", **options}
    return pymixunlearn.unlearn("cnn", str(where), [0, 7], out=out, **options).folder


def kinds(entries: tuple[CacheEntry, ...] | list[CacheEntry]) -> list[str]:
    return [f"{entry.kind} {entry.model}".strip() if entry.kind == "models" else entry.kind for entry in entries]


def failing(folder: Path) -> list[str]:
    return [check.subject for check in run_verification(VerifyInputs(folder)) if not check.holds]


def test_a_run_finds_what_is_made_of_its_data_and_a_purge_deletes_that_alone(
    tmp_path: Path, made: Path, run: Path
) -> None:
    mine, theirs = made / "mine", photos(tmp_path / "theirs", seed=1)
    folder, other = run, forget_two(theirs, tmp_path / "other")
    places = {str(mine.resolve()): 5, str(theirs.resolve()): 5}
    assert {place: sum(entry.source == place for entry in list_cache()) for place in places} == places
    assert all(entry.damage() is None and entry.size > 0 and entry.seconds < 3600 for entry in list_cache())

    remains = remains_of(folder)
    assert sorted(kinds(remains.entries)) == ["images", "models initial cnn", "predictions", "predictions"]
    assert {entry.source for entry in remains.entries} == {str(mine.resolve())}
    assert remains.unknown == () and remains.initial_model is None and not remains.pictures

    assert not failing(folder)
    done = purge_run(folder)
    assert kinds(done.removed) == kinds(remains.entries) and done.in_use == ()
    assert [path for entry in remains.entries for path in entry.files if path.exists()] == []
    # Retrain has not seen the forgotten samples.
    assert kinds([entry for entry in list_cache() if entry.source == str(mine.resolve())]) == ["models retrain"]
    assert sum(entry.source == str(theirs.resolve()) for entry in list_cache()) == 5
    assert remains_of(folder).entries == () and len(remains_of(other).entries) == 4

    record = json.loads((folder / "report.json").read_text())
    Draft202012Validator(schema()).validate(record)
    (event,) = record["purge"]["events"]
    assert event["removed"]["predictions"]["count"] == 2 and event["in_use"] == 0
    assert "deleted from the cache" in (folder / "report.html").read_text()
    assert not failing(folder)
    assert "purge" not in json.loads((other / "report.json").read_text())


def test_data_that_are_deleted_are_found_in_the_cache(made: Path, run: Path, tmp_path: Path) -> None:
    """After the images themselves, what was made of them has to go."""
    with pytest.MonkeyPatch.context() as patch:
        gone = str(tmp_path / "gone")
        patch.setattr("pymixunlearn.experiments.cache.source_of", refuse)
        assert place_of(str(made / "mine")) == place_of("imagefolder", made / "mine") == str((made / "mine").resolve())
        assert place_of(f"{made / 'mine'}@10") == str((made / "mine").resolve())
        assert len(remains_of(run).entries) == 4
        with pytest.raises(UserError):
            place_of(gone)
    assert len(entries_of(place_of(str(made / "mine")))) == 5


def refuse(*_: object) -> str:
    raise UserError("there is no such data set")


def test_a_purge_that_did_not_happen_is_found(tmp_path: Path, run: Path) -> None:
    folder = run
    purge_run(folder)
    record = json.loads((folder / "purge.json").read_text())
    for change in ({"events": []}, {**record, "events": [{**record["events"][0], "in_use": 3}]}):
        forged = tmp_path / "forged"
        shutil.copytree(folder, forged)
        (forged / "purge.json").write_text(json.dumps(change))
        assert "purge.json" in failing(forged)
        shutil.rmtree(forged)
    (folder / "purge.json").unlink()
    assert failing(folder)


def test_purging_again_is_a_further_event(made: Path, run: Path) -> None:
    folder = run
    purge_run(folder)
    known = pymixunlearn.unlearn(
        "cnn", str(made / "mine"), [0, 7], out=folder, settings=FEW, device="cpu", method="neggrad", purge=True
    )
    assert known.known  # a finished run is purged as well: what looked at the data since has decoded them again
    events = json.loads((folder / "report.json").read_text())["purge"]["events"]
    assert [sorted(event["removed"]) for event in events] == [["images", "models", "predictions"], ["images"]]
    assert not failing(folder)


def test_nothing_is_purged_before_the_run_is_complete(tmp_path: Path, own_cache: Path) -> None:
    place = photos(tmp_path / "mine")
    with pytest.raises(UserError, match="holds no finished run"):
        purge_run(tmp_path)
    with pytest.raises(UserError, match="NaN or infinite"):  # Retrain diverges
        forget_two(place, tmp_path / "run", settings={**FEW, "retrain.lr": 1e30}, purge=True, retrain=True)
    assert {"images", "models initial cnn"} <= set(kinds(list_cache())) and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("pictures")
def test_a_model_of_the_user_stays_and_is_named(tmp_path: Path, made: Path, run: Path) -> None:
    place, first = made / "mine", run
    second = pymixunlearn.unlearn(
        first / "model.safetensors", str(place), [3], out=tmp_path / "second", settings={"epochs": 1}, method="neggrad",
        device="cpu", retrain=False, purge=True, thumbnails=True,
    ).folder  # fmt: skip
    assert (first / "model.safetensors").is_file()
    remains = remains_of(second)
    assert remains.initial_model == str(first / "model.safetensors") and remains.pictures
    # The Retrain of the first request has seen what the second one forgets.
    assert kinds(list_cache()) == []


def test_weights_of_the_user_are_named_and_not_their_network(tmp_path: Path, made: Path, run: Path) -> None:
    weights = run / "model.safetensors"
    second = pymixunlearn.unlearn(
        "cnn", str(made / "mine"), [3], weights=weights, out=tmp_path / "second", settings={"epochs": 1},
        method="neggrad", device="cpu", retrain=False, thumbnails=False,
    ).folder  # fmt: skip
    assert remains_of(second).initial_model == str(weights)


def test_shadow_models_and_parts_of_an_ensemble_are_found_too(tmp_path: Path, own_cache: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (240, 1, 8, 8), dtype=np.uint8)
    import torch

    pixels, labels = torch.from_numpy(images), torch.arange(240) % 2
    own = data.from_tensors(pixels[:160], labels[:160], pixels[160:], labels[160:], name="own")
    split = tasks.index_split(own, list(range(30)))
    settings = {"epochs": 1, "initial.epochs": 1, "shards": 2, "slices": 1, "processes": 1}
    folder = pymixunlearn.unlearn(
        "cnn", own, split, "sisa", tmp_path / "run", settings=settings, retrain=False, device="cpu"
    ).folder
    trained = [entry.model for entry in remains_of(folder).entries if entry.kind == "models"]
    assert "initial cnn" in trained and "part of sisa" in trained
    audited = pymixunlearn.audit(
        None, str(folder), own, split, tmp_path / "audit", settings={"epochs": 1}, device="cpu", attacks=("rmia",),
        shadow_models=4, jobs=1,
    )  # fmt: skip
    assert audited.file.is_file()
    assert sum(entry.model == "initial cnn" for entry in remains_of(folder).entries) == 5
    purge_run(folder)
    assert list_cache() == []


def test_what_another_process_is_at_work_on_stays(run: Path) -> None:
    folder = run
    (model,) = (entry for entry in remains_of(folder).entries if entry.kind == "models")
    assert model.lock is not None
    with FileLock(model.lock):
        done = purge_run(folder)
    assert done.in_use == (model,) and model.files[0].is_file()
    assert json.loads((folder / "report.json").read_text())["purge"]["events"][0]["in_use"] == 1
    assert purge([model]).removed == (model,) and not model.lock.exists()


def test_damage_is_found(run: Path) -> None:
    for entry in list_cache():
        for path in entry.files:
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            assert entry.damage() is not None, path
            path.write_bytes(content)
            assert entry.damage() is None, path


def test_what_was_not_finished_is_listed_and_goes(run: Path, own_cache: Path) -> None:
    folder = run
    (own_cache / "decoding" / "abc").mkdir(parents=True)
    (own_cache / "decoding" / "abc" / "pixels").write_bytes(b"123")
    half = own_cache / "models" / f".x.safetensors.{'0' * 32}"
    half.write_bytes(b"1234")
    assert sum(entry.kind == "unfinished" for entry in list_cache()) == 1  # a young file may be at work
    os.utime(half, (time.time() - 3600,) * 2)
    snapshot = own_cache / "models" / f"{'a' * 64}.partial"
    snapshot.write_bytes(b"no hash")
    (own_cache / "datasets" / "MNIST").mkdir(parents=True)
    found = {entry.kind: entry for entry in list_cache()}
    assert set(found) == {"images", "models", "snapshots", "predictions", "unfinished", "downloads"}
    assert found["snapshots"].damage() is not None and not found["downloads"].checkable
    assert [entry.files[0] for entry in remains_of(folder).unknown] == [snapshot]
    purge_run(folder)
    assert sorted(entry.kind for entry in list_cache()) == ["downloads", "models", "snapshots"]


def test_what_cannot_be_deleted_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run

    def deny(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", deny)
    with pytest.raises(UserError, match="cannot be removed: Permission denied"):
        purge_run(folder)


@pytest.mark.parametrize(("task", "shown"), [("class", True), ("data", False), ("noisy", False), ("indices", False)])
@pytest.mark.usefixtures("pictures")
def test_pictures_of_single_people_are_off_unless_asked_for(
    small_plan: Callable[..., Any], tmp_path: Path, task: str, shown: bool
) -> None:
    from pymixunlearn.experiments import SplitRequest, run_unlearning

    (tmp_path / "list.txt").write_text("3\n14\n")
    split = SplitRequest(indices=tmp_path / "list.txt") if task == "indices" else SplitRequest(task=task)
    plan = small_plan(split=split, retrain=False)
    assert plan.thumbnails is shown
    assert small_plan(split=split, thumbnails=True).thumbnails
    assert not small_plan(split=split, thumbnails=False).thumbnails
    if task in ("class", "indices"):
        folder = run_unlearning(plan, tmp_path / "run").folder
        pictures = {path.stem for path in (folder / "pictures").glob("*.svg")}
        assert ("forgotten" in pictures) is ("mixes" in pictures) is shown
