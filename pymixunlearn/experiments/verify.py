"""Does a run folder still say the truth? Its hashes are computed again, and its metrics measured again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import METRICS, Metrics
from pymixunlearn.evaluation.intervals import sample_counts
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.inputs import DataRequest, SplitRequest, VerifyInputs
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import read_json
from pymixunlearn.experiments.common.stages import evaluate_models
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import FORMAT, FORMAT_1, MODELS, RECORD, record_sha256, row_name, upgraded, upgraded_record
from pymixunlearn.tasks import Split
from pymixunlearn.training import load_model, model_hash, resolve_device

PERCENT_TOLERANCE = 0.1
ATTACK_TOLERANCE = 1.0
PLAIN_TOLERANCE = 1e-3
"""How far a metric measured again may be from the record: accuracies, successes of attackers, plain numbers.

On one machine a repetition is exact. Another processor adds up in another order; logits then differ in their last bits,
and a sample may cross a boundary. An accuracy may be off by two samples where these are more than the tolerance.
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what it is, whether it holds, and what was seen."""

    subject: str
    holds: bool
    detail: str


def run_verification(inputs: VerifyInputs, *, observer: Observer | None = None) -> list[Check]:
    """Check a run folder against its ``report.json``.

    Raises:
        UserError: The folder holds no deletion record, or something is not there that the checks need: the data, a
            given model, the device.
    """
    record = _read_record(inputs.folder)
    checks = list(_check_files(inputs.folder, record))
    files_hold = all(check.holds for check in checks)
    checks += _check_copies(inputs.folder, record) if files_hold else []
    if not inputs.hashes_only:
        # A damaged file can fail in any way once it is read; it has been named above.
        if files_hold:
            checks += _check_content(inputs, record, Observer() if observer is None else observer)
        else:
            checks.append(Check("metrics", False, "not measured, since files do not hold"))
    return checks


def _read_record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).is_file():
        raise UserError(f"'{folder}' holds no {RECORD}; expected the folder of a finished run of 'unlearn'")
    record = read_json(folder / RECORD)
    if record.get("format") not in (FORMAT, FORMAT_1) or not isinstance(record.get("files"), dict):
        raise UserError(f"'{folder / RECORD}' is not a deletion record: expected the format '{FORMAT}'")
    return record


def _check_files(folder: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    same = record_sha256(record) == record.get("sha256")
    yield Check(RECORD, same, "its own sha256" if same else "is not what its own sha256 says: it was changed")
    for name, stated in record["files"].items():
        path = folder / name
        if not path.is_file():
            yield Check(name, False, "is missing")
            continue
        found = file_sha256(path)
        yield Check(name, found == stated, f"sha256 {found[:12]}…" + ("" if found == stated else _expected(stated)))


def _expected(stated: object) -> str:
    return f", recorded {str(stated)[:12]}…: it was changed"


def _check_copies(folder: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    """Compare what the record repeats with the file that it is from."""
    metrics, split = upgraded(read_json(folder / "metrics.json")), read_json(folder / "split.json")
    record = upgraded_record(record)
    parts = {
        **{f"metrics of {row_name(model)}": (record["metrics"][model], metrics["metrics"][model]) for model in MODELS},
        "gap": (record["gap"], _like(metrics["gap"], record["gap"])),
        "intervals": (record["intervals"], _like(metrics["intervals"], record["intervals"])),
        "forgotten indices": (record["request"]["forgotten"]["indices_sha256"], split["forget"]["sha256"]),
        "data set": (record["dataset"], split["dataset"]),
    }
    wrong = [name for name, (mine, other) in parts.items() if mine != other]
    detail = f"differs from the files beside it: {', '.join(wrong)}" if wrong else "repeats the files beside it"
    yield Check(f"{RECORD}, content", not wrong, detail)
    retrain = metrics["metrics"]["retrain"]
    if retrain is not None:
        gaps = metrics["gap"] or {}
        right = all(
            gaps.get(name) == Metrics(metrics["metrics"][name]).gap_to(retrain) for name in ("initial", "unlearned")
        )
        yield Check("gap", right, "the distances to Retrain" if right else "is not the distance to Retrain")


def _like(values: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what ``values`` has under the keys of ``other``: a record of version 1 repeats less."""
    return None if other is None or values is None else {key: values.get(key) for key in other}


