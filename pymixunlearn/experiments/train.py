"""`train`: an initial model on all training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pymixunlearn import models
from pymixunlearn.data import TrainingSet
from pymixunlearn.evaluation import Metrics, accuracy, predict_logits
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.initial_model import choose_model
from pymixunlearn.experiments.common.inputs import TrainInputs
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import Run
from pymixunlearn.experiments.common.settings import build_training
from pymixunlearn.experiments.common.stages import train_initial
from pymixunlearn.experiments.common.training_run import TrainingPlan, run_training_plan
from pymixunlearn.models.specification import FORMS
from pymixunlearn.training import CachedModel, MeanTeacherConfig, resolve_device


def resolve_training(inputs: TrainInputs, *, observer: Observer | None = None) -> TrainingPlan:
    """Load the data and settle every setting.

    Raises:
        BadRequest: A name or a setting is unknown, or a value does not fit.
        UserError: Files are missing or corrupt, or the device is not available.
    """
    load_plugins(inputs.plugin)
    device = resolve_device(inputs.device)
    # A bad setting is found before data is read. The network's own defaults, and that all images have labels, follow.
    build_training(MeanTeacherConfig(), inputs.settings)
    dataset = fed(inputs.data, inputs.model).load(observer)
    initial = choose_model(replace(inputs.model, weights=None), dataset, start=inputs.model.weights)
    if initial.loaded is not None:
        raise BadRequest(
            f"a model is trained from a network's name or specification ({', '.join(models.available())}, {FORMS}); "
            "--weights beside it is what the training starts from"
        )
    for note in initial.notes:
        (Observer() if observer is None else observer).note(note)
    config = build_training(initial.defaults("initial"), inputs.settings)
    return TrainingPlan("train", "initial", inputs, dataset, None, initial, config, device, inputs.curve)


def run_training(
    plan: TrainingPlan, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> Run:
    """Train the model and write its folder: model.safetensors, model.yaml, metrics.json, history.csv and config.json.

    Raises:
        UserError: The folder holds another run or cannot be written, or the training failed.
    """
    return run_training_plan(plan, _train, out, observer=observer, command_line=command_line)


def _train(plan: TrainingPlan, observer: Observer) -> tuple[CachedModel, dict[str, Metrics]]:
    trained = train_initial(
        plan.initial.architecture,
        TrainingSet(plan.dataset.train),
        plan.dataset.preprocess,
        plan.config,
        device=plan.device,
        seed=plan.inputs.seed,
        observer=observer,
        of=plan.dataset,
        test=plan.dataset.test if plan.curve else None,
    )
    return trained, {"initial": Metrics(_accuracies(trained.model.to(plan.device), plan, observer))}


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
