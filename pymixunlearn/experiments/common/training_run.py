"""Training as a run of its own: what `train` and `retrain` share, from the plan to the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from pymixunlearn.data import Dataset, ImageSet
from pymixunlearn.evaluation import Metrics
from pymixunlearn.experiments.common.forget_chain import KEY_FILE, Chain
from pymixunlearn.experiments.common.forget_history import CHAIN, History, is_above, keep_key, next_chain, read_history
from pymixunlearn.experiments.common.history import merge_histories, to_csv
from pymixunlearn.experiments.common.identity import FORMAT, data_identity, history_identity, identity_hash
from pymixunlearn.experiments.common.initial_model import CHECKPOINT, InitialModel
from pymixunlearn.experiments.common.inputs import Inputs
from pymixunlearn.experiments.common.model_config import MODEL_CONFIG, model_config_text
from pymixunlearn.experiments.common.origin import run_origin
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import VERSION, measured
from pymixunlearn.tasks import Split
from pymixunlearn.training import CachedModel, TrainConfig, model_hash, save_model, tensors_hash
from pymixunlearn.training.fresh import frozen_tensors


@dataclass(frozen=True)
class TrainingPlan:
    """A training that can start.

    Attributes:
        command: "train" or "retrain".
        purpose: The key of the model in the files of the run.
        inputs: What was requested.
        dataset: The data.
        split: What is forgotten; None where all training images are used.
        initial: The network.
        config: How to train it.
        device: Where to compute.
        curve: Whether to measure the test accuracy after every epoch.
    """

    command: Literal["train", "retrain"]
    purpose: Literal["initial", "retrain"]
    inputs: Inputs
    dataset: Dataset
    split: Split | None
    initial: InitialModel
    config: TrainConfig
    device: torch.device
    curve: bool = False

    @property
    def images(self) -> ImageSet:
        """The images to train on; in task "semi" the training ignores the labels of most."""
        return self.dataset.train if self.split is None else self.split.retain

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the outcome, JSON-able."""
        which: dict[str, Any] = {
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint(),
            "preprocess": self.dataset.preprocess.to_dict(),
        }
        return {
            "format": FORMAT,
            "command": self.command,
            "settings": self.config.to_dict(),
            **(which if self.split is None else data_identity(self.split)),
            "architecture": self.initial.architecture,
            **self._frozen(),
            **({"curve": True} if self.curve else {}),
            **history_identity(self.inputs.history),
            "seed": self.inputs.seed,
            "device": str(self.device),
        }

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Where data and model are, JSON-able, so that config.json can repeat the training; paths are absolute."""
        inputs = self.inputs
        return run_origin(inputs.model, self.initial, inputs.data, inputs.split)

    @cached_property
    def earlier(self) -> History:
        """What the initial model has forgotten before."""
        return read_history((self.inputs.model.model, self.inputs.model.weights), self.inputs.history)

    def _frozen(self) -> dict[str, Any]:
        """What Retrain takes over of the initial model: the tensors that are frozen in it."""
        frozen = {} if self.initial.loaded is None else frozen_tensors(self.initial.loaded)
        return {"frozen_sha256": tensors_hash(frozen)} if frozen else {}


def run_training_plan(
    plan: TrainingPlan,
    train: Callable[[TrainingPlan, Observer], tuple[CachedModel, Mapping[str, Metrics]]],
    out: Path | None,
    *,
    observer: Observer | None,
    command_line: str,
) -> Run:
    """Carry out a training and write its folder: checkpoint, metrics, history, config, and the split if there is one.

    Args:
        plan: What to do.
        train: Trains the model and measures it; returns both.
        out: The run folder; None makes one in ``runs/``.
        observer: Receives the progress.
        command_line: The command that repeats the training, for the record.

    Raises:
        UserError: The folder holds another run or cannot be written, or the training failed.
    """
    identity = plan.identity
    what = f"{plan.command}-{plan.dataset.name}-{plan.initial.short_name}"
    name = f"{what}-seed{plan.inputs.seed}-{identity_hash(identity)}"
    folder = RunFolder(Path("runs") / name if out is None else out, identity)
    if folder.finished:
        return Run(folder.path, folder.read_json("metrics.json"), known=True)
    with folder.writing(), suited_threads(plan.dataset, plan.device):
        trained, metrics = train(plan, Observer() if observer is None else observer)
        return Run(folder.path, _publish(plan, folder, trained, metrics, command_line), known=False)


def _publish(
    plan: TrainingPlan, folder: RunFolder, trained: CachedModel, metrics: Mapping[str, Metrics], command_line: str
) -> dict[str, Any]:
    """Write the files of a finished training; returns the content of metrics.json."""
    identity = plan.identity
    facts: dict[str, Any] = {key: identity[key] for key in ("dataset", "task", "seed") if key in identity}
    about = {"purpose": plan.command, "preprocess": identity["preprocess"], **facts}
    chain, key_file = _chain(plan, folder, trained.model)
    listed = {} if chain is None else {CHAIN: chain.to_dict()}
    save_model(folder.partial / CHECKPOINT, trained.model, metadata={**about, **listed})
    record: dict[str, Any] = {
        "version": VERSION,
        "method": plan.command,
        **facts,
        **measured(metrics),
        "seconds": {plan.purpose: trained.seconds},
        "hashes": {plan.purpose: model_hash(trained.model), CHECKPOINT: file_sha256(folder.partial / CHECKPOINT)},
        **({} if chain is None else {CHAIN: chain.summary()}),
        "versions": versions(),
    }
    files = ["config.json", MODEL_CONFIG, CHECKPOINT, "history.csv", *key_file, "metrics.json"]
    text = model_config_text(plan.initial.architecture, plan.dataset.train.classes, plan.dataset.preprocess)
    folder.write_text(MODEL_CONFIG, text)
    folder.write_json(
        "config.json", {**identity, **plan.origin, "threads": torch.get_num_threads(), "command_line": command_line}
    )
    if plan.split is not None:
        files.insert(1, "split.json")
        folder.write_json("split.json", plan.split.manifest())
    folder.write_text("history.csv", to_csv(merge_histories({plan.purpose: trained.history})))
    folder.write_json("metrics.json", record)
    folder.publish(tuple(files))
    return record


def _chain(plan: TrainingPlan, folder: RunFolder, model: torch.nn.Module) -> tuple[Chain | None, tuple[str, ...]]:
    """Return the chain of requests of a model that was trained without some samples, and the file of its key."""
    if plan.split is None:
        return None, ()
    key = keep_key(folder.partial, plan.earlier, plan.inputs.history)
    chain = next_chain(
        plan.earlier,
        key,
        plan.split,
        command=plan.command,
        method=None,
        initial_sha256=None,
        unlearned_sha256=model_hash(model),
    )
    return chain, () if is_above(folder.path, key) else (KEY_FILE,)
