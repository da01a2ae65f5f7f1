"""Experiments: what the commands do, from their inputs through a plan to a run folder."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pymixunlearn._renamed import renamed

if TYPE_CHECKING:
    from pymixunlearn.experiments.audit.inputs import AuditInputs
    from pymixunlearn.experiments.audit.run import AuditOutcome, AuditPlan, resolve_audit, run_audit
    from pymixunlearn.experiments.common.bad_request import BadRequest
    from pymixunlearn.experiments.common.data_request import DataRequest
    from pymixunlearn.experiments.common.inputs import (
        EvaluateInputs,
        Inputs,
        ModelRequest,
        RetrainInputs,
        TrainInputs,
        VerifyInputs,
    )
    from pymixunlearn.experiments.common.progress import Observer
    from pymixunlearn.experiments.common.run_folder import Run
    from pymixunlearn.experiments.common.split_request import SplitRequest
    from pymixunlearn.experiments.common.training_run import TrainingPlan
    from pymixunlearn.experiments.compare.inputs import CompareInputs
    from pymixunlearn.experiments.compare.plan import ComparisonPlan, default_comparison_folder, resolve_comparison
    from pymixunlearn.experiments.compare.run import ComparisonOutcome, run_comparison
    from pymixunlearn.experiments.evaluate import run_evaluation
    from pymixunlearn.experiments.paper.inputs import ExperimentInputs
    from pymixunlearn.experiments.paper.plan import ExperimentPlan, resolve_experiment
    from pymixunlearn.experiments.paper.run import ExperimentOutcome, default_experiment_folder, run_experiment
    from pymixunlearn.experiments.retrain import resolve_retraining, run_retraining
    from pymixunlearn.experiments.train import resolve_training, run_training
    from pymixunlearn.experiments.tune.inputs import TuneInputs
    from pymixunlearn.experiments.tune.plan import TuningPlan, default_tuning_folder, resolve_tuning
    from pymixunlearn.experiments.tune.run import TuningOutcome, run_tuning
    from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
    from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
    from pymixunlearn.experiments.unlearn.preview import DryRun, preview_unlearning
    from pymixunlearn.experiments.unlearn.run import default_folder, run_unlearning
    from pymixunlearn.experiments.verify import Verification, run_verification
    from pymixunlearn.experiments.verify_metrics import Check

# Loaded when first asked for: the command line reads the inputs, which import little, to print its help.
_HOMES = {
    "AuditInputs": "audit.inputs",
    "AuditOutcome": "audit.run",
    "AuditPlan": "audit.run",
    "BadRequest": "common.bad_request",
    "Check": "verify_metrics",
    "CompareInputs": "compare.inputs",
    "ComparisonOutcome": "compare.run",
    "ComparisonPlan": "compare.plan",
    "DataRequest": "common.data_request",
    "DryRun": "unlearn.preview",
    "EvaluateInputs": "common.inputs",
    "ExperimentInputs": "paper.inputs",
    "ExperimentOutcome": "paper.run",
    "ExperimentPlan": "paper.plan",
    "Inputs": "common.inputs",
    "ModelRequest": "common.inputs",
    "Observer": "common.progress",
    "Plan": "unlearn.plan",
    "RetrainInputs": "common.inputs",
    "Run": "common.run_folder",
    "SplitRequest": "common.split_request",
    "TrainInputs": "common.inputs",
    "TrainingPlan": "common.training_run",
    "TuneInputs": "tune.inputs",
    "TuningOutcome": "tune.run",
    "TuningPlan": "tune.plan",
    "UnlearnInputs": "unlearn.inputs",
    "Verification": "verify",
    "VerifyInputs": "common.inputs",
    "default_comparison_folder": "compare.plan",
    "default_experiment_folder": "paper.run",
    "default_folder": "unlearn.run",
    "default_tuning_folder": "tune.plan",
    "preview_unlearning": "unlearn.preview",
    "resolve_audit": "audit.run",
    "resolve_comparison": "compare.plan",
    "resolve_experiment": "paper.plan",
    "resolve_retraining": "retrain",
    "resolve_training": "train",
    "resolve_tuning": "tune.plan",
    "resolve_unlearning": "unlearn.plan",
    "run_audit": "audit.run",
    "run_comparison": "compare.run",
    "run_experiment": "paper.run",
    "run_evaluation": "evaluate",
    "run_retraining": "retrain",
    "run_training": "train",
    "run_tuning": "tune.run",
    "run_unlearning": "unlearn.run",
    "run_verification": "verify",
}
_OLD = {
    "AuditRequest": "AuditInputs",
    "ComparisonRequest": "CompareInputs",
    "EvaluationRequest": "EvaluateInputs",
    "Outcome": "Run",
    "RunRequest": "UnlearnInputs",
    "TrainingRequest": "TrainInputs",
    "TuningRequest": "TuneInputs",
    "resolve": "resolve_unlearning",
    "run": "run_unlearning",
}
_find_old = renamed(__name__, {old: f"{__name__}:{new}" for old, new in _OLD.items()})

__all__ = [
    "AuditInputs",
    "AuditOutcome",
    "AuditPlan",
    "BadRequest",
    "Check",
    "CompareInputs",
    "ComparisonOutcome",
    "ComparisonPlan",
    "DataRequest",
    "DryRun",
    "EvaluateInputs",
    "ExperimentInputs",
    "ExperimentOutcome",
    "ExperimentPlan",
    "Inputs",
    "ModelRequest",
    "Observer",
    "Plan",
    "RetrainInputs",
    "Run",
    "SplitRequest",
    "TrainInputs",
    "TrainingPlan",
    "TuneInputs",
    "TuningOutcome",
    "TuningPlan",
    "UnlearnInputs",
    "Verification",
    "VerifyInputs",
    "default_comparison_folder",
    "default_experiment_folder",
    "default_folder",
    "default_tuning_folder",
    "preview_unlearning",
    "resolve_audit",
    "resolve_comparison",
    "resolve_experiment",
    "resolve_retraining",
    "resolve_training",
    "resolve_tuning",
    "resolve_unlearning",
    "run_audit",
    "run_comparison",
    "run_experiment",
    "run_evaluation",
    "run_retraining",
    "run_training",
    "run_tuning",
    "run_unlearning",
    "run_verification",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    return _find_old(name) if home is None else getattr(import_module(f"{__name__}.{home}"), name)
