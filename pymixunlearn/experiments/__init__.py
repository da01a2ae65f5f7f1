"""Experiments: from a request through a plan to a run folder, with the settings that ship for known cases."""

from pymixunlearn.experiments.evaluations import EvaluationRequest, run_evaluation
from pymixunlearn.experiments.observer import Observer
from pymixunlearn.experiments.plan import Plan, resolve
from pymixunlearn.experiments.requests import (
    BadRequest,
    DataRequest,
    ModelRequest,
    RunRequest,
    SplitRequest,
)
from pymixunlearn.experiments.run import Outcome, default_folder, run
from pymixunlearn.experiments.trainings import TrainingPlan, TrainingRequest, resolve_training, run_training

__all__ = [
    "BadRequest",
    "DataRequest",
    "EvaluationRequest",
    "ModelRequest",
    "Observer",
    "Outcome",
    "Plan",
    "RunRequest",
    "SplitRequest",
    "TrainingPlan",
    "TrainingRequest",
    "default_folder",
    "resolve",
    "resolve_training",
    "run",
    "run_evaluation",
    "run_training",
]
