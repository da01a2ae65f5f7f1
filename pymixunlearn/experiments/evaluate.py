"""An evaluation as a run of its own: a checkpoint on a split, beside a reference if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import ATTACKERS
from pymixunlearn.experiments.common.bad_request import check_name
from pymixunlearn.experiments.common.data_origin import data_origin
from pymixunlearn.experiments.common.forget_set import load_split
from pymixunlearn.experiments.common.identity import FORMAT, attack_form, data_identity
from pymixunlearn.experiments.common.initial_model import InitialModel, choose_model, load_checkpoint
from pymixunlearn.experiments.common.inputs import EvaluateInputs
from pymixunlearn.experiments.common.known_accuracy import known_accuracy
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.stages import evaluate_models, judge_forgetting
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.reporting import VERSION, measured
from pymixunlearn.tasks import Split
from pymixunlearn.training import resolve_device


def run_evaluation(
    inputs: EvaluateInputs, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> Run:
    """Measure the checkpoint, and with ``out`` write metrics.json, config.json and split.json there.

    Raises:
        BadRequest: A name is unknown.
        UserError: A file is missing, corrupt or does not fit the data, or ``out`` holds another run.
    """
    watcher = Observer() if observer is None else observer
    load_plugins(inputs.plugin)
    device = resolve_device(inputs.device)
    check_name("attacker", inputs.attacker, ATTACKERS)
    # A mistyped path should not first cost the decoding of a data set.
    for path in (inputs.checkpoint, inputs.reference, inputs.initial):
        if path is not None and not path.exists():
            raise UserError(f"model checkpoint '{path}' does not exist")
    data = fed(inputs.data, inputs.model, inputs.checkpoint)
    split = load_split(data, inputs.split, inputs.checkpoint, inputs.reference, seed=inputs.seed, observer=watcher)
    if inputs.checkpoint is None:
        model = choose_model(inputs.model, split.dataset)
    else:
        model = load_checkpoint(inputs.checkpoint, inputs.model, split.dataset)
    others = {
        name: None if path is None else load_checkpoint(path, inputs.model, split.dataset)
        for name, path in (("initial", inputs.initial), ("reference", inputs.reference))
    }
    assert model.loaded is not None
    if inputs.expect_accuracy is not None:
        known_accuracy(model.loaded, split.dataset, inputs.expect_accuracy, device=device, observer=watcher)
    identity = _identity(inputs, split, model, others, device)
    folder = None if out is None else RunFolder(out, identity)
    if folder is not None and folder.finished:
        return Run(folder.path, folder.read_json("metrics.json"), known=True)

    networks = {
        name: found.loaded
        for name, found in (("model", model), *others.items())
        if found is not None and found.loaded is not None
    }
    with suited_threads(split.dataset, device):
        metrics = evaluate_models(
            networks,
            split,
            device=device,
            seed=inputs.seed,
            observer=watcher,
            attacker=inputs.attacker,
            asr=inputs.asr,
            reference="reference",
        )
        rate = model.defaults("initial").lr
        acceptance = judge_forgetting(networks, split, lr=rate, device=device, seed=inputs.seed, observer=watcher)
    record = {
        "version": VERSION,
        "method": "evaluate",
        "dataset": split.dataset.name,
        "task": split.task,
        "seed": inputs.seed,
        **attack_form(inputs.asr),
        **measured(metrics, reference="reference"),
        "acceptance": None if acceptance is None else {name: test.to_dict() for name, test in acceptance.items()},
        "versions": versions(),
    }
    if folder is not None:
        with folder.writing():
            folder.write_json("config.json", {**identity, **data_origin(inputs.data), "command_line": command_line})
            folder.write_json("split.json", split.manifest())
            folder.write_json("metrics.json", record)
            folder.publish(("config.json", "split.json", "metrics.json"))
    return Run(Path() if folder is None else folder.path, record, known=False)


def _identity(
    inputs: EvaluateInputs,
    split: Split,
    model: InitialModel,
    others: Mapping[str, InitialModel | None],
    device: torch.device,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "command": "evaluate",
        **data_identity(split),
        "architecture": model.architecture,
        "model_sha256": model.sha256,
        "reference_sha256": None if others["reference"] is None else others["reference"].sha256,
        **({} if others["initial"] is None else {"initial_sha256": others["initial"].sha256}),
        "attacker": inputs.attacker,
        **attack_form(inputs.asr),
        "seed": inputs.seed,
        "device": str(device),
    }
