"""The deletion record and its verification: what was changed is found, what was not changed holds."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import Metrics
from pymixunlearn.experiments import (
    DataRequest,
    Plan,
    SplitRequest,
    UnlearnInputs,
    resolve_unlearning,
    run_unlearning,
    verify_metrics,
    verify_models,
)
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.model_config import model_config_text
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.signing import Signer, generate_keys
from pymixunlearn.experiments.unlearn.report import sign_report, write_report
from pymixunlearn.experiments.verify import run_verification
from pymixunlearn.experiments.verify_metrics import tolerance
from pymixunlearn.experiments.verify_request import check_request
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import record_sha256, schema

Make = Callable[..., Plan]
FIRST_RELEASE = Path(__file__).parents[1] / "fixtures" / "run-0.1.0"
"""A run folder that version 0.1.0 wrote: digits, one epoch each."""
SMALL = {"epochs": 2, "initial.epochs": 1, "retrain.epochs": 1}


@pytest.fixture(scope="module")
def finished(model_cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with Retrain, made once; tests work on copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYMIXUNLEARN_CACHE", str(model_cache_folder))
        plan = resolve_unlearning(UnlearnInputs(device="cpu", settings=SMALL))
        return run_unlearning(
            plan, tmp_path_factory.mktemp("runs") / "run", command_line="mixunlearn-cli unlearn"
        ).folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def failing(folder: Path, **options: Any) -> list[str]:
    return [
        check.subject for check in run_verification(VerifyInputs(folder, device="cpu", **options)) if not check.holds
    ]


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return value


def test_the_record_keeps_its_schema_and_says_what_was_done(folder: Path) -> None:
    Draft202012Validator.check_schema(schema())
    record = read(folder / "report.json")
    Draft202012Validator(schema()).validate(record)
    metrics, split = read(folder / "metrics.json"), read(folder / "split.json")
    assert record["request"]["classes"] == ["0"] and record["request"]["forgotten"]["ids"] is None
    assert record["request"]["forgotten"]["indices_sha256"] == split["forget"]["sha256"]
    assert record["dataset"]["fingerprint"] == split["dataset"]["fingerprint"]
    assert record["models"]["initial_sha256"] == metrics["hashes"]["initial"] != record["models"]["unlearned_sha256"]
    assert (
        record["metrics"]["unlearned"] == metrics["metrics"]["unlearned"] and record["versions"] == metrics["versions"]
    )
    assert record["method"]["settings"]["epochs"] == 2
    assert record["times"]["started"] <= record["times"]["finished"] <= record["times"]["written"]
    assert len(record["verdict"]) >= 2
    others = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(record["files"]) == others - {"report.json", "forget.key"} and "pictures/losses.svg" in others


@pytest.mark.parametrize("missing", ["files", "sha256", "verdict"])
def test_the_schema_refuses_what_is_no_record(folder: Path, missing: str) -> None:
    record = read(folder / "report.json")
    del record[missing]
    assert not Draft202012Validator(schema()).is_valid(record)


def test_everything_holds_in_a_folder_as_it_was_written(folder: Path) -> None:
    assert failing(folder) == []
    assert failing(folder, hashes_only=True) == []


@pytest.mark.parametrize(
    "name",
    ["config.json", "split.json", "model.safetensors", "history.csv", "metrics.json", "report.html"]
    + ["pictures/losses.svg"],
)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_found(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    assert name in failing(folder, hashes_only=True)
    assert "metrics" in failing(folder)


@pytest.mark.parametrize("changed", [b"0" * 64, b"no key"])
def test_another_forget_key_is_found_and_a_deleted_one_said(folder: Path, changed: bytes) -> None:
    """No record guards it, since it is not to be known from one; the chain names it by an id."""
    assert "forget.key" in {check.subject for check in run_verification(VerifyInputs(folder, hashes_only=True))}
    (folder / "forget.key").write_bytes(changed)
    assert failing(folder, hashes_only=True) == ["forget.key"]
    (folder / "forget.key").unlink()
    found = run_verification(VerifyInputs(folder, hashes_only=True))
    assert found.holds and any("forget.key is not here" in sentence for sentence in found.not_checked)


@pytest.mark.parametrize("key", ["request", "metrics", "verdict", "times", "command_line"])
def test_changes_of_the_record_itself_are_found(folder: Path, key: str) -> None:
    record = read(folder / "report.json")
    (folder / "report.json").write_text(json.dumps({**record, key: "changed"}))
    assert failing(folder, hashes_only=True) == ["report.json"]


def test_a_record_that_contradicts_the_files_is_found(folder: Path) -> None:
    record = read(folder / "report.json")
    record["metrics"]["unlearned"]["test_f"] += 1.0
    record["dataset"]["name"] = "other"
    (folder / "report.json").write_text(json.dumps({**record, "sha256": record_sha256(record)}))
    (check,) = (check for check in run_verification(VerifyInputs(folder, hashes_only=True)) if not check.holds)
    assert check.detail == "differs from the files beside it: dataset, metrics"


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "history.csv").unlink()
    assert failing(folder, hashes_only=True) == ["history.csv"]


def forge(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change metrics.json and write a record that fits it: what only a new measurement can find."""
    metrics = read(folder / "metrics.json")
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_report(folder)


