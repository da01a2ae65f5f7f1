"""What a model knows and betrays: accuracies, membership inference, and the gap to Retrain."""

from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.evaluation.membership import ATTACKERS, attack_success_rate
from pymixunlearn.evaluation.metrics import METRIC_LABELS, Metrics, evaluate, metric_keys

__all__ = [
    "ATTACKERS",
    "METRIC_LABELS",
    "Metrics",
    "accuracy",
    "attack_success_rate",
    "evaluate",
    "metric_keys",
    "predict_logits",
]