def _check_content(inputs: VerifyInputs, record: Mapping[str, Any], watcher: Observer) -> Iterator[Check]:
    """Load the data and the model, and measure again."""
    folder = inputs.folder
    config, metrics = read_json(folder / "config.json"), upgraded(read_json(folder / "metrics.json"))
    record = upgraded_record(record)
    device = resolve_device(inputs.device)
    dataset = _load(inputs, config, watcher)
    found, stated = dataset.fingerprint(), record["dataset"]["fingerprint"]
    yield Check("data set", found == stated, f"{dataset.name}, fingerprint {found[:12]}…")
    if found != stated:
        return
    split = Split.load(folder / "split.json", dataset)
    if inputs.deletion_list is not None:
        yield _check_list(inputs.deletion_list, record, dataset)
    networks = {"unlearned": load_model(folder / CHECKPOINT, num_classes=dataset.num_classes)}
    for name, path in (("initial", inputs.initial), ("retrain", inputs.retrain)):
        if path is not None:
            file = path / CHECKPOINT if path.is_dir() else path
            networks[name] = load_model(file, architecture=config["architecture"], num_classes=dataset.num_classes)
    for name, network in networks.items():
        sha256, stated = model_hash(network), record["models"][f"{name}_sha256"]
        detail = f"sha256 of the weights {sha256[:12]}…"
        yield Check(
            f"model {row_name(name)}", sha256 == stated, detail + ("" if sha256 == stated else _expected(stated))
        )
    yield from _check_metrics(networks, split, metrics, device, watcher)


def _load(inputs: VerifyInputs, config: Mapping[str, Any], watcher: Observer) -> Dataset:
    given = config["data_dir"] if inputs.data_dir is None else inputs.data_dir
    return DataRequest(
        dataset=config["dataset"],
        data_dir=None if given is None else Path(given),
        download=inputs.download,
        image_size=config["image_size"],
    ).load(watcher)


def _check_list(path: Path, record: Mapping[str, Any], dataset: Dataset) -> Check:
    asked = record["request"]["forgotten"]
    column = None if asked["ids"] is None else asked["ids"]["column"]
    split = SplitRequest(indices=path, id_column=column).make(dataset, record["seed"])
    manifest: dict[str, Any] = split.manifest()
    same_ids = split.params.get("ids") == asked["ids"]
    same = manifest["forget"]["sha256"] == asked["indices_sha256"] and same_ids
    what = "indices" if column is None else f"indices and ids ('{column}')"
    said = "the forgotten ones" if same else "other ones than were forgotten"
    return Check(str(path), same, f"{len(split.forget_indices)} {what}: {said}")


def _check_metrics(
    networks: Mapping[str, nn.Module],
    split: Split,
    metrics: Mapping[str, Any],
    device: torch.device,
    watcher: Observer,
) -> Iterator[Check]:
    with suited_threads(split.dataset, device):
        measured = evaluate_models(networks, split, device=device, seed=metrics["seed"], observer=watcher)
    for name in networks:
        wrong, known = [], 0
        for key, value in measured[name].items():
            stated = (metrics["metrics"][name] or {}).get(key)
            # Without Retrain's model, what compares with its answers cannot be measured.
            if value is None or (METRICS[key].needs_retrain and "retrain" not in networks):
                continue
            known += 1
            if stated is None or abs(value - stated) > tolerance(key, split):
                wrong.append(f"{METRICS[key].label} is {value:.3f}, recorded {stated}")
        detail = "; ".join(wrong) if wrong else f"{known} measured again"
        yield Check(f"metrics of {row_name(name)}", not wrong, detail)


def tolerance(key: str, split: Split) -> float:
    """Return how far a metric that is measured again may be from the recorded one."""
    if METRICS[key].unit != "%":
        return PLAIN_TOLERANCE
    if key == "asr" or key.startswith("mia_"):
        return ATTACK_TOLERANCE
    return max(PERCENT_TOLERANCE, 200 / sample_counts(split)[key])
