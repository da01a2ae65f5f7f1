"""A training as a run of its own: an initial model on all data, or Retrain on what remains."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from pymixunlearn import models
from pymixunlearn.data import Dataset, ImageSet, TrainingSet
from pymixunlearn.evaluation import Metrics, accuracy, predict_logits
from pymixunlearn.experiments.common.forget_set import leave_out_earlier
from pymixunlearn.experiments.common.history import merge_histories, to_csv
from pymixunlearn.experiments.common.identity import FORMAT, data_identity, identity_hash
from pymixunlearn.experiments.common.initial_model import CHECKPOINT, InitialModel, choose_model
from pymixunlearn.experiments.common.inputs import BadRequest, TrainInputs
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.settings import build_training
from pymixunlearn.experiments.common.stages import evaluate_models, train_initial, train_retrain
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import VERSION, measured
from pymixunlearn.tasks import Split
from pymixunlearn.training import MeanTeacherConfig, TrainConfig, defaults_for, model_hash, resolve_device, save_model


@dataclass(frozen=True)
class TrainingPlan:
    """A training that can start; ``split`` is None when it takes all data."""

    inputs: TrainInputs
    dataset: Dataset
    split: Split | None
    initial: InitialModel
    config: TrainConfig
    device: torch.device

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
            "command": self.inputs.command,
            "settings": self.config.to_dict(),
            **(which if self.split is None else data_identity(self.split)),
            "architecture": self.initial.architecture,
            "seed": self.inputs.seed,
            "device": str(self.device),
        }


def resolve_training(inputs: TrainInputs, *, observer: Observer | None = None) -> TrainingPlan:
    """Load the data and settle every setting.

    Raises:
        BadRequest: A name or a setting is unknown, or a value does not fit.
        UserError: Files are missing or corrupt, or the device is not available.
    """
    device = resolve_device(inputs.device)
    # A bad setting is found before data is read. The network's own defaults, and whether the task has the setting,
    # follow later.
    build_training(MeanTeacherConfig(), inputs.settings)
    inputs.split.check()
    dataset = inputs.data.load(observer)
    split = None
    if inputs.command == "retrain":
        split = leave_out_earlier(inputs.split.make(dataset, inputs.seed), inputs.model, observer)
    initial = choose_model(inputs.model, dataset)
    purpose: Literal["initial", "retrain"] = "initial" if split is None else "retrain"
    if split is None and initial.loaded is not None:
        raise BadRequest(f"a model is trained from a network's name, one of {', '.join(models.available())}")
    semi_supervised = split is not None and split.unlabelled_indices is not None
    config = build_training(defaults_for(initial.name, purpose, semi_supervised=semi_supervised), inputs.settings)
    return TrainingPlan(inputs, dataset, split, initial, config, device)


def run_training(
    plan: TrainingPlan, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> Run:
    """Carry out a training and write its folder: checkpoint, metrics, history, config, and the split if there is one.

    Raises:
        UserError: The folder holds another run or cannot be written, or the training failed.
    """
    watcher = Observer() if observer is None else observer
    inputs, identity = plan.inputs, plan.identity
    name = f"{inputs.command}-{plan.dataset.name}-{plan.initial.name}-seed{inputs.seed}-{identity_hash(identity)}"
    folder = RunFolder(Path("runs") / name if out is None else out, identity)
    if folder.finished:
        return Run(folder.path, folder.read_json("metrics.json"), known=True)
    with folder.writing(), suited_threads(plan.dataset, plan.device):
        record = _carry_out(plan, folder, watcher, command_line)
    return Run(folder.path, record, known=False)


def _carry_out(plan: TrainingPlan, folder: RunFolder, watcher: Observer, command_line: str) -> dict[str, Any]:
    """Train, measure and publish the folder; returns the content of metrics.json."""
    inputs, identity = plan.inputs, plan.identity
    if plan.split is None:
        trained = train_initial(
            plan.initial.architecture,
            TrainingSet(plan.dataset.train),
            plan.dataset.preprocess,
            plan.config,
            device=plan.device,
            seed=inputs.seed,
            observer=watcher,
        )
        found = {"initial": Metrics(_accuracies(trained.model.to(plan.device), plan, watcher))}
    else:
        network = plan.initial.loaded
        if network is None:
            network = models.build(**plan.initial.architecture)
        trained = train_retrain(
            network, plan.split, plan.config, device=plan.device, seed=inputs.seed, observer=watcher
        )
        found = evaluate_models(
            {"retrain": trained.model}, plan.split, device=plan.device, seed=inputs.seed, observer=watcher
        )

    facts: dict[str, Any] = {key: identity[key] for key in ("dataset", "task", "seed") if key in identity}
    save_model(folder.partial / CHECKPOINT, trained.model, metadata={"purpose": inputs.command, **facts})
    purpose = "initial" if plan.split is None else "retrain"
    record: dict[str, Any] = {
        "version": VERSION,
        "method": inputs.command,
        **facts,
        **measured(found),
        "seconds": {purpose: trained.seconds},
        "hashes": {purpose: model_hash(trained.model), CHECKPOINT: file_sha256(folder.partial / CHECKPOINT)},
        "versions": versions(),
    }
    files = ["config.json", CHECKPOINT, "history.csv", "metrics.json"]
    folder.write_json("config.json", {**identity, **_origin(plan), "command_line": command_line})
    if plan.split is not None:
        files.insert(1, "split.json")
        folder.write_json("split.json", plan.split.manifest())
    folder.write_text("history.csv", to_csv(merge_histories({purpose: trained.history})))
    folder.write_json("metrics.json", record)
    folder.publish(tuple(files))
    return record


def _accuracies(model: torch.nn.Module, plan: TrainingPlan, observer: Observer) -> dict[str, float | None]:
    """Measure a model on all of the training and test images, without augmentation."""
    observer.phase_started("evaluation", 2)
    measured = {}
    for done, (name, images) in enumerate({"train": plan.dataset.train, "test": plan.dataset.test}.items()):
        observer.phase_advanced("evaluation", done, name)
        logits = predict_logits(model, images, plan.dataset.preprocess, device=plan.device)
        measured[name] = accuracy(logits, images.targets)
    observer.phase_finished("evaluation", "1 model")
    return measured


def _origin(plan: TrainingPlan) -> dict[str, Any]:
    """Return where data and model came from, so that config.json can repeat the training."""
    inputs = plan.inputs
    return {
        "model": str(plan.initial.checkpoint or plan.initial.name),
        "architecture_name": inputs.model.architecture,
        "data_dir": None if inputs.data.data_dir is None else os.path.abspath(inputs.data.data_dir),
        "image_size": inputs.data.image_size,
        "threads": torch.get_num_threads(),
    }
