"""The chain of requests in a model's file: what it says, what it hides, and that a further run heeds it."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pymixunlearn import data
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import ModelRequest, Plan, SplitRequest, run_unlearning, run_verification
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.forget_chain import (
    Chain,
    find_key,
    key_id,
    new_key,
    read_key,
    sample_hash,
    unpacked,
    write_key,
)
from pymixunlearn.experiments.common.given import GivenData
from pymixunlearn.experiments.common.history_request import HistoryRequest
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.training import load_model, read_metadata, save_model

Make = Callable[..., Plan]
KEY = bytes(range(32))
QUICK: dict[str, Any] = {"retrain": False, "thumbnails": False}


def listed(folder: Path, *indices: int) -> SplitRequest:
    (folder / "list.txt").write_text("\n".join(map(str, indices)))
    return SplitRequest(indices=folder / "list.txt")


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that forgot five samples of the digits, and then, from that model, three others."""
    from pymixunlearn.experiments import UnlearnInputs, resolve_unlearning

    folder = tmp_path_factory.mktemp("runs")
    settings = {"epochs": 1, "initial.epochs": 1}
    model = None
    for name, indices in {"r1": (3, 14, 159, 265, 358), "r2": (1, 2, 4)}.items():
        request = UnlearnInputs(
            model=ModelRequest(model), split=listed(folder, *indices), device="cpu", settings=settings, **QUICK
        )
        model = str(run_unlearning(resolve_unlearning(request), folder / name).folder)
    return folder


def test_a_chain_is_what_its_hashes_say() -> None:
    chain = Chain(key_id(KEY))
    for names in (("a", "b"), ("c",)):
        chain = chain.extended({"command": "unlearn"}, [sample_hash(KEY, "path", name) for name in names])
    again = Chain.read(json.loads(json.dumps(chain.to_dict())), "the file")
    assert again.head == chain.head and again.samples == chain.samples and len(chain.samples) == 3
    assert sample_hash(new_key(), "path", "a") not in chain.samples

    def forged(change: Callable[[list[dict[str, Any]]], Any]) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(json.dumps(chain.to_dict()))
        change(content["requests"])
        return content

    changes: list[Callable[[list[dict[str, Any]]], Any]] = [
        lambda requests: requests.pop(0),
        lambda requests: requests.reverse(),
        lambda requests: requests[0].update(samples=""),
        lambda requests: requests[1].update(method="other"),
        lambda requests: requests[1].pop("sha256"),
    ]
    for change in changes:
        with pytest.raises(UserError, match="the file is damaged or was changed"):
            Chain.read(forged(change), "the file")
    for content in (None, [], {}, {**chain.to_dict(), "requests": [1]}, {**chain.to_dict(), "format": "x"}):
        with pytest.raises(UserError, match="expected the format"):
            Chain.read(content, "the file")
    with pytest.raises(UserError, match="are 3 bytes"):
        unpacked("AAAA")
    with pytest.raises(UserError, match="not in Base64"):
        unpacked("?")


def test_a_hundred_thousand_samples_take_little_more_than_two_megabytes() -> None:
    chain = Chain(key_id(KEY)).extended({}, (number.to_bytes(16, "big") for number in range(100_000)))
    assert len(json.dumps(chain.to_dict())) < 2.2e6 and len(chain.samples) == 100_000


def test_a_key_is_its_owners_alone(tmp_path: Path) -> None:
    write_key(tmp_path / "forget.key", KEY)
    assert read_key(tmp_path / "forget.key") == KEY
    assert stat.S_IMODE(os.stat(tmp_path / "forget.key").st_mode) == 0o600
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert find_key(tmp_path / "a" / "b", key_id(KEY)) == (tmp_path / "forget.key", KEY)
    assert find_key(tmp_path / "a" / "b" / "c", key_id(KEY)) is None
    assert find_key(tmp_path, key_id(new_key())) is None
    (tmp_path / "short").write_text("00ff\n")
    for name, message in {"short": "expected 32 bytes", "none": "No such file"}.items():
        with pytest.raises(UserError, match=message):
            read_key(tmp_path / name)