def test_metrics_that_the_model_does_not_have_are_found(folder: Path) -> None:
    def better(metrics: dict[str, Any]) -> None:
        unlearned = metrics["metrics"]["unlearned"]
        unlearned["test_r"] += 3
        metrics["gap"]["unlearned"]["test_r"] = abs(unlearned["test_r"] - metrics["metrics"]["retrain"]["test_r"])

    forge(folder, better)
    assert failing(folder) == ["gap", "metrics of unlearned"]


@pytest.mark.parametrize("how", ["another sample", "another prediction", "fewer"])
def test_samples_that_did_not_change_most_are_found(folder: Path, how: str) -> None:
    def other(metrics: dict[str, Any]) -> None:
        samples = metrics["most_changed"]["retain"]
        assert len(samples) == 5
        if how == "another sample":
            samples[-1] = {**samples[-1], "index": samples[-1]["index"] + 1}
        elif how == "another prediction":
            samples[0]["unlearned"][1] -= 2
        else:
            del samples[0]

    forge(folder, other)
    assert failing(folder) == ["samples that changed most"]


def test_success_of_attackers_and_plain_numbers_that_the_model_does_not_have_are_found(folder: Path) -> None:
    def better(metrics: dict[str, Any]) -> None:
        unlearned, retrain = metrics["metrics"]["unlearned"], metrics["metrics"]["retrain"]
        unlearned["asr"] += 1.1
        unlearned["mia_loss"] -= 0.9
        unlearned["zrf"] += 0.002
        metrics["gap"]["unlearned"] = Metrics(unlearned).gap_to(retrain)

    forge(folder, better)
    checks = run_verification(VerifyInputs(folder, device="cpu"))
    (wrong,) = (check for check in checks if not check.holds)
    assert wrong.subject == "metrics of unlearned" and "ASR is" in wrong.detail and "ZRF is" in wrong.detail
    assert "MIA" not in wrong.detail  # on another processor it may be so


def test_a_number_that_cannot_be_measured_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(networks: Any, *args: Any, **options: Any) -> dict[str, Any]:
        return {name: {"zrf": None} for name in networks}

    monkeypatch.setattr(verify_metrics, "evaluate_models", measured)
    assert "metrics of unlearned" in failing(folder)


def test_numbers_that_are_not_measured_again_are_listed(folder: Path) -> None:
    def more(metrics: dict[str, Any]) -> None:
        unlearned = metrics["metrics"]["unlearned"]
        unlearned["relearn_steps"] = 7.0
        metrics["gap"]["unlearned"] = Metrics(unlearned).gap_to(metrics["metrics"]["retrain"])

    forge(folder, more)
    found = run_verification(VerifyInputs(folder, device="cpu"))
    assert not [check for check in found if not check.holds]
    assert "relearn_steps of unlearned: it is not measured again" in found.not_checked


