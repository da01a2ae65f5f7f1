"""A ledger of deletion requests: from the first request to the audit, on a folder of small images."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from pymixunlearn import files
from pymixunlearn.data import ImageSet, UnlabelledImages
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    AuditInputs,
    DataRequest,
    ModelRequest,
    Plan,
    TrainInputs,
    UnlearnInputs,
    resolve_audit,
    resolve_training,
    run_audit,
    run_training,
    run_unlearning,
    run_verification,
)
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.forget_chain import Chain
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.run_folder import Run
from pymixunlearn.experiments.common.signing import generate_keys
from pymixunlearn.experiments.request.add import Added, run_add
from pymixunlearn.experiments.request.check import run_check
from pymixunlearn.experiments.request.copies import near_copies
from pymixunlearn.experiments.request.export import run_export
from pymixunlearn.experiments.request.init import run_init
from pymixunlearn.experiments.request.inputs import (
    AddInputs,
    CheckInputs,
    ExportInputs,
    InitInputs,
    PurgeInputs,
    RunInputs,
    VerifyLedgerInputs,
)
from pymixunlearn.experiments.request.ledger import Ledger, month_after, parse_date, today
from pymixunlearn.experiments.request.purge import run_purge
from pymixunlearn.experiments.request.serve import run_requests
from pymixunlearn.experiments.request.verify import verify_ledger
from pymixunlearn.training import read_metadata

L = TypeVar("L", Path, str)


class Drawn:
    """Pixels of every image that a training, an unlearning or a choice between models has drawn.

    What measures the models afterwards, and what hashes files, draws images too, and is no training.
    """

    NO_TRAINING = {"image_hashes", "_pixel_hash", "predict", "hashes"}

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: set[bytes] = set()
        for of in (ImageSet, UnlabelledImages):
            patch.setattr(of, "iterate", self._watched(of.iterate))

    def _watched(self, iterate: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def watched(images: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            for batch in iterate(images, *args, **kwargs):
                frame, names = sys._getframe(), set()
                while frame is not None:
                    names.add(frame.f_code.co_name)
                    frame = frame.f_back  # type: ignore[assignment]
                if not names & self.NO_TRAINING:
                    self.seen |= {image.tobytes() for image in batch.images.cpu().contiguous().numpy()}
                yield batch

        return watched


def photos(root: Path, count: int = 40) -> Path:
    """Write images of two kinds, dark and light, in folders as they are usual."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            for number in range(count // 2):
                path = root / part / name / f"{number:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((generator.random((8, 8)) * 120 + 120 * label).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in photos/ and a model of them in base/."""
    folder = tmp_path_factory.mktemp("ledger")
    data = DataRequest(str(photos(folder / "photos")))
    plan = resolve_training(TrainInputs(data=data, device="cpu", settings={"epochs": 4, "batch_size": 8}))
    run_training(plan, folder / "base")
    return folder


def begun(trained: Path, ledger: L, ledger_dir: Path | None = None, **fields: Any) -> L:
    """Make a ledger of the images and the model."""
    settings = {"epochs": 1, "retrain.epochs": 1, "lr": 1e-4, **fields.pop("settings", {})}
    unlearn = UnlearnInputs(
        **{"method": "neggrad", "retrain": "none", "max_drop": 50.0, **fields},
        data=DataRequest(str(trained / "photos")),
        model=ModelRequest(str(trained / "base")),
        device="cpu",
        settings=settings,
    )
    run_init(InitInputs(unlearn, ledger, ledger_dir))
    return ledger


def asked(ledger: Path | str, name: str, *rows: str, **fields: Any) -> Added:
    file = fields.get("ledger_dir", ledger) / f"{name}.csv"
    file.write_text("file,user\n" + "".join(f"{row}\n" for row in rows))
    return run_add(AddInputs(file, ledger, "user", name, **fields))


def failed(ledger: Path | str, **fields: Any) -> list[str]:
    return [check.subject for check in verify_ledger(VerifyLedgerInputs(ledger=ledger, **fields)) if not check.holds]


