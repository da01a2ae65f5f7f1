"""All metrics of a model on a split, and how far they are from Retrain's."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, stdev
from typing import TypeAlias

import torch
from torch import Tensor, nn

from pymixunlearn.evaluation import distances
from pymixunlearn.evaluation.accuracy import accuracy
from pymixunlearn.evaluation.catalogue import PAPER_METRICS
from pymixunlearn.evaluation.intervals import of_forgotten_classes, sample_counts, sampling_intervals
from pymixunlearn.evaluation.membership import DRAWS, attacks
from pymixunlearn.evaluation.plugged import measure_plugged
from pymixunlearn.evaluation.predictions import Predictions, example_images, predict
from pymixunlearn.evaluation.relearn import relearn_steps
from pymixunlearn.evaluation.score_attacks import attacked_samples, score_attacks
from pymixunlearn.models.adapter import adapted
from pymixunlearn.models.kinds import check_kind
from pymixunlearn.tasks import Split
from pymixunlearn.training.device import resolve_device

Values: TypeAlias = "dict[str, float | None]"

MAX_CONFUSION_CLASSES = 100
"""Up to so many classes the confusion matrix is part of the details."""


def metric_keys(task: str) -> tuple[str, ...]:
    """Return the keys of the metrics that the paper reports for ``task``, in its order.

    Example:
        >>> metric_keys("class")
        ('test_r', 'test_f', 'asr')
    """
    return ("test_r", "test_f", "asr") if task == "class" else ("train_r", "train_f", "test", "asr")


class Metrics(dict[str, "float | None"]):
    """Metrics by key (:data:`pymixunlearn.evaluation.METRICS` explains each); None where one cannot be known.

    That is so where there is no sample to measure on, and without Retrain for those that compare with it. A plain
    dictionary otherwise, so ``json.dumps`` takes it as it is.

    Attributes:
        reference: The metrics of Retrain, if there is one to compare with.
        details: What is more than a number per metric, JSON-able: "intervals" (95 %, by key), "samples" (how many each
            metric is counted on; "train_f" is |D_f| for every task), "attacks" (the successes that ``asr`` is the mean
            of), "per_class" (test accuracy of every class in
            percent), "class_samples" (test samples of every class) and, up to 100 classes, "confusion" (test samples by
            class and prediction).
        predictions: What the metrics were computed from; None for metrics that were read from a file.

    Example:
        >>> retrain = Metrics({"test_r": 97.0, "test_f": 0.0})
        >>> Metrics({"test_r": 95.0, "test_f": 1.0}, retrain).gap
        {'test_r': 2.0, 'test_f': 1.0, 'mean': 1.5}
    """

    def __init__(
        self,
        values: Mapping[str, float | None],
        reference: Metrics | None = None,
        *,
        details: Mapping[str, object] | None = None,
        predictions: Predictions | None = None,
    ) -> None:
        super().__init__(values)
        self.reference = reference
        self.details = dict(details or {})
        self.predictions = predictions

    @property
    def gap(self) -> Values | None:
        """The gap to :attr:`reference`, or None without one."""
        return None if self.reference is None else self.gap_to(self.reference)

    def gap_to(self, other: Mapping[str, float | None]) -> Values:
        """Return ``|metric - other's metric|`` for every key, and under "mean" the mean over the paper's metrics.

        A metric that either side lacks has the gap None and stays out of the mean.
        """
        gaps: Values = {}
        for key, value in self.items():
            theirs = other.get(key)
            gaps[key] = None if value is None or theirs is None else abs(value - theirs)
        published = (gaps.get(info.key) for info in PAPER_METRICS)
        known = [gap for gap in published if gap is not None]
        return {**gaps, "mean": sum(known) / len(known) if known else None}


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    reference: nn.Module | Mapping[str, float | None] | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    attacker: str = "hist-gradient-boosting",
    draws: int = DRAWS,
    asr: str = "default",
    batch_size: int = 512,
    relearn_to: float | None = None,
) -> Metrics:
    """Measure ``model`` with the paper's metrics for the split's task, and with what researchers ask for besides.

    Task "class": test accuracy on the remaining classes (``test_r``) and on the forgotten ones (``test_f``), and the
    membership attack's success (``asr``). Every other task: accuracy on the remaining and on the forgotten training
    samples with the training augmentation on (``train_r``, ``train_f``), on the test set (``test``), and ``asr``.
    Every one of these is good when it is close to Retrain's, not when it is high or low. The further metrics are
    listed in :data:`pymixunlearn.evaluation.METRICS`; those that compare with Retrain's predictions are None without
    Retrain.

    Args:
        model: Maps images to logits, in any floating-point type, or to an object, tuple or dict with them. A class
            whose logit is -inf is never predicted. The model is moved to ``device``, and comes back in its modes.
        split: What was forgotten and what remains.
        reference: Retrain, or its metrics as this function returned them; the result then carries the gap to it. From
            plain numbers the comparisons of predictions cannot be computed.
        device: Where to compute; by default CUDA if there is one.
        seed: Fixes the augmentation, the attacked samples and the attackers.
        attacker: The classifier that attacks for ``asr``, see :func:`attack_success_rate`.
        draws: How many attacks ``asr`` is the mean of; with one there is no ``asr_spread``.
        asr: The attack's form: "default", or "paper" for numbers that stand beside the paper's.
        batch_size: Images per forward pass.
        relearn_to: Measure the relearn time too: steps until the accuracy on D_f is back at this percentage.

    Raises:
        UserError: The device, the attacker or the form is not available, the test set is too small to attack with, or
            the model cannot process the images, gives no logits for the split's classes, or NaN.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> metrics = evaluation.evaluate(model, split, device="cpu")
        >>> sorted(metrics.keys() & {"test_r", "test_f", "asr"}), metrics.gap is None
        (['asr', 'test_f', 'test_r'], True)
    """
    where = resolve_device(device)
    if isinstance(reference, nn.Module):
        options = {"attacker": attacker, "draws": draws, "asr": asr, "batch_size": batch_size}
        reference = evaluate(reference, split, device=where, seed=seed, **options)  # type: ignore[arg-type]
    check_kind(model)
    model = model.to(where)
    with adapted(model, example_images(split, where), split.num_classes):
        predictions = predict(model, split, device=where, seed=seed, batch_size=batch_size, augmented=asr == "paper")
        further: Values = {
            "zrf": distances.zero_retrain_forgetting(model, predictions, device=where, seed=seed, batch_size=batch_size)
        }
        if relearn_to is not None:
            steps = relearn_steps(model, split, relearn_to, device=where, seed=seed)
            further["relearn_steps"] = None if steps is None else float(steps)
    return measure(
        predictions, reference=reference, seed=seed, attacker=attacker, draws=draws, asr=asr, further=further
    )


def measure(
    predictions: Predictions,
    *,
    reference: Mapping[str, float | None] | None,
    seed: int,
    attacker: str,
    further: Mapping[str, float | None],
    draws: int = DRAWS,
    asr: str = "default",
) -> Metrics:
    """Compute every metric that predictions alone determine, beside those of ``further``, which need the model."""
    split = predictions.split
    values = _class_accuracies(predictions) if split.task == "class" else _sample_accuracies(predictions)
    if split.excluded_indices is not None:
        earlier = split.excluded_indices
        values["earlier_f"] = accuracy(predictions.train[earlier], predictions.train_targets[earlier])
    successes = attacks(predictions, seed=seed, attacker=attacker, draws=draws, form=asr)
    values["asr"] = mean(successes)
    values["asr_spread"] = stdev(successes) if len(successes) > 1 else None
    values |= _test_in_parts(predictions)
    scored = score_attacks(predictions, seed=seed)
    retrain = None if reference is None else reference if isinstance(reference, Metrics) else Metrics(reference)
    mia_loss = None if scored["mia_loss"] is None else scored["mia_loss"].value
    values |= _beside_retrain(predictions, mia_loss, retrain)
    values |= {key: None if estimate is None else estimate.value for key, estimate in scored.items()}
    values |= measure_plugged(predictions)
    values["loss_kde_distance"] = distances.loss_kde_distance(predictions, seed=seed)
    values |= further
    intervals = sampling_intervals(values, split, asr)
    counts = sample_counts(split, asr) | {
        key: attacked_samples(predictions) for key in scored if scored[key] is not None
    }
    intervals |= {key: [estimate.low, estimate.high] for key, estimate in scored.items() if estimate is not None}
    details = {"intervals": intervals, "samples": counts, "attacks": successes, **_by_class(predictions)}
    return Metrics(values, retrain, details=details, predictions=predictions)


def forget_accuracy(predictions: Predictions) -> float:
    """Return the accuracy on D_f without augmentation, in percent.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> 0 <= evaluation.forget_accuracy(evaluation.predict(model, split, device="cpu")) <= 100
        True
    """
    measured = accuracy(predictions.forget, predictions.forget_targets)
    assert measured is not None  # a split has something to forget
    return measured


def _class_accuracies(predictions: Predictions) -> Values:
    logits, targets = predictions.test, predictions.test_targets
    split = predictions.split
    forgotten: Tensor = torch.isin(targets, torch.tensor(split.forget_classes))
    remaining: Tensor = ~torch.isin(targets, torch.tensor((*split.forget_classes, *split.lost_classes)))
    return {
        "test_r": accuracy(logits[remaining], targets[remaining]),
        "test_f": accuracy(logits[forgotten], targets[forgotten]),
    }


def _sample_accuracies(predictions: Predictions) -> Values:
    logits = predictions.train if predictions.augmented is None else predictions.augmented
    retain, forget = predictions.split.retain_indices, predictions.split.forget_indices
    targets = predictions.train_targets
    return {
        "train_r": accuracy(logits[retain], targets[retain]),
        "train_f": accuracy(logits[forget], targets[forget]),
        "test": accuracy(predictions.test, predictions.test_targets),
    }


def _test_in_parts(predictions: Predictions) -> Values:
    """Return the test accuracy on the classes of D_f and on the others, which a class task has as the paper's own."""
    if predictions.split.task == "class":
        return {}
    own, logits, targets = of_forgotten_classes(predictions.split), predictions.test, predictions.test_targets
    return {
        "test_own": accuracy(logits[own], targets[own]),
        "test_others": accuracy(logits[~own], targets[~own]),
    }