def test_a_model_says_what_it_has_forgotten_and_no_name_of_it(two_runs: Path) -> None:
    key = read_key(two_runs / "r1" / "forget.key")
    assert key == read_key(two_runs / "r2" / "forget.key")
    digits = data.load("digits").train
    metadata = read_metadata(two_runs / "r2" / "model.safetensors")
    chain = Chain.read(metadata["chain"], "r2")
    named = [digits.ids[index] for index in (3, 14, 159, 265, 358, 1, 2, 4)]
    assert chain.samples == {sample_hash(key, "content", name) for name in named}
    assert [len(unpacked(entry["samples"])) for entry in chain.requests] == [5, 3]
    metrics = json.loads((two_runs / "r2" / "metrics.json").read_text())
    last = chain.requests[-1]
    for model in ("initial", "unlearned"):
        assert last[f"{model}_sha256"] == metrics["hashes"][model]
    assert last["data_sha256"] == data.load("digits").fingerprint()
    assert metrics["chain"] == chain.summary()
    header = (two_runs / "r2" / "model.safetensors").read_bytes()[:20_000]
    for secret in (*named, key.hex(), str(two_runs), "list.txt", "forget_sha256"):
        assert secret.encode() not in header
    assert all(check.holds for check in run_verification(VerifyInputs(two_runs / "r2", hashes_only=True)))


def test_earlier_and_new_samples_are_told_and_measured_apart(two_runs: Path) -> None:
    record = json.loads((two_runs / "r2" / "report.json").read_text())
    assert record["request"]["history"] == {"requests": 1, "samples": 5, "not_found": 0, "classes": []}
    assert record["request"]["forgotten_before"]["count"] == 5 and record["request"]["forgotten"]["count"] == 3
    assert record["chain"]["requests"] == 2 and record["chain"]["samples"] == 8
    assert "5 forgotten earlier, 3 now" in " ".join((two_runs / "r2" / "report.html").read_text().split())
    metrics = json.loads((two_runs / "r2" / "metrics.json").read_text())
    for model in ("initial", "unlearned"):
        assert metrics["metrics"][model]["earlier_f"] in (0, 20, 40, 60, 80, 100)
    assert metrics["details"]["unlearned"]["samples"]["earlier_f"] == 5
    assert "earlier_f" not in json.loads((two_runs / "r1" / "metrics.json").read_text())["metrics"]["unlearned"]


def test_a_bare_model_file_needs_its_key(two_runs: Path, tmp_path: Path, small_plan: Make) -> None:
    shutil.copy(two_runs / "r2" / "model.safetensors", tmp_path / "lone.safetensors")
    model, split = ModelRequest(str(tmp_path / "lone.safetensors")), listed(tmp_path, 7)
    with pytest.raises(UserError, match="has forgotten 8 samples before, and which they are cannot be told"):
        small_plan(model=model, split=split)
    write_key(tmp_path / "other.key", new_key())
    with pytest.raises(UserError, match="'.*other.key' is the key of other models"):
        small_plan(model=model, split=split, history=HistoryRequest(tmp_path / "other.key"))
    with pytest.raises(UserError, match="cannot be read as a forget.key"):
        small_plan(model=model, split=split, history=HistoryRequest(tmp_path / "none.key"))

    def excluded(**fields: Any) -> list[int]:
        found = small_plan(split=split, **fields).split
        assert found.excluded_indices is not None
        return found.excluded_indices.tolist()

    every = [1, 2, 3, 4, 14, 159, 265, 358]
    assert excluded(model=model, history=HistoryRequest(two_runs / "r1" / "forget.key")) == every
    weights = ModelRequest("cnn", weights=tmp_path / "lone.safetensors")
    assert excluded(model=weights, history=HistoryRequest(two_runs / "r1" / "forget.key")) == every
    shutil.copytree(two_runs / "r2", tmp_path / "elsewhere")
    assert excluded(model=ModelRequest(str(tmp_path / "elsewhere"))) == every
    shutil.copy(two_runs / "r2" / "forget.key", tmp_path / "forget.key")
    assert excluded(model=model) == every


