"""Catalogue of the metrics: name in tables, formula, source, and what a model that guesses would get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricInfo:
    """One metric.

    Attributes:
        key: Its key in ``metrics.json``.
        label: How tables head it.
        meaning: The formula, in words.
        source: Where it comes from.
        chance: What guessing, or knowing nothing, gives; in the metric's unit.
        unit: "%" for percentages, "" for plain numbers, "steps" for counts.
        ideal: The value to be close to, or None: then it is Retrain's, whatever that is.
        needs_retrain: Whether it is defined only beside Retrain.

    Example:
        >>> from pymixunlearn import evaluation
        >>> evaluation.METRICS["test_f"].meaning
        'test accuracy on the forgotten classes'
    """

    key: str
    label: str
    meaning: str
    source: str
    chance: str
    unit: str = "%"
    ideal: float | None = None
    needs_retrain: bool = False


_PAPER = "Peng et al. 2025 (MixUnlearn)"

PAPER_METRICS = (
    MetricInfo("train_r", "Train_r", "accuracy on D_r, with the training augmentation", _PAPER, "100 / classes"),
    MetricInfo("train_f", "Train_f", "accuracy on D_f, with the training augmentation", _PAPER, "100 / classes"),
    MetricInfo("test_r", "Test_r", "test accuracy on the remaining classes", _PAPER, "100 / classes"),
    MetricInfo("test_f", "Test_f", "test accuracy on the forgotten classes", _PAPER, "100 / classes"),
    MetricInfo("test", "Test", "test accuracy", _PAPER, "100 / classes"),
    MetricInfo(
        "asr",
        "ASR",
        "mean accuracy of five boosted-tree attackers on the sorted softmax: is a sample of D_f a member?",
        "Shokri et al. 2017, as Shen et al. 2024 run it",
        "share of D_f among the scored samples, if all are called members",
    ),
)
"""The paper's metrics in the order of its tables; :func:`metric_keys` says which of them a task has."""

FURTHER_METRICS = (
    MetricInfo(
        "asr_spread",
        "ASR sd",
        "standard deviation of the five attacks that ASR is the mean of, in points",
        "how far one attack may be from the mean",
        "none: it measures the attack, not the model",
    ),
    MetricInfo(
        "test_own", "Test own", "test accuracy on the classes of D_f's samples", "Test in parts", "100 / classes"
    ),
    MetricInfo("test_others", "Test others", "test accuracy on all other classes", "Test in parts", "100 / classes"),
    MetricInfo(
        "earlier_f",
        "Earlier D_f",
        "accuracy on the training samples that the initial model had forgotten before",
        "this package",
        "100 / classes",
    ),
    MetricInfo(
        "tow",
        "ToW",
        "(1 - |dA_f|) (1 - |dA_r|) (1 - |dA_test|), dA the difference to Retrain's accuracy as a fraction",
        "Zhao et al. 2024 (RUM)",
        "none: 1 is Retrain itself",
        unit="",
        ideal=1.0,
        needs_retrain=True,
    ),
    MetricInfo(
        "tow_mia",
        "ToW-MIA",
        "ToW with the accuracy of the loss attack in place of A_f",
        "Zhao et al. 2024 (RUM)",
        "none: 1 is Retrain itself",
        unit="",
        ideal=1.0,
        needs_retrain=True,
    ),
    MetricInfo(
        "mia_loss",
        "MIA loss",
        "accuracy of a logistic regression on the cross entropy: D_f against unseen samples of its classes",
        "Yeom et al. 2018; as Kurmanji et al. 2023 (SCRUB) run it",
        "50",
    ),
    MetricInfo(
        "mia_confidence",
        "MIA conf.",
        "the same on the probability of the true class",
        "Song & Mittal 2021",
        "50",
    ),
    MetricInfo("mia_entropy", "MIA entropy", "the same on the entropy of the softmax", "Song & Mittal 2021", "50"),
    MetricInfo(
        "activation_distance",
        "Act. dist.",
        "mean over D_f of |softmax(f_U) - softmax(f_Retrain)|, Euclidean",
        "Golatkar et al. 2021",
        "none: 0 is Retrain itself",
        unit="",
        ideal=0.0,
        needs_retrain=True,
    ),
    MetricInfo(
        "js_divergence",
        "JS",
        "mean over D_f of the Jensen-Shannon divergence (base 2) between the softmax of f_U and of f_Retrain",
        "Chundawat et al. 2023",
        "none: 0 is Retrain itself",
        unit="",
        ideal=0.0,
        needs_retrain=True,
    ),
    MetricInfo(
        "zrf",
        "ZRF",
        "1 - mean over D_f of the Jensen-Shannon divergence (base 2) to the same network with random weights",
        "Chundawat et al. 2023",
        "1: the random network itself",
        unit="",
    ),
    MetricInfo(
        "loss_kde_distance",
        "Loss KDE",
        "Jensen-Shannon divergence (base 2) between the kernel density estimates of the loss on D_f and of the loss on "
        "unseen samples of its classes",
        f"{_PAPER}, Figures 4 and 10",
        "none: 0 where D_f and unseen samples look the same",
        unit="",
    ),
    MetricInfo(
        "relearn_steps",
        "Relearn",
        "training steps on D_f until the initial model's accuracy on it is back (only where asked for)",
        "Golatkar et al. 2020; Tarun et al. 2023",
        "Retrain's: what learning D_f anew takes",
        unit="steps",
    ),
)
"""What researchers ask for besides."""


def metric_info(key: str) -> MetricInfo:
    """Return what a metric means; a key that is not ours is that of a plug-in, a plain number.

    Example:
        >>> from pymixunlearn.evaluation.catalogue import metric_info
        >>> metric_info("test_r").label, metric_info("forget_confidence").label
        ('Test_r', 'forget_confidence')
    """
    if key in METRICS:
        return METRICS[key]
    return MetricInfo(key, key, "a metric of a plug-in", "plug-in", "not known", unit="")


def plugged_keys(keys: Iterable[str]) -> list[str]:
    """Return those of ``keys`` that are metrics of plug-ins, in ascending order."""
    return sorted({*keys} - {*METRICS, "acceptance", "mean", "seconds", "train"})


METRICS = {info.key: info for info in (*PAPER_METRICS, *FURTHER_METRICS)}
"""Every metric by its key."""
