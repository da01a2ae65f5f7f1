"""An evaluation as a run of its own: a checkpoint on a split, beside a reference if there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import ATTACKERS
from pymixunlearn.experiments.common.identity import FORMAT, data_identity
from pymixunlearn.experiments.common.initial_model import InitialModel, load_checkpoint
from pymixunlearn.experiments.common.inputs import DataRequest, SplitRequest, check_name
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import Outcome, RunFolder
from pymixunlearn.experiments.common.stages import evaluate_models
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.reporting import VERSION, measured
from pymixunlearn.tasks import Split
from pymixunlearn.training import resolve_device


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure.

    Attributes:
        checkpoint: A model file, or the run folder it is in.
        reference: Another, usually Retrain's, to show the gap to.
        architecture: The network of checkpoints that do not say their own.
        attacker: The membership attack's classifier.
    """

    checkpoint: Path
    reference: Path | None = None
    architecture: str | None = None
    data: DataRequest = field(default_factory=DataRequest)
    split: SplitRequest = field(default_factory=SplitRequest)
    attacker: str = ATTACKERS[0]
    device: str | None = None
    seed: int = 0


def run_evaluation(
    request: EvaluationRequest, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> Outcome:
    """Measure the checkpoint, and with ``out`` write metrics.json, config.json and split.json there.

    Raises:
        BadRequest: A name is unknown.
        UserError: A file is missing, corrupt or does not fit the data, or ``out`` holds another run.
    """
    watcher = Observer() if observer is None else observer
    device = resolve_device(request.device)
    check_name("attacker", request.attacker, ATTACKERS)
    # A mistyped path should not first cost the decoding of a data set.
    for path in (request.checkpoint, request.reference):
        if path is not None and not path.exists():
            raise UserError(f"model checkpoint '{path}' does not exist")
    split = request.split.make(request.data.load(watcher), request.seed)
    model = load_checkpoint(request.checkpoint, request.architecture, split.dataset)
    reference = None
    if request.reference is not None:
        reference = load_checkpoint(request.reference, request.architecture, split.dataset)
    identity = _identity(request, split, model, reference, device)
    folder = None if out is None else RunFolder(out, identity)
    if folder is not None and folder.finished:
        return Outcome(folder.path, folder.read_json("metrics.json"), known=True)

    networks = {
        name: found.loaded
        for name, found in (("model", model), ("reference", reference))
        if found is not None and found.loaded is not None
    }
    with suited_threads(split.dataset, device):
        metrics = evaluate_models(
            networks,
            split,
            device=device,
            seed=request.seed,
            observer=watcher,
            attacker=request.attacker,
            reference="reference",
        )
    record = {
        "version": VERSION,
        "method": "evaluate",
        "dataset": split.dataset.name,
        "task": split.task,
        "seed": request.seed,
        **measured(metrics, reference="reference"),
        "versions": versions(),
    }
    if folder is not None:
        with folder.writing():
            folder.write_json("config.json", {**identity, "command_line": command_line})
            folder.write_json("split.json", split.manifest())
            folder.write_json("metrics.json", record)
            folder.publish(("config.json", "split.json", "metrics.json"))
    return Outcome(Path() if folder is None else folder.path, record, known=False)


def _identity(
    request: EvaluationRequest, split: Split, model: InitialModel, reference: InitialModel | None, device: torch.device
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "command": "evaluate",
        **data_identity(split),
        "architecture": model.architecture,
        "model_sha256": model.sha256,
        "reference_sha256": None if reference is None else reference.sha256,
        "attacker": request.attacker,
        "seed": request.seed,
        "device": str(device),
    }