@pytest.mark.parametrize(
    ("key", "samples", "expected"),
    [
        ("asr", 100, 1.0),
        ("mia_entropy", 100, 1.0),
        ("zrf", 100, 1e-3),
        ("test_r", 10_000, 0.1),
        ("test_r", 2000, 0.1),
        ("test_r", 1000, 0.2),  # two samples
        ("test_f", 1000, 2.0),
    ],
)
def test_how_far_a_repetition_may_be_from_the_record(key: str, samples: int, expected: float) -> None:
    targets = (torch.arange(samples + samples // 10) >= samples).long()  # a tenth as many of the class to be forgotten
    images = torch.zeros(len(targets), 1, 1, 1)
    dataset = data.from_tensors(images, targets, images, targets, classes=("a", "b"))
    assert tolerance(key, tasks.class_split(dataset, [1])) == pytest.approx(expected)


def test_a_gap_that_is_none_is_found(folder: Path) -> None:
    forge(folder, lambda metrics: metrics["gap"]["unlearned"].update(mean=0.0))
    assert failing(folder, hashes_only=True) == ["gap"]


def test_another_model_under_the_same_name_is_found(folder: Path, tmp_path: Path, small_plan: Make) -> None:
    other = run_unlearning(small_plan({"omega": 1}), tmp_path / "other").folder
    shutil.copy(other / "model.safetensors", folder)
    write_report(folder)
    assert "model unlearned" in failing(folder)


def test_the_model_of_retrain_is_checked_where_it_is_given(folder: Path, tmp_path: Path, small_plan: Make) -> None:
    retrain = run_unlearning(small_plan({"epochs": 1}, method="retrain", retrain=False), tmp_path / "retrain").folder
    checks = run_verification(VerifyInputs(folder, retrain=retrain, device="cpu"))
    details = {check.subject: check.detail for check in checks if check.holds}
    assert len(details) == len(checks)
    # With it, what compares with its answers is measured too.
    assert details["metrics of unlearned"] == "13 measured again" and "metrics of Retrain" in details
    assert failing(folder, retrain=folder) == [
        "model Retrain",
        "metrics of unlearned",
        "metrics of initial",
        "metrics of Retrain",
        "samples that changed most",
    ]


def test_the_list_of_what_was_to_be_forgotten_is_compared(tmp_path: Path, small_plan: Make) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("index,person\n5,anna\n9,bert\n")
    split = SplitRequest(indices=path, id_column="person")
    folder = run_unlearning(small_plan(split=split, retrain=False), tmp_path / "run").folder
    record = read(folder / "report.json")
    Draft202012Validator(schema()).validate(record)
    assert record["request"]["forgotten"]["ids"]["count"] == 2 and record["metrics"]["retrain"] is None
    assert "anna" not in (folder / "report.json").read_text()
    assert failing(folder, deletion_list=path) == []
    path.write_text("index,person\n5,anna\n9,berta\n")
    assert failing(folder, deletion_list=path) == [str(path)]


def test_an_audit_is_taken_into_the_report(folder: Path) -> None:
    (folder / "audit.json").write_text(
        json.dumps({"attacks": {}, "klom": None, "shadow_models": 4, "findings": "", "limits": "little"})
    )
    before = file_sha256(folder / "metrics.json")
    write_report(folder)
    record = read(folder / "report.json")
    Draft202012Validator(schema()).validate(record)
    assert record["audit"]["shadow_models"] == 4 and "audit.json" in record["files"]
    assert record["sha256"] == record_sha256(record)
    assert failing(folder) == [] and file_sha256(folder / "metrics.json") == before


def test_folders_without_a_record_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no report.json"):
        run_verification(VerifyInputs(tmp_path))
    (tmp_path / "report.json").write_text('{"format": "something else"}')
    with pytest.raises(UserError, match="is not a deletion record"):
        run_verification(VerifyInputs(tmp_path))


@pytest.mark.usefixtures("all_trees")  # it was measured with them
def test_a_run_of_the_first_release_still_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(FIRST_RELEASE, folder)
    checks = run_verification(VerifyInputs(folder, device="cpu"))
    assert [check.subject for check in checks if not check.holds] == []
    assert {check.subject for check in checks} >= {"model unlearned", "metrics of unlearned", "pictures/losses.png"}

    (folder / "history.csv").unlink()
    assert failing(folder, hashes_only=True) == ["history.csv"]


@pytest.mark.usefixtures("all_trees")  # it was measured with them
def test_the_report_of_a_run_of_the_first_release_can_be_renewed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(FIRST_RELEASE, folder)
    write_report(folder)
    record = json.loads((folder / "report.json").read_text())
    Draft202012Validator(schema()).validate(record)
    old = json.loads((FIRST_RELEASE / "report.json").read_text())
    assert record["metrics"]["unlearned"] == old["metrics"]["after"]
    assert record["models"]["initial_sha256"] == old["models"]["before_sha256"]
    assert failing(folder) == []


def reseal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda record: None) -> None:
    """Change the record and compute every hash again, as a forger can."""
    record = read(folder / "report.json")
    change(record)
    record["files"] = {name: file_sha256(folder / name) for name in record["files"] if (folder / name).is_file()}
    (folder / "report.json").write_text(json.dumps({**record, "sha256": record_sha256(record)}))


def edit_metrics(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    metrics = read(folder / "metrics.json")
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))


