"""An evaluation as a run of its own: a model on a split, beside the model before unlearning and a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import ATTACKERS, Acceptance, Metrics
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.data_origin import data_origin
from pymixunlearn.experiments.common.forget_set import load_split
from pymixunlearn.experiments.common.identity import FORMAT, attack_form, data_identity, history_identity
from pymixunlearn.experiments.common.initial_model import InitialModel, choose_model, load_beside, load_checkpoint
from pymixunlearn.experiments.common.inputs import EvaluateInputs, ModelRequest
from pymixunlearn.experiments.common.known_accuracy import known_accuracy
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.stages import evaluate_models, judge_forgetting
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.other_tool import JudgedRun, publish_judged
from pymixunlearn.reporting import VERSION, measured
from pymixunlearn.tasks import Split
from pymixunlearn.training import resolve_device


@dataclass(frozen=True)
class _Judged:
    """Models of an evaluation: the one that is judged, the one before unlearning, and the one to compare with."""

    model: InitialModel
    before: InitialModel | None
    reference: InitialModel | None

    @property
    def named(self) -> dict[str, InitialModel]:
        """The models by their keys in ``metrics.json``: those of a run of ``unlearn`` where one was unlearned."""
        first, last = ("model", "reference") if self.before is None else ("unlearned", "retrain")
        models = {"initial": self.before, first: self.model, last: self.reference}
        return {name: model for name, model in models.items() if model is not None}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Their networks."""
        return {name: model.loaded for name, model in self.named.items() if model.loaded is not None}


def run_evaluation(
    inputs: EvaluateInputs, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> Run:
    """Measure the model, and with ``out`` write metrics.json, config.json and split.json there.

    With the model before unlearning, ``out`` becomes a folder like that of ``unlearn``, with a report and a record.

    Raises:
        BadRequest: A name is unknown, or it is not said which model is meant.
        UserError: A file is missing, corrupt or does not fit the data, or ``out`` holds another run.
        AnswerIsNo: The accuracy is not the expected one.
    """
    watcher = Observer() if observer is None else observer
    load_plugins(inputs.plugin)
    device = resolve_device(inputs.device)
    check_name("attacker", inputs.attacker, ATTACKERS)
    files = [path for path in (inputs.checkpoint, inputs.reference, inputs.before) if isinstance(path, Path)]
    # A mistyped path should not first cost the decoding of a data set.
    for path in files:
        if not path.exists():
            raise UserError(f"model checkpoint '{path}' does not exist")
    if inputs.checkpoint is not None and inputs.model.weights is not None:
        raise BadRequest(
            f"the model is '{inputs.checkpoint}', and --weights gives another; expected one of them: a model of "
            "another tool by --model and --weights alone"
        )
    if inputs.checkpoint is None and inputs.model == ModelRequest():
        raise BadRequest(
            "an evaluation needs a trained model; expected its file or run folder, or --model and --weights"
        )
    data = fed(inputs.data, inputs.model, inputs.checkpoint)
    given = (inputs.model.model, inputs.model.weights, *files)
    split = load_split(data, inputs.split, *given, seed=inputs.seed, history=inputs.history, observer=watcher)
    judged = _load(inputs, split.dataset)
    model = judged.model
    assert model.loaded is not None  # _load found it so
    if inputs.expect_accuracy is not None or model.trained_elsewhere:
        known_accuracy(model.loaded, split.dataset, inputs.expect_accuracy, device=device, observer=watcher)
    identity = _identity(inputs, split, judged, device)
    folder = None if out is None else RunFolder(out, identity)
    if folder is not None and folder.finished:
        return Run(folder.path, folder.read_json("metrics.json"), known=True)
    rate = model.defaults("initial").lr
    with suited_threads(split.dataset, device):
        metrics = evaluate_models(
            judged.networks,
            split,
            device=device,
            seed=inputs.seed,
            observer=watcher,
            attacker=inputs.attacker,
            asr=inputs.asr,
            reference="reference" if judged.before is None else "retrain",
        )
        acceptance = judge_forgetting(
            judged.networks, split, lr=rate, device=device, seed=inputs.seed, observer=watcher
        )
    if judged.before is None:
        record = _record(inputs, split, metrics, acceptance)
        if folder is not None:
            with folder.writing():
                config = {**identity, **data_origin(inputs.data, inputs.split), "command_line": command_line}
                folder.write_json("config.json", config)
                folder.write_json("split.json", split.manifest())
                folder.write_json("metrics.json", record)
                folder.publish(("config.json", "split.json", "metrics.json"))
        return Run(Path() if folder is None else folder.path, record, known=False)
    run = JudgedRun(inputs, split, judged.named, metrics, acceptance, identity, device, command_line)
    if folder is None:
        return Run(Path(), run.record(), known=False)
    with folder.writing(), suited_threads(split.dataset, device):
        return Run(folder.path, publish_judged(run, folder, watcher), known=False)


def _load(inputs: EvaluateInputs, dataset: Dataset) -> _Judged:
    """Load the models.

    Raises:
        BadRequest: The one to judge has no weights.
        UserError: A file is missing, corrupt or does not fit the data.
    """
    if inputs.checkpoint is not None:
        model = load_checkpoint(inputs.checkpoint, inputs.model, dataset)
    else:
        model = choose_model(inputs.model, dataset)
    if model.loaded is None:
        raise BadRequest(
            f"an evaluation needs a trained model, and '{model.name}' is a network without weights; expected its file "
            "or run folder, or --weights beside --model"
        )
    before, reference = (
        None if given is None else load_beside(given, inputs.model, model, dataset)
        for given in (inputs.before, inputs.reference)
    )
    return _Judged(model, before, reference)


def _record(
    inputs: EvaluateInputs,
    split: Split,
    metrics: Mapping[str, Metrics],
    acceptance: Mapping[str, Acceptance] | None,
) -> dict[str, Any]:
    return {
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


def _identity(inputs: EvaluateInputs, split: Split, judged: _Judged, device: torch.device) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "command": "evaluate",
        **data_identity(split),
        "architecture": judged.model.architecture,
        "model_sha256": judged.model.sha256,
        "reference_sha256": None if judged.reference is None else judged.reference.sha256,
        **({} if judged.before is None else {"initial_sha256": judged.before.sha256}),
        "attacker": inputs.attacker,
        **attack_form(inputs.asr),
        **history_identity(inputs.history),
        "seed": inputs.seed,
        "device": str(device),
    }
