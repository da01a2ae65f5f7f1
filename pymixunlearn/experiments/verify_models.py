"""Models of a run that is verified: loaded again, found again, and compared with the hashes in its record."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.in_memory import is_object
from pymixunlearn.experiments.common.initial_model import CHECKPOINT, file_of
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.network import lasting
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.settings import read_training
from pymixunlearn.experiments.common.stages import cached_models
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.verify_metrics import Check, changed_from
from pymixunlearn.models.registry import model_runs_code
from pymixunlearn.models.weight_files import read_tensors
from pymixunlearn.reporting import SECOND, row_name
from pymixunlearn.tasks import Split
from pymixunlearn.training import load_model, model_hash, tensors_hash

_OPTIONS = {"initial": "before", "retrain": "retrain"}
_NOT_ASKED = ("name", "structure_sha256", "code_sha256", "pretrained", "members", "aggregate")


def with_given_model(inputs: VerifyInputs, architecture: Mapping[str, Any]) -> VerifyInputs:
    """Return the inputs with the network that ``--model`` names, for a run of a model that was in memory.

    For any other run it has to be the run's own: who names a function consents to running it.

    Raises:
        BadRequest: It is another model than the run's.
        UserError: It cannot be built.
    """
    if inputs.model is None:
        return inputs
    if is_object(architecture):
        about = {key: value for key, value in architecture.items() if key not in _NOT_ASKED}
        return replace(inputs, network=models.build(inputs.model, **about))
    if lasting(inputs.model) != architecture["name"]:
        raise BadRequest(f"the run's model is '{architecture['name']}', and --model says '{inputs.model}'")
    return inputs


def loaded(file: Path, inputs: VerifyInputs, config: Mapping[str, Any], *, says_its_own: bool = False) -> nn.Module:
    """Load a model of the run's architecture, or of the one that its file says.

    Raises:
        UserError: The file is missing, cannot be read, or is of another architecture.
    """
    architecture = config["architecture"]
    if is_object(architecture):
        return load_model(file, into=copy.deepcopy(inputs.network))
    # Code that was consented to by its name is not run under another one.
    by_name = inputs.model is not None and model_runs_code(architecture) and not inputs.allow_code
    described = None if says_its_own and not by_name else architecture
    return load_model(
        file, architecture=described, num_classes=architecture["num_classes"], allow_code=inputs.allow_code
    )


def check_unbuilt(folder: Path, record: Mapping[str, Any], same_data: bool, data: str) -> Iterator[Check]:
    """Check what needs no network: the data, and the hash of the unlearned model's weights."""
    expected = "" if same_data else changed_from(record["dataset"]["fingerprint"])
    yield Check("data set", same_data, f"{data}{expected}")
    yield _check_hash("unlearned", tensors_hash(read_tensors(folder / CHECKPOINT)[0]), record)


def check_model(name: str, network: nn.Module, record: Mapping[str, Any]) -> Check:
    """Compare the weights of a model of the run with their hash in its record."""
    return _check_hash(name, model_hash(network), record)


def _check_hash(name: str, sha256: str, record: Mapping[str, Any]) -> Check:
    stated = record["models"][f"{name}_sha256"]
    detail = f"sha256 of the weights {sha256[:12]}…"
    same = sha256 == stated
    return Check(f"model {row_name(name)}", same, detail + ("" if same else changed_from(stated)))


def check_weights_in_use(
    file: Path, inputs: VerifyInputs, config: Mapping[str, Any], record: Mapping[str, Any]
) -> Check:
    """Tell whether a file of weights, as it is used elsewhere, holds the unlearned model."""
    try:
        found = model_hash(loaded(file_of(file), inputs, config))
    except UserError as error:
        return Check(str(file), False, str(error))
    same = found == record["models"]["unlearned_sha256"]
    said = "the unlearned model of the record" if same else "another model than the record's unlearned one"
    return Check(str(file), same, f"sha256 of the weights {found[:12]}…: {said}")


def other_models(
    inputs: VerifyInputs, config: Mapping[str, Any], split: Split, missing: list[str], metrics: Mapping[str, Any]
) -> dict[str, nn.Module]:
    """Return the initial model and Retrain: as given, as the run was given it, or from the cache of trained models."""
    found: dict[str, nn.Module] = {}
    given = {"initial": inputs.before, "retrain": inputs.retrain}
    for name, path in given.items():
        if path is not None:
            found[name] = loaded(file_of(path), inputs, config)
    stated = metrics["hashes"].get("initial")
    if "initial" not in found and inputs.network is not None and model_hash(inputs.network) == stated:
        found["initial"] = copy.deepcopy(inputs.network).cpu()
    # What other versions or processors train, under the same settings, need not be what they trained for this run.
    ours = same_machine(metrics)
    with suited_threads(split.dataset, torch.device(config["device"])):
        cached = cached_models(
            config["architecture"],
            split,
            *(read_training(config[name]) if config[name] and name not in found and ours else None for name in given),
            device=torch.device(config["device"]),
            seed=config.get("training_seed", config["seed"]),
            network=inputs.network,
            second=bool(config.get(SECOND)),
        )
    found = {**cached, **found}
    for name in (*given, SECOND):
        if name not in found and metrics["metrics"].get(name) is not None:
            where = "it is not in the cache of trained models" if ours else "another version or processor trained it"
            where += f"; give it as --{_OPTIONS[name]}" if name in given else ""
            missing.append(f"model {row_name(name)} and its metrics: {where}")
    if "retrain" not in found and metrics["metrics"]["retrain"] is not None:
        missing.append("metrics that compare with Retrain's predictions, and every gap to Retrain")
    return {name: found[name] for name in (*given, SECOND) if name in found}


def same_machine(metrics: Mapping[str, Any]) -> bool:
    """Whether versions and processor are those of the run."""
    here = versions()
    return all(metrics["versions"].get(name) == here[name] for name in ("pymixunlearn", "torch", "processor", "gpu"))