def with_gap_zero(folder: Path) -> None:
    def change(metrics: dict[str, Any]) -> None:
        unlearned = metrics["metrics"]["unlearned"]
        metrics["metrics"]["retrain"] = dict(unlearned)
        for name in ("initial", "unlearned"):
            metrics["gap"][name] = Metrics(metrics["metrics"][name]).gap_to(unlearned)

    edit_metrics(folder, change)
    write_report(folder)


def with_another_page(folder: Path) -> None:
    page = folder / "report.html"
    page.write_text(page.read_text("utf-8").replace("This is one run", "This is proof"), "utf-8")
    reseal(folder)


def with_another_record(folder: Path) -> None:
    reseal(folder, lambda record: record.update(verdict=["It is as good as retrained.", "Nothing is left."]))


def with_another_time(folder: Path) -> None:
    reseal(folder, lambda record: record["times"].update(finished="2020-01-01T00:00:00Z"))


def with_another_hash(folder: Path) -> None:
    reseal(folder, lambda record: record["models"].update(initial_sha256="0" * 64))


def with_nothing_guarded(folder: Path) -> None:
    (folder / "history.csv").unlink()
    shutil.rmtree(folder / "pictures")
    reseal(folder, lambda record: record.update(files={}))


def with_a_file_more(folder: Path) -> None:
    (folder / "pictures" / "more.svg").write_text("<svg/>")


def with_the_initial_model(folder: Path) -> None:
    def change(metrics: dict[str, Any]) -> None:
        initial = metrics["metrics"]["initial"]
        metrics["hashes"]["unlearned"] = metrics["hashes"]["initial"]
        metrics["metrics"] = {**dict.fromkeys(("initial", "unlearned", "retrain"), initial), "second_retrain": None}
        gap = Metrics(initial).gap_to(initial)
        metrics["gap"] = {"initial": gap, "unlearned": gap}

    edit_metrics(folder, change)
    write_report(folder)


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = read(folder / name)
    change(content)
    (folder / name).write_text(json.dumps(content))


def with_another_class_by_name(folder: Path) -> None:
    """The record certifies that class 9 was forgotten, in all files alike; it was class 0."""

    def swap(names: list[str]) -> None:
        names[0], names[9] = names[9], names[0]

    edit(folder, "split.json", lambda split: swap(split["samples"]["classes"]))
    edit(folder, "config.json", lambda config: swap(config["class_names"]))
    config = read(folder / "config.json")
    text = model_config_text(
        config["architecture"], config["class_names"], data.Preprocess.from_dict(config["preprocess"])
    )
    (folder / "model.yaml").write_text(text)
    write_report(folder)
    assert read(folder / "report.json")["request"]["classes"] == ["9"]


def with_other_samples_by_id(folder: Path) -> None:
    edit(folder, "split.json", lambda split: split["forget"].update(ids=split["forget"]["ids"][::-1]))
    write_report(folder)


def with_a_method_that_it_was_not(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config.update(method="retrain"))
    reseal(folder)


def with_a_seed_that_it_was_not(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config.update(seed=5))
    reseal(folder)


def with_a_picture_that_is_none(folder: Path) -> None:
    next((folder / "pictures").glob("*.svg")).write_text("<p>")
    reseal(folder)


def with_a_link_to_a_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent, target_is_directory=True)


ADDITIONS = (with_a_file_more, with_a_link_to_a_folder)
"""They leave the record and the files that it knows as they are."""
FORGERIES = [
    (with_another_class_by_name, "class names"),
    (with_other_samples_by_id, "split.json, content"),
    (with_a_method_that_it_was_not, "config.json, content"),
    (with_a_seed_that_it_was_not, "config.json, content"),
    (with_a_picture_that_is_none, "files"),
    (with_a_link_to_a_folder, "more"),
    (with_gap_zero, "metrics of Retrain"),  # F2 and F3: found, since Retrain is in the cache
    (with_another_page, "report.html, content"),  # F4
    (with_another_record, "report.json, content"),  # F5
    (with_another_time, "report.json, content"),
    (with_another_hash, "report.json, content"),
    (with_nothing_guarded, "history.csv"),  # F6
    (with_the_initial_model, "models"),  # F10
    (with_a_file_more, "pictures/more.svg"),  # T
]


