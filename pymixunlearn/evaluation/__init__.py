"""Evaluation of a model: accuracies, membership inference, distances, and the gap to Retrain."""

from pymixunlearn.evaluation.accept import Acceptance, acceptance, acceptances
from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.evaluation.arrays import evaluate_arrays
from pymixunlearn.evaluation.catalogue import FURTHER_METRICS, METRICS, PAPER_METRICS, MetricInfo
from pymixunlearn.evaluation.changes import most_changed
from pymixunlearn.evaluation.membership import ATTACKERS, DRAWS, FORMS, attack_success_rate
from pymixunlearn.evaluation.metrics import Metrics, evaluate, forget_accuracy, metric_keys
from pymixunlearn.evaluation.plugged import metric
from pymixunlearn.evaluation.predictions import Predictions, predict
from pymixunlearn.evaluation.relearn import Relearning, relearn_steps
from pymixunlearn.evaluation.resurfacing import Resurfacing
from pymixunlearn.evaluation.score_attacks import Estimate, score_attacks

__all__ = [
    "ATTACKERS",
    "DRAWS",
    "FORMS",
    "FURTHER_METRICS",
    "METRICS",
    "PAPER_METRICS",
    "Acceptance",
    "Estimate",
    "MetricInfo",
    "Metrics",
    "Predictions",
    "Relearning",
    "Resurfacing",
    "acceptance",
    "acceptances",
    "accuracy",
    "attack_success_rate",
    "evaluate",
    "evaluate_arrays",
    "forget_accuracy",
    "metric",
    "metric_keys",
    "most_changed",
    "predict",
    "predict_logits",
    "relearn_steps",
    "score_attacks",
]