def _beside_retrain(predictions: Predictions, mia_loss: float | None, retrain: Metrics | None) -> Values:
    """The metrics that compare with Retrain's predictions sample by sample, or with its accuracy on all three sets."""
    theirs = None if retrain is None else retrain.predictions
    if retrain is None or theirs is None:
        return dict.fromkeys(("tow", "tow_mia", "activation_distance", "js_divergence"))
    forget, *others = (
        abs(a - b) / 100 for a, b in zip(_three_accuracies(predictions), _three_accuracies(theirs), strict=True)
    )
    preserved = (1 - others[0]) * (1 - others[1])
    their_mia = retrain.get("mia_loss")
    attacked = None if mia_loss is None or their_mia is None else abs(mia_loss - their_mia) / 100
    mine, reference = predictions.forget_probabilities, theirs.forget_probabilities
    return {
        "tow": (1 - forget) * preserved,
        "tow_mia": None if attacked is None else (1 - attacked) * preserved,
        "activation_distance": distances.activation_distance(mine, reference),
        "js_divergence": float(distances.jensen_shannon(mine, reference).mean()),
    }


def _three_accuracies(predictions: Predictions) -> tuple[float, float, float]:
    """Accuracies on D_f, D_r and the test set without augmentation, in percent."""
    retain = predictions.split.retain_indices
    on_retain = accuracy(predictions.train[retain], predictions.train_targets[retain])
    on_test = accuracy(predictions.test, predictions.test_targets)
    assert on_retain is not None and on_test is not None  # neither set can be empty
    return forget_accuracy(predictions), on_retain, on_test


def _by_class(predictions: Predictions) -> dict[str, object]:
    """Test accuracy of every class, and which class its samples were taken for."""
    classes, targets = predictions.split.num_classes, predictions.test_targets
    predicted = predictions.test.argmax(dim=1)
    counts = torch.bincount(targets, minlength=classes)
    hits = torch.bincount(targets[predicted == targets], minlength=classes)
    per_class = [
        100.0 * hit / count if count else None for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)
    ]
    found: dict[str, object] = {"per_class": per_class, "class_samples": counts.tolist()}
    if classes > MAX_CONFUSION_CLASSES:
        return found
    confusion = torch.bincount(targets * classes + predicted, minlength=classes * classes).view(classes, classes)
    return {**found, "confusion": confusion.tolist()}