@pytest.mark.parametrize(("forged", "subject"), FORGERIES)
def test_forgeries_are_found(folder: Path, forged: Callable[[Path], None], subject: str) -> None:
    assert failing(folder) == []
    forged(folder)
    assert subject in failing(folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of keys, mine and another's."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        generate_keys(place / f"{name}.key", place / f"{name}.pub")
    return place


@pytest.mark.parametrize(("forged", "subject"), FORGERIES)
def test_forgeries_of_a_signed_run_are_found_by_hashes_and_signature_alone(
    folder: Path, keys: Path, forged: Callable[[Path], None], subject: str
) -> None:
    sign_report(folder, Signer(keys / "mine.key"))
    signature = (folder / "report.dsse.json").read_bytes()
    signed = {"hashes_only": True, "public_key": keys / "mine.pub"}
    assert failing(folder, **signed) == []
    forged(folder)
    (folder / "report.dsse.json").write_bytes(signature)
    assert (subject if forged in ADDITIONS else "report.dsse.json") in failing(folder, **signed)
    sign_report(folder, Signer(keys / "other.key"))  # a forger has no other key to sign with
    assert forged in ADDITIONS or "report.dsse.json" in failing(folder, **signed)


def test_a_signature_is_of_one_record_and_one_key(folder: Path, keys: Path) -> None:
    checks = run_verification(VerifyInputs(folder, hashes_only=True))
    assert any("anyone who can write these files could have rewritten all" in text for text in checks.not_checked)
    assert failing(folder, hashes_only=True, public_key=keys / "mine.pub") == ["report.dsse.json"]
    sign_report(folder, Signer(keys / "mine.key"))
    assert failing(folder, hashes_only=True, public_key=keys / "other.pub") == ["report.dsse.json"]
    checks = run_verification(VerifyInputs(folder, hashes_only=True))
    assert checks.holds and "signature of report.json: --public-key checks it" in checks.not_checked
    envelope = read(folder / "report.dsse.json")
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["subject"][0]["digest"]["sha256"] == file_sha256(folder / "report.json")
    for other in ({}, {**envelope, "payload": envelope["payload"][4:]}, {**envelope, "signatures": []}, [1]):
        (folder / "report.dsse.json").write_text(json.dumps(other))
        assert failing(folder, hashes_only=True, public_key=keys / "mine.pub") == ["report.dsse.json"]
    sign_report(folder, Signer(keys / "mine.key"))
    write_report(folder)  # as an audit does: the record is another one
    assert not (folder / "report.dsse.json").exists()
    for path, message in {keys / "mine.pub": "as a private key", keys / "none": "No such file"}.items():
        with pytest.raises(UserError, match=message):
            Signer(path)
    with pytest.raises(UserError, match="as a public key"):
        failing(folder, hashes_only=True, public_key=keys / "mine.key")
    with pytest.raises(UserError, match="a key is not replaced"):
        generate_keys(keys / "mine.key", keys / "new.pub")
    assert (keys / "mine.key").stat().st_mode & 0o777 == 0o600


def test_what_a_manifest_says_of_its_samples_is_compared_with_the_data() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1) % 8  # the last four are copies
    labels = torch.arange(12) % 3
    dataset = data.from_tensors(images, labels, images[:3], labels[:3])
    config = {"class_names": list(dataset.train.classes)}

    def refused(split: tasks.Split, current: bool = True, **changes: Any) -> list[str]:
        manifest = {**json.loads(json.dumps(split.manifest())), **changes}
        manifest = {key: value for key, value in manifest.items() if value is not None}
        return [c.detail for c in check_request(split, config, manifest, current=current) if not c.holds]

    whole, share = tasks.class_split(dataset, [0]), tasks.data_split(dataset, fraction=0.5, classes=[1])
    listed = tasks.index_split(dataset, [0, 5])
    for split in (whole, share, listed, tasks.noisy_split(dataset, classes=[0, 1])):
        assert refused(split) == refused(split, current=False) == []
    # Exact copies that remain are not to be kept quiet about.
    assert "copies" in whole.manifest() and refused(whole, copies=None) == ["is not what the data give: copies"]
    assert refused(whole, current=False, copies=None) == []  # an earlier version may not have known them
    assert refused(whole, samples={"kind": "path"}) == ["is not what the data give: samples"]
    for split, params in (
        (whole, {"classes": [0, 1]}),
        (whole, {"classes": [1]}),
        (share, {"fraction": 0.5, "classes": [2]}),
        (listed, {"count": 3}),
    ):
        assert refused(replace(split, params=params)) == ["is not what the data give: params"]