def test_samples_that_are_gone_from_the_data_are_counted(two_runs: Path, tmp_path: Path, small_plan: Make) -> None:
    digits = data.load("digits")
    left = torch.tensor([index for index in range(len(digits.train)) if index not in (3, 14)])
    rest = replace(digits, train=digits.train.subset(left))
    split = small_plan(
        data=GivenData(dataset=rest.name, loaded=rest), model=ModelRequest(str(two_runs / "r2")), split=SplitRequest()
    ).split
    assert split.history["not_found"] == 2 and split.history["samples"] == 8
    assert split.excluded_indices is not None
    forgotten = {digits.train.ids[index] for index in (159, 265, 358, 1, 2, 4)}
    here = {split.train.ids[index] for index in split.excluded_indices.tolist()}
    assert here == forgotten - {split.train.ids[index] for index in split.forget_indices.tolist()}


def test_setting_the_history_aside_is_recorded(two_runs: Path, tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan(
        model=ModelRequest(str(two_runs / "r2")),
        split=listed(tmp_path, 7),
        history=HistoryRequest(forget_history="none"),
        **QUICK,
    )
    assert plan.split.excluded_indices is None and plan.identity["forget_history"] == "none"
    folder = run_unlearning(plan, tmp_path / "run").folder
    chain = Chain.read(read_metadata(folder / "model.safetensors")["chain"], "run")
    before = Chain.read(read_metadata(two_runs / "r2" / "model.safetensors")["chain"], "r2")
    assert len(chain) == 1 and chain.requests[0]["set_aside"] == [{"requests": 2, "head": before.head}]
    record = json.loads((folder / "report.json").read_text())
    assert record["request"]["history"] == {"set_aside": 2}
    assert "earlier requests were set aside" in " ".join((folder / "report.html").read_text().split())
    assert json.loads((folder / "config.json").read_text())["forget_history"] == "none"
    with pytest.raises(BadRequest, match="unknown history 'nothing'"):
        small_plan(model=ModelRequest(str(two_runs / "r2")), history=HistoryRequest(forget_history="nothing"))


def test_a_forged_chain_is_found(two_runs: Path, tmp_path: Path, small_plan: Make) -> None:
    """A model's file whose chain leaves a request out, with all other hashes made anew."""
    folder = tmp_path / "forged"
    shutil.copytree(two_runs / "r2", folder)
    file = folder / "model.safetensors"
    metadata = read_metadata(file)
    chain = Chain.read(metadata["chain"], "r2")
    shorter = Chain(chain.key_id).extended(
        {name: value for name, value in chain.requests[1].items() if name != "sha256"},
        unpacked(chain.requests[1]["samples"]),
    )
    save_model(file, load_model(file), metadata={**metadata, "chain": shorter.to_dict()})
    failed = [check.subject for check in run_verification(VerifyInputs(folder, hashes_only=True)) if not check.holds]
    assert "model.safetensors" in failed

    metrics = json.loads((folder / "metrics.json").read_text())
    from pymixunlearn.experiments.unlearn.report import write_report
    from pymixunlearn.files import file_sha256

    metrics["chain"] = shorter.summary()
    metrics["hashes"]["model.safetensors"] = file_sha256(file)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_report(folder)
    failed = [check.subject for check in run_verification(VerifyInputs(folder, hashes_only=True)) if not check.holds]
    assert failed == ["chain, samples"]  # split.json still names the five samples of the first request
    metadata["chain"]["requests"][0]["samples"] = ""
    save_model(file, load_model(file), metadata=metadata)
    with pytest.raises(UserError, match="is damaged or was changed"):
        small_plan(model=ModelRequest(str(folder)), split=listed(tmp_path, 7))
