"""Experiments: from a request through a plan to a run folder, with the settings that ship for known cases."""

from pymixunlearn.experiments.audit.run import AuditOutcome, AuditPlan, AuditRequest, resolve_audit, run_audit
from pymixunlearn.experiments.common.inputs import (
    BadRequest,
    DataRequest,
    ModelRequest,
    RunRequest,
    SplitRequest,
)
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import Outcome
from pymixunlearn.experiments.compare.plan import (
    ComparisonPlan,
    ComparisonRequest,
    default_comparison_folder,
    resolve_comparison,
)
from pymixunlearn.experiments.compare.run import ComparisonOutcome, run_comparison
from pymixunlearn.experiments.evaluate import EvaluationRequest, run_evaluation
from pymixunlearn.experiments.train import TrainingPlan, TrainingRequest, resolve_training, run_training
from pymixunlearn.experiments.tune.plan import TuningPlan, TuningRequest, default_tuning_folder, resolve_tuning
from pymixunlearn.experiments.tune.run import TuningOutcome, run_tuning
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.experiments.unlearn.run import default_folder, run_unlearning

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
    "resolve_unlearning",
    "resolve_audit",
    "resolve_comparison",
    "resolve_training",
    "resolve_tuning",
    "run_unlearning",
    "run_audit",
    "run_comparison",
    "run_evaluation",
    "run_training",
    "run_tuning",
]