def with_other_settings(folder: Path) -> None:
    reseal(folder, lambda record: record["method"]["settings"].update(epochs=50))


def with_another_config(folder: Path) -> None:
    config = read(folder / "config.json")
    config["resolved_settings"]["epochs"] = 50
    (folder / "config.json").write_text(json.dumps(config))
    reseal(folder)


def with_another_seed(folder: Path) -> None:
    reseal(folder, lambda record: record.update(seed=7))


@pytest.mark.parametrize("forged", [with_other_settings, with_another_config, with_another_seed])
def test_settings_that_disagree_with_the_files_beside_the_record_are_found(
    folder: Path, forged: Callable[[Path], None]
) -> None:
    forged(folder)
    checks = run_verification(VerifyInputs(folder, hashes_only=True))
    found = {check.subject: check.detail for check in checks if not check.holds}
    key = "seed" if forged is with_another_seed else "method"
    assert found["report.json, content"] == f"differs from the files beside it: {key}"


@pytest.mark.parametrize("name", ["../outside.txt", "pictures/../../outside.txt", "{absolute}"])
def test_a_record_that_names_files_outside_of_the_folder_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent / "outside.txt"
    outside.write_text("of somebody else")
    name = name.format(absolute=outside)
    record = read(folder / "report.json")
    record["files"][name] = file_sha256(outside)  # the true hash: what is wrong is the place alone
    (folder / "report.json").write_text(json.dumps({**record, "sha256": record_sha256(record)}))
    assert failing(folder, hashes_only=True) == [name]


@pytest.mark.parametrize("where", ["processor", "torch"])
def test_what_another_machine_trained_is_no_evidence_against_a_record(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {**versions(), where: "another"}
    monkeypatch.setattr(verify_models, "versions", lambda: here)
    elsewhere = run_verification(VerifyInputs(folder, device="cpu"))
    assert elsewhere.holds and "model Retrain" not in {check.subject for check in elsewhere}
    assert any(
        "another version or processor trained it; give it as --retrain" in text for text in elsewhere.not_checked
    )


def test_what_could_not_be_checked_is_listed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_verification(VerifyInputs(folder, device="cpu"))
    assert {"model initial", "metrics of initial", "metrics of Retrain"} <= {check.subject for check in whole}
    assert len(whole.not_checked) == 1 and "no hash can show" in whole.not_checked[0]
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "empty"))
    alone = run_verification(VerifyInputs(folder, device="cpu"))
    assert alone.holds and any("give it as --retrain" in sentence for sentence in alone.not_checked)
    assert any("give it as --before" in sentence for sentence in alone.not_checked)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"format": "pymixunlearn-report/2", "files": []}', "\x00"])
def test_malformed_records_are_one_sentence(folder: Path, text: str) -> None:
    (folder / "report.json").write_text(text)
    with pytest.raises(UserError, match="is not a deletion record: ") as error:
        run_verification(VerifyInputs(folder, device="cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["request", "models", "metrics", "times", "versions"])
def test_a_record_that_lacks_a_part_is_found(folder: Path, key: str) -> None:
    reseal(folder, lambda record: record.pop(key))
    assert failing(folder)[0] == "report.json, form"


def test_after_the_deletion_the_rest_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 20, 8, 8), dtype=np.uint8)
    for part, images in zip(("train", "test"), pixels, strict=True):
        for label, of_class in zip("ab", images, strict=True):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for number, image in enumerate(of_class):
                Image.fromarray(image).save(tmp_path / "data" / part / label / f"{number:02d}.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forget.txt").write_text("3\n25\n")
    inputs = UnlearnInputs(
        method="neggrad",
        data=DataRequest("imagefolder", Path("data")),
        split=SplitRequest(indices=Path("forget.txt")),
        device="cpu",
        settings={"epochs": 1, "initial.epochs": 1},
        retrain=False,
        thumbnails=False,
    )
    folder = run_unlearning(resolve_unlearning(inputs), tmp_path / "run").folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert failing(folder) == []

    for name in ("a/03.png", "b/05.png"):
        (tmp_path / "data" / "train" / name).unlink()
    after = run_verification(VerifyInputs(folder, device="cpu"))
    assert after.holds
    assert any("D_f is gone, as it should be" in check.detail for check in after)
    assert {"model unlearned", "metrics of unlearned"} <= {check.subject for check in after}
    (tmp_path / "data" / "train" / "a" / "04.png").unlink()
    assert failing(folder) == ["data set"]
