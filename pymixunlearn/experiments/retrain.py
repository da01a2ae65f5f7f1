"""`retrain`: the model that unlearning is measured by, trained from scratch on the retain set only."""

from __future__ import annotations

from pathlib import Path

from pymixunlearn import models
from pymixunlearn.evaluation import Metrics
from pymixunlearn.experiments.common.forget_set import load_split
from pymixunlearn.experiments.common.initial_model import choose_model
from pymixunlearn.experiments.common.inputs import RetrainInputs
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import Run
from pymixunlearn.experiments.common.settings import build_training
from pymixunlearn.experiments.common.stages import evaluate_models, train_retrain
from pymixunlearn.experiments.common.training_run import TrainingPlan, run_training_plan
from pymixunlearn.training import CachedModel, MeanTeacherConfig, resolve_device


def resolve_retraining(inputs: RetrainInputs, *, observer: Observer | None = None) -> TrainingPlan:
    """Load the data, make the split and settle every setting.

    Raises:
        BadRequest: A name or a setting is unknown, or a value does not fit.
        UserError: Files are missing or corrupt, or the device is not available.
    """
    load_plugins(inputs.plugin)
    device = resolve_device(inputs.device)
    # A bad setting is found before data is read. The network's own defaults, and whether the task has the setting,
    # follow later.
    build_training(MeanTeacherConfig(), inputs.settings)
    split = load_split(
        fed(inputs.data, inputs.model),
        inputs.split,
        inputs.model.model,
        inputs.model.weights,
        seed=inputs.seed,
        history=inputs.history,
        observer=observer,
    )
    initial = choose_model(inputs.model, split.dataset)
    defaults = initial.defaults("retrain", semi_supervised=split.unlabelled_indices is not None)
    config = build_training(defaults, inputs.settings)
    return TrainingPlan("retrain", "retrain", inputs, split.dataset, split, initial, config, device)


def run_retraining(
    plan: TrainingPlan, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> Run:
    """Train the model; write what :func:`~pymixunlearn.experiments.run_training` does, split.json and forget.key.

    Raises:
        UserError: The folder holds another run or cannot be written, or the training failed.
    """
    return run_training_plan(plan, _retrain, out, observer=observer, command_line=command_line)


def _retrain(plan: TrainingPlan, observer: Observer) -> tuple[CachedModel, dict[str, Metrics]]:
    assert plan.split is not None  # resolve_retraining made one
    device, seed = plan.device, plan.inputs.seed
    network = plan.initial.loaded or models.build(**plan.initial.architecture)
    trained = train_retrain(network, plan.split, plan.config, device=device, seed=seed, observer=observer)
    return trained, evaluate_models({"retrain": trained.model}, plan.split, device=device, seed=seed, observer=observer)
