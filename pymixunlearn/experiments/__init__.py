"""Experiments: from a request through a plan to a run folder, with the settings that ship for known cases."""

from pymixunlearn.experiments.audits import AuditOutcome, AuditPlan, AuditRequest, resolve_audit, run_audit
from pymixunlearn.experiments.comparing import ComparisonOutcome, run_comparison
from pymixunlearn.experiments.comparison import (
    ComparisonPlan,
    ComparisonRequest,
    default_comparison_folder,
    resolve_comparison,
)
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
from pymixunlearn.experiments.tune import TuningOutcome, run_tuning
from pymixunlearn.experiments.tuning import TuningPlan, TuningRequest, default_tuning_folder, resolve_tuning

__all__ = [
    "AuditOutcome",
    "AuditPlan",
    "AuditRequest",
    "BadRequest",
    "ComparisonOutcome",
    "ComparisonPlan",
    "ComparisonRequest",
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
    "TuningOutcome",
    "TuningPlan",
    "TuningRequest",
    "default_comparison_folder",
    "default_folder",
    "default_tuning_folder",
    "resolve",
    "resolve_audit",
    "resolve_comparison",
    "resolve_training",
    "resolve_tuning",
    "run",
    "run_audit",
    "run_comparison",
    "run_evaluation",
    "run_training",
    "run_tuning",
]