def pixels(trained: Path, *names: str) -> set[bytes]:
    return {np.asarray(Image.open(trained / "photos" / "train" / name)).tobytes() for name in names}


def test_five_requests_in_a_row(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ids, one overlapping, one empty, one naming unknown ids, one a duplicate of an earlier."""
    ledger = begun(trained, tmp_path / "ledger", retrain="one")
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    requests: list[tuple[str, list[str], dict[str, Any]]] = [
        ("R-1", ["train/dark/00.png,ann", "train/dark/01.png,ann"], {}),
        ("R-2", ["train/dark/01.png,bob", "train/light/02.png,bob"], {}),
        ("R-3", [], {}),
        ("R-4", ["train/light/03.png,cyd", "train/light/99.png,cyd"], {"allow_missing": True}),
        ("R-5", ["train/dark/00.png,ann", "train/dark/01.png,ann"], {}),
    ]
    forgotten: set[str] = set()
    runs = []
    for name, rows, fields in requests:
        added = asked(ledger, name, *rows, **fields)
        assert not added.known and added.missing == (("train/light/99.png",) if name == "R-4" else ())
        earlier = pixels(trained, *forgotten)
        with monkeypatch.context() as patch:
            drawn = Drawn(patch)
            (served,) = run_requests(RunInputs(ledger))
        assert served.requests == (name,) and served.released
        assert not earlier & drawn.seen, f"{name} drew what was forgotten before"
        named = {row.partition(",")[0].removeprefix("train/") for row in rows} - {"light/99.png"}
        new = named - forgotten
        assert (served.run is not None) is bool(new)
        if served.run is not None:
            runs.append(served.run)
            assert pixels(trained, *new) <= drawn.seen and len(drawn.seen) == 40 - len(forgotten)
            split = json.loads((served.run.folder / "split.json").read_text())
            assert split["forget"]["count"] == len(new) and split["retain"]["count"] == 40 - len(forgotten | new)
            assert split.get("excluded", {"count": 0})["count"] == len(forgotten)
            assert served.run.record["gap"]["unlearned"]["train_r"] is not None
        assert served.earlier == len(named & forgotten)
        forgotten |= named
        assert failed(ledger) == []
    assert len(runs) == 3 and len(forgotten) == 4
    chain = Chain.read(read_metadata(runs[-1].folder / "model.safetensors")["chain"], "last")
    assert len(chain) == 3 and len(chain.samples) == 4
    assert not any((run.folder / "forget.key").exists() for run in runs)
    assert failed(ledger, metrics=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("source", ["digits", pytest.param("images", marks=pytest.mark.real_data)])
def test_five_requests_in_a_row_with_audits(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """On digits and on a folder of real images: no shadow model, Retrain or run sees what was forgotten before."""
    if source == "digits":
        data = DataRequest("digits")
    else:
        data = DataRequest(str(real_photos(request.getfixturevalue("real_data"), tmp_path / "photos")), image_size=16)
    settings = {"epochs": 2, "lr": 0.02}
    training = TrainInputs(data=data, model=ModelRequest("cnn"), device="cpu", settings=settings)
    run_training(resolve_training(training), tmp_path / "base")
    ledger = tmp_path / "ledger"
    model = ModelRequest(str(tmp_path / "base"))
    quick = {"epochs": 1, "lr": 1e-4, "retrain.epochs": 2, "retrain.lr": 0.02}
    unlearn = UnlearnInputs(method="neggrad", data=data, model=model, device="cpu", settings=quick, max_drop=100.0)
    run_init(InitInputs(unlearn, ledger))
    images = data.load().train
    lists = [range(0, 40), range(30, 70), (), range(70, 110), range(0, 40)]
    forgotten: set[int] = set()
    for number, listed in enumerate(lists):
        (tmp_path / "list.csv").write_text("index,user\n" + "".join(f"{index},u{index}\n" for index in listed))
        unknown = number == 3
        if unknown:
            with (tmp_path / "list.csv").open("a") as file:
                file.write("999999,nobody\n")
        run_add(AddInputs(tmp_path / "list.csv", ledger, "user", f"R-{number}", allow_missing=unknown))
        earlier = {images.gather(torch.tensor([index]))[0].numpy().tobytes() for index in forgotten}
        monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / f"cache{number}"))
        with monkeypatch.context() as patch:
            drawn = Drawn(patch)
            (served,) = run_requests(RunInputs(ledger))
            assert served.released
            if served.run is not None:
                audited = AuditInputs(run=served.run.folder, attacks=("u-lira",), shadow_models=8, epochs=1, jobs=1)
                run_audit(resolve_audit(audited))
        assert not earlier & drawn.seen
        if served.run is not None:
            gap = served.run.record["gap"]["unlearned"]
            assert gap["train_f"] is not None and gap.get("earlier_f") is not None or not forgotten
        forgotten |= set(listed)
        assert failed(ledger) == []
    assert len(forgotten) == 110


def real_photos(real_data: Path, folder: Path) -> Path:
    """Unpack some photographs of four classes."""
    names: list[str] = []
    for part, archive in {"train": "train.tar.gz", "test": "val.tar.gz"}.items():
        counts: dict[str, int] = {}
        with tarfile.open(real_data / "tiny-imagenet-100" / archive) as members:
            for member in members:
                name = Path(member.name).parent.name
                if part == "train" and member.isfile() and name not in names:
                    if len(names) == 4:
                        break
                    names.append(name)
                counts[name] = counts.get(name, 0) + 1
                if member.isfile() and name in names and counts[name] <= 60:
                    stream = members.extractfile(member)
                    assert stream is not None
                    files.write_atomically(folder / part / name / Path(member.name).name, stream.read())
    return folder


def test_requests_are_read_and_known_again(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    with pytest.raises(UserError, match=r"2 of 3 samples .* 'train/dark/77.png', 'nobody.png'; expected .* --allow"):
        asked(ledger, "R-1", "train/dark/77.png,ann", "train/dark/01.png,ann", "nobody.png,bob")
    first = asked(ledger, "R-1", "train/dark/01.png,ann", "train/dark/02.png,bob", received="2026-01-31")
    about = first.request.added
    assert not first.known and about["due"] == "2026-02-28" and about["persons"]["count"] == 2
    assert asked(ledger, "R-1", "train/dark/02.png,bob", "train/dark/01.png,ann").known  # in another order
    with pytest.raises(UserError, match="has a request 'R-1' already, with other samples or other people"):
        asked(ledger, "R-1", "train/dark/02.png,bob")
    with pytest.raises(UserError, match="has a request 'R-1' already"):
        asked(ledger, "R-1", "train/dark/02.png,bob", "train/dark/01.png,eve")
    (tmp_path / "list.txt").write_text("5\n")
    unnamed = run_add(AddInputs(tmp_path / "list.txt", ledger))
    assert unnamed.request.request_id.startswith("R-") and run_add(AddInputs(tmp_path / "list.txt", ledger)).known
    state = Ledger(ledger).state()
    assert [one.request_id for one in state.pending] == ["R-1", unnamed.request.request_id] and state.length == 3
    with pytest.raises(UserError, match="holds a ledger already"):
        begun(trained, ledger)
    with pytest.raises(UserError, match="holds no ledger; expected one of 'request init'"):
        Ledger(tmp_path / "none").state()


def test_dates() -> None:
    assert parse_date(None) == today() and parse_date("2026-05-31") == date(2026, 5, 31)
    for text, message in {"31.5.2026": "YYYY-MM-DD", str(today() + timedelta(2)): "lies in the future"}.items():
        with pytest.raises(BadRequest, match=message):
            parse_date(text)
    assert month_after(date(2026, 12, 31)) == date(2027, 1, 31) and month_after(date(2028, 1, 30)) == date(2028, 2, 29)


def test_what_a_purge_deletes_is_in_no_file(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    people = [f"person-{number:04d}@example.org" for number in range(4)]
    asked(ledger, "R-1", *(f"train/dark/{number:02d}.png,{name}" for number, name in enumerate(people)))
    store = ledger / "ledger.sqlite"
    assert stat.S_IMODE(os.stat(store).st_mode) == 0o600
    assert people[0].encode() in store.read_bytes()
    assert run_purge(PurgeInputs(ledger)) == (0, 4)  # nothing is served yet
    run_requests(RunInputs(ledger))
    (ledger / "R-1.csv").unlink()
    asked(ledger, "R-2", "train/light/05.png,zoe")
    (ledger / "R-2.csv").unlink()
    assert run_purge(PurgeInputs(ledger)) == (4, 1)
    for path in (path for path in ledger.rglob("*") if path.is_file()):
        assert not [name for name in people if name.encode() in path.read_bytes()], path
    assert failed(ledger) == [] and asked(ledger, "R-2", "train/light/05.png,zoe").known
    assert run_purge(PurgeInputs(ledger)) == (0, 1)


def test_entries_can_only_be_added(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    asked(ledger, "R-1", "train/dark/01.png,ann")
    with sqlite3.connect(ledger / "ledger.sqlite") as connection:
        for table in ("entries", "samples", "persons", "settings"):
            for statement in (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET {'seq = seq' if table != 'settings' else 'content = 0'}",
            ):
                with pytest.raises(sqlite3.IntegrityError, match="is append-only"):
                    connection.execute(statement)


def tampered(ledger: Path, *statements: str) -> None:
    """Change a ledger as someone does who may write its file."""
    with sqlite3.connect(ledger / "ledger.sqlite") as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        kept = [row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in (*statements, *kept):
            connection.execute(statement)


def rehashed(ledger: Path) -> None:
    """Compute the chain of a changed ledger anew, as a careful forger would."""
    with sqlite3.connect(ledger / "ledger.sqlite") as connection:
        rows = connection.execute("SELECT content FROM entries ORDER BY seq").fetchall()
    previous, statements = None, ["DELETE FROM entries"]
    for seq, (text,) in enumerate(rows, start=1):
        text = files.canonical_json({**json.loads(text), "seq": seq, "previous": previous})
        previous = files.sha256(text.encode())
        quoted = text.replace("'", "''")
        statements.append(f"INSERT INTO entries VALUES ({seq}, '{quoted}', '{previous}', NULL)")
    tampered(ledger, *statements)


def test_a_changed_ledger_is_found(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    for number in range(3):
        asked(ledger, f"R-{number}", f"train/dark/{number:02d}.png,ann")
    before = (ledger / "ledger.sqlite").read_bytes()
    changes = {
        "UPDATE entries SET content = replace(content, 'R-1', 'R-9') WHERE seq = 3": "chain",
        "DELETE FROM entries WHERE seq = 3": "chain",
        "DELETE FROM samples WHERE seq = 3": "samples and people",
        "DELETE FROM persons WHERE seq = 3": "samples and people",
        "UPDATE entries SET seq = CASE seq WHEN 3 THEN 9 ELSE seq END": "chain",
    }
    for statement, subject in changes.items():
        (ledger / "ledger.sqlite").write_bytes(before)
        tampered(ledger, statement)
        assert subject in failed(ledger), statement
        if subject == "chain":
            with pytest.raises(UserError, match="the ledger is damaged"):
                Ledger(ledger).state()
    (ledger / "ledger.sqlite").write_bytes(before)
    with sqlite3.connect(ledger / "ledger.sqlite") as connection:
        connection.execute("DROP TRIGGER samples_no_DELETE")
    assert failed(ledger) == ["append-only"]


def test_an_export_verifies_alone(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    asked(ledger, "R-1", "train/dark/01.png,ann@example.org")
    text = run_export(ExportInputs(ledger, tmp_path / "audit.jsonl"))
    for secret in ("ann", "01.png", str(tmp_path), str(trained), "photos"):
        assert secret not in text
    assert failed(ledger, export=tmp_path / "audit.jsonl") == []
    head = json.loads(text.splitlines()[0])["head"]
    asked(ledger, "R-2", "train/dark/02.png,bob")
    assert failed(ledger, head=head) == [] and failed(ledger, head="0" * 64) == [f"head {'0' * 12}…"]
    lines = text.splitlines(keepends=True)
    forgeries = {"length and head": lines[:-1], "chain": [lines[0], lines[2], lines[1]]}
    for subject, forged in forgeries.items():
        (tmp_path / "forged.jsonl").write_text("".join(forged))
        assert subject in failed(ledger, export=tmp_path / "forged.jsonl")
    for content in ("", "{", "[1]\n", '{"format": "x"}\n', "[" * 100_000):
        (tmp_path / "forged.jsonl").write_text(content)
        with pytest.raises(UserError, match="cannot be read as an export of a ledger"):
            failed(ledger, export=tmp_path / "forged.jsonl")


def test_forgeries_are_found_with_a_key_and_named_as_undetectable_without(trained: Path, tmp_path: Path) -> None:
    generate_keys(tmp_path / "mine.key", tmp_path / "mine.pub")
    generate_keys(tmp_path / "other.key", tmp_path / "other.pub")
    sign = {"sign_key": tmp_path / "mine.key"}
    ledger = begun(trained, tmp_path / "ledger", **sign)
    for number in range(2):
        asked(ledger, f"R-{number}", f"train/dark/{number:02d}.png,ann", **sign)
    key = {"public_key": tmp_path / "mine.pub"}
    assert failed(ledger, **key) == []
    assert "signature of entry 1" in failed(ledger, public_key=tmp_path / "other.pub")
    run_export(ExportInputs(ledger, tmp_path / "audit.jsonl", tmp_path / "mine.key"))
    assert failed(ledger, export=tmp_path / "audit.jsonl", **key) == []
    header, *rest = (tmp_path / "audit.jsonl").read_text().splitlines()
    shorter = {**json.loads(header), "entries": 2, "head": json.loads(rest[1])["sha256"]}
    (tmp_path / "forged.jsonl").write_text("\n".join((json.dumps(shorter), *rest[:2])))
    assert failed(ledger, export=tmp_path / "forged.jsonl", **key) == ["signature of the export"]

    removed = [f"DELETE FROM {table} WHERE seq = 2" for table in ("entries", "samples", "persons")]
    tampered(ledger, *removed, "UPDATE samples SET seq = 2", "UPDATE persons SET seq = 2")
    rehashed(ledger)
    checks = verify_ledger(VerifyLedgerInputs(ledger=ledger))
    assert checks.holds
    assert any("anyone who can write these files could have rewritten all of them" in one for one in checks.not_checked)
    assert {"signature of entry 1", "signature of entry 2"} <= set(failed(ledger, **key))


def test_what_was_forgotten_is_found_when_it_comes_back(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    asked(ledger, "R-1", "train/dark/01.png,ann", "train/dark/02.png,ann")
    source = str(trained / "photos")
    assert run_check(CheckInputs(ledger, source)).clean  # pending is not forgotten yet
    (served,) = run_requests(RunInputs(ledger))
    assert served.run is not None
    assert run_check(CheckInputs(ledger, source)).back == ("train: train/dark/01.png", "train: train/dark/02.png")
    other = photos(tmp_path / "backup")
    (other / "train" / "dark" / "01.png").rename(other / "train" / "light" / "renamed.png")
    (other / "train" / "dark" / "02.png").unlink()
    assert run_check(CheckInputs(ledger, str(other))).back == ("train: train/light/renamed.png",)
    (other / "train" / "light" / "renamed.png").unlink()
    assert run_check(CheckInputs(ledger, str(other))).clean
    assert run_check(CheckInputs(ledger, model=served.run.folder)).clean
    assert run_check(CheckInputs(ledger, model=trained / "base")).lacking == ("R-1",)
    for fields in ({}, {"dataset": source, "model": trained}):
        with pytest.raises(BadRequest, match="expected one of --dataset SPEC and --model FILE"):
            run_check(CheckInputs(ledger, **fields))  # type: ignore[arg-type]


def resized(folder: Path) -> Path:
    """Write images that have to be made smaller for a network of 8 pixels."""
    for path in photos(folder, 20).rglob("*.png"):
        Image.open(path).resize((12, 12)).save(path)
    return folder


def served_at_eight_pixels(folder: Path, dataset: str, *lines: str, **fields: Any) -> Path:
    """Train on a data set, and serve one request of a ledger of it."""
    data = DataRequest(dataset, image_size=8)
    run_training(resolve_training(TrainInputs(data=data, device="cpu", settings={"epochs": 1})), folder / "base")
    unlearn = UnlearnInputs(
        method="neggrad",
        retrain="none",
        max_drop=100.0,
        data=data,
        model=ModelRequest(str(folder / "base")),
        device="cpu",
        settings={"epochs": 1, "lr": 1e-4},
    )
    run_init(InitInputs(unlearn, folder / "ledger"))
    (folder / "list.csv").write_text("\n".join(lines))
    run_add(AddInputs(folder / "list.csv", folder / "ledger", **fields))
    (served,) = run_requests(RunInputs(folder / "ledger"))
    assert served.released
    return folder / "ledger"


def test_pixels_are_compared_at_the_size_of_the_ledgers_data(tmp_path: Path) -> None:
    source = resized(tmp_path / "photos")
    ledger = served_at_eight_pixels(tmp_path, str(source), "file", "train/dark/01.png")
    (source / "train" / "dark" / "01.png").rename(source / "train" / "light" / "renamed.png")
    assert run_check(CheckInputs(ledger, str(source))).back == ("train: train/light/renamed.png",)


@pytest.mark.extras
def test_the_ids_of_a_column_name_samples_that_are_known_by_their_pixels(tmp_path: Path) -> None:
    """Data of the library ``datasets`` have no paths, and later runs do not load them with that column."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["dark", "light"]),
            "uid": datasets.Value("string"),
        }
    )
    parts = {}
    for part in ("train", "test"):
        files_ = sorted((resized(tmp_path / "photos") / part).rglob("*.png"))
        columns = {
            "image": [Image.open(path) for path in files_],
            "label": [int(path.parent.name == "light") for path in files_],
            "uid": [f"{part} {number}" for number in range(len(files_))],
        }
        parts[part] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    ledger = served_at_eight_pixels(tmp_path, f"hf:{tmp_path / 'saved'}", "uid", "train 3", "train 5", id_column="uid")
    current = Ledger(ledger).state().current
    assert current is not None and (current["samples"], current["not_found"]) == (2, 0)
    assert failed(ledger) == []
    assert len(run_check(CheckInputs(ledger, f"hf:{tmp_path / 'saved'}")).back) == 2


def test_a_model_that_lost_too_much_is_not_released(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = begun(trained, tmp_path / "ledger", max_drop=2.0)
    asked(ledger, "R-1", "train/dark/01.png,ann", "train/dark/02.png,ann")
    with monkeypatch.context() as patch:
        patch.setattr("pymixunlearn.experiments.unlearn.run.release_check", breached)
        (refused,) = run_requests(RunInputs(ledger))
    assert not refused.released and refused.run is not None and refused.run.folder.is_dir()
    assert refused.reason == "The model is not released: it lost too much."
    state = Ledger(ledger).state()
    assert [one.request_id for one in state.pending] == ["R-1"] and state.current is None and state.open is None
    assert failed(ledger) == []

    def diverged(*args: Any, **options: Any) -> None:
        raise UserError("unlearning diverged")

    with monkeypatch.context() as patch:
        patch.setattr("pymixunlearn.experiments.request.serve.run_unlearning", diverged)
        with pytest.raises(UserError, match="unlearning diverged"):
            run_requests(RunInputs(ledger, settings={"lr": "1.0", "epochs": "5"}))
    state = Ledger(ledger).state()
    assert len(state.pending) == 1 and state.current is None and state.open is None and failed(ledger) == []
    (served,) = run_requests(RunInputs(ledger, method="fine-tune", settings={"lr": "0.001", "epochs": "1"}))
    assert served.released and served.run is not None and served.run.record["method"] == "fine-tune"
    assert served.run.record["release"]["samples"] == 40
    assert Ledger(ledger).state().model_sha256 == served.run.record["hashes"]["unlearned"]
    assert failed(ledger) == []


def test_what_another_process_served_meanwhile_is_not_served_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two machines, where a lock was lost with its connection."""
    ledger = begun(trained, tmp_path / "ledger")
    asked(ledger, "R-1", "train/dark/01.png,ann")

    def overtaken(plan: Plan, folder: Path, **options: Any) -> Run:
        run = run_unlearning(plan, folder, **options)
        with Ledger(ledger).store.writing() as writer:
            writer.append("refuse", {"batch": ["R-1"], "run": folder.name, "reason": "failed"})
        return run

    with monkeypatch.context() as patch:
        patch.setattr("pymixunlearn.experiments.request.serve.run_unlearning", overtaken)
        with pytest.raises(UserError, match="another process has served requests of the ledger '.*' meanwhile"):
            run_requests(RunInputs(ledger))
    state = Ledger(ledger).state()
    assert state.length == 4 and state.current is None and failed(ledger) == []


def test_a_collapse_leaves_the_model_before_the_newest(trained: Path, tmp_path: Path) -> None:
    ledger = begun(trained, tmp_path / "ledger")
    asked(ledger, "R-1", "train/dark/01.png,ann", "train/dark/02.png,ann")
    (refused,) = run_requests(RunInputs(ledger, settings={"lr": "1e30", "epochs": "5"}))
    assert not refused.released and refused.run is not None and refused.reason is not None
    assert "not finite) and went back to the initial model: nothing is forgotten; try a smaller lr." in refused.reason
    assert refused.run.record["collapse"]["good_step"] == 0 and refused.run.record["unchanged"]
    assert all(check.holds for check in run_verification(VerifyInputs(refused.run.folder)))
    assert entry_of(ledger, -1)["reason"] == "collapse"
    (same,) = run_requests(RunInputs(ledger, settings={"lr": "1e-30"}))
    assert not same.released and "so that nothing was unlearned; try another lr" in str(same.reason)
    assert entry_of(ledger, -1)["reason"] == "unchanged"
    state = Ledger(ledger).state()
    assert [one.request_id for one in state.pending] == ["R-1"] and state.current is None and failed(ledger) == []
    (served,) = run_requests(RunInputs(ledger))
    assert served.run is not None and run_check(CheckInputs(ledger, model=served.run.folder)).clean
    for run in (refused.run, same.run):  # the request is in their chains, and was not unlearned
        assert run is not None and run_check(CheckInputs(ledger, model=run.folder)).lacking == ("R-1",)


def entry_of(ledger: Path, place: int) -> dict[str, Any]:
    """Return the content of an entry, as an export has it."""
    line = json.loads(run_export(ExportInputs(ledger)).splitlines()[1:][place])
    content: dict[str, Any] = json.loads(line["content"])
    return content


def breached(*args: Any) -> dict[str, Any]:
    """Find that a model lost too much, whatever it did."""
    drop = {"max_drop": 2.0, "drop": 30.0, "low": 20.0, "high": 40.0, "samples": 40, "acceptance": None}
    return {"holds": False, "reason": "The model is not released: it lost too much.", **drop}


def test_planted_near_copies_are_found_and_can_be_forgotten_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    root = tmp_path / "photos"
    for part in ("train", "test"):
        for name in ("one", "two"):
            for number in range(8):
                path = root / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                coarse = Image.fromarray(generator.integers(0, 256, (14, 14), dtype=np.uint8))
                coarse.resize((32, 32), Image.Resampling.BICUBIC).save(path)
    original = Image.open(root / "train" / "one" / "0.png")
    original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "train" / "two" / "flipped.png")
    original.save(root / "train" / "two" / "encoded.jpg", quality=80)
    original.resize((20, 20)).save(root / "test" / "one" / "smaller.png")
    data = DataRequest(str(root)).load()
    place = data.train.paths.index("train/one/0.png")  # type: ignore[union-attr]
    pairs = list(near_copies(data, {"train": {place}}))
    assert {pair.name for pair in pairs} == {"train/two/flipped.png", "train/two/encoded.jpg", "test/one/smaller.png"}
    assert {pair.name for pair in pairs if pair.flipped} == {"train/two/flipped.png"}
    assert {pair.sample for pair in pairs} == {"train/one/0.png"} and max(pair.distance for pair in pairs) <= 40
    assert list(near_copies(data, {"train": {place}}, limit=0)) != pairs
    assert list(near_copies(data, {})) == []

    run_training(
        resolve_training(TrainInputs(data=DataRequest(str(root)), device="cpu", settings={"epochs": 1})),
        tmp_path / "base",
    )
    unlearn = UnlearnInputs(
        data=DataRequest(str(root)), model=ModelRequest(str(tmp_path / "base")), device="cpu", method="neggrad"
    )
    run_init(InitInputs(unlearn, tmp_path / "ledger"))
    first = asked(tmp_path / "ledger", "R-1", "train/one/0.png,ann", check_copies=True)
    assert first.copies is not None and len(first.copies) == 3 and first.request.added["samples"]["count"] == 1
    second = asked(tmp_path / "ledger", "R-2", "train/one/0.png,ann", also_forget_copies=True)
    assert second.request.added["samples"]["count"] == 3  # those of the training images


def interrupted(*args: Any, **options: Any) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def test_samples_that_are_gone_before_they_are_unlearned(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    photos(own / "photos")
    (own / "base").symlink_to(trained / "base")
    ledger = begun(own, tmp_path / "ledger")
    asked(ledger, "R-1", "train/dark/01.png,ann", "train/dark/02.png,ann")
    with monkeypatch.context() as patch:
        patch.setattr("pymixunlearn.experiments.unlearn.run.evaluate_models", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_requests(RunInputs(ledger))
    assert Ledger(ledger).state().open is not None
    (own / "photos" / "train" / "dark" / "01.png").unlink()
    with pytest.raises(UserError, match="1 samples to forget are no longer in the data"):
        run_requests(RunInputs(ledger))
    (served,) = run_requests(RunInputs(ledger, allow_missing=True))
    assert served.released
    current = Ledger(ledger).state().current
    assert current is not None and (current["samples"], current["not_found"]) == (1, 1)
    assert len(list((ledger / "runs").iterdir())) == 2  # the interrupted one is of other data
    assert failed(ledger) == []


def test_a_thousand_requests_are_listed_and_verified(trained: Path, tmp_path: Path) -> None:
    ledger = Ledger(begun(trained, tmp_path / "ledger"))
    with ledger.store.writing() as writer:
        for number in range(1000):
            hashes = {number.to_bytes(16, "big"): None}
            body = {
                "request_id": f"R-{number}",
                "received": "2026-01-01",
                "due": "2026-02-01",
                "samples": {"count": 0, "sha256": files.sha256(b"".join(hashes))},
                "persons": {"count": 0, "sha256": files.sha256(b"")},
                "missing": 1,
                "list": "",
            }
            writer.add_samples(writer.append("add", body)["seq"], hashes)
    assert len(ledger.state().pending) == 1000
    assert failed(ledger.folder) == []


@pytest.mark.slow
def test_a_ledger_holds_wherever_its_run_is_killed(trained: Path, tmp_path: Path) -> None:
    """Three times; `killed_requests.py FOLDER 30` does it thirty times."""
    for name in ("photos", "base"):
        (tmp_path / name).symlink_to(trained / name)
    program = [sys.executable, str(Path(__file__).with_name("killed_requests.py")), str(tmp_path), "3"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    *faults, count = done.stdout.splitlines()
    assert faults == [] and count.split()[0] == "3"
