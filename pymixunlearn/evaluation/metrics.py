"""The paper's metrics for each task, and how far they are from Retrain's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.evaluation.membership import attack_success_rate
from pymixunlearn.seeding import derive_seed
from pymixunlearn.tasks import Split
from pymixunlearn.training.device import resolve_device

METRIC_LABELS: dict[str, str] = {
    "train_r": "Train_r",
    "train_f": "Train_f",
    "test_r": "Test_r",
    "test_f": "Test_f",
    "test": "Test",
    "asr": "ASR",
}
"""How the paper writes each metric."""


def metric_keys(task: str) -> tuple[str, ...]:
    """Return the keys of the metrics that the paper reports for ``task``, in its order."""
    return ("test_r", "test_f", "asr") if task == "class" else ("train_r", "train_f", "test", "asr")


class Metrics(dict[str, float | None]):
    """Metrics by key, in percent; None where there is no sample to measure on.

    A plain dictionary otherwise, so ``json.dumps`` takes it as it is.

    Attributes:
        reference: The metrics of Retrain, if there is one to compare with.
    """

    def __init__(self, values: Mapping[str, float | None], reference: Metrics | None = None) -> None:
        super().__init__(values)
        self.reference = reference

    @property
    def gap(self) -> dict[str, float | None] | None:
        """The gap to :attr:`reference`, or None without one."""
        return None if self.reference is None else self.gap_to(self.reference)

    def gap_to(self, other: Mapping[str, float | None]) -> dict[str, float | None]:
        """Return ``|metric - other's metric|`` for every key, and under "mean" their mean.

        A metric that either side lacks has the gap None and stays out of the mean.
        """
        gaps: dict[str, float | None] = {}
        for key, value in self.items():
            theirs = other.get(key)
            gaps[key] = None if value is None or theirs is None else abs(value - theirs)
        known = [gap for gap in gaps.values() if gap is not None]
        return {**gaps, "mean": sum(known) / len(known) if known else None}


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    reference: nn.Module | Mapping[str, float | None] | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    attacker: str = "hist-gradient-boosting",
    batch_size: int = 512,
) -> Metrics:
    """Measure ``model`` with the paper's metrics for the split's task.

    Task "class": test accuracy on the remaining classes (``test_r``) and on the forgotten ones (``test_f``), and the
    membership attack's success (``asr``). Every other task: accuracy on the remaining and on the forgotten training
    samples with the training augmentation on (``train_r``, ``train_f``), on the test set (``test``), and ``asr``.
    Every metric is good when it is close to Retrain's, not when it is high or low.

    Args:
        model: Maps images to logits. It is moved to ``device``, and comes back in the mode it was in.
        split: What was forgotten and what remains.
        reference: Retrain, or its metrics; the result then carries the gap to it.
        device: Where to compute; by default CUDA if there is one.
        seed: Fixes the augmentation, the attacked samples and the attacker.
        attacker: The classifier that attacks, see :func:`attack_success_rate`.
        batch_size: Images per forward pass.

    Raises:
        UserError: The device or the attacker is not available, or the test set is too small to attack with.
    """
    where = resolve_device(device)
    if isinstance(reference, nn.Module):
        reference = evaluate(reference, split, device=where, seed=seed, attacker=attacker, batch_size=batch_size)
    model = model.to(where)
    measure = _class_accuracies if split.task == "class" else _sample_accuracies
    values = measure(model, split, where, seed, batch_size)
    values["asr"] = attack_success_rate(model, split, device=where, seed=seed, attacker=attacker, batch_size=batch_size)
    return Metrics(values, None if reference is None else Metrics(reference))


def _class_accuracies(
    model: nn.Module, split: Split, device: torch.device, seed: int, batch_size: int
) -> dict[str, float | None]:
    logits = predict_logits(model, split.test, split.preprocess, device=device, batch_size=batch_size)
    targets = split.test.targets.cpu()
    forgotten: Tensor = torch.isin(targets, torch.tensor(split.forget_classes))
    return {
        "test_r": accuracy(logits[~forgotten], targets[~forgotten]),
        "test_f": accuracy(logits[forgotten], targets[forgotten]),
    }


def _sample_accuracies(
    model: nn.Module, split: Split, device: torch.device, seed: int, batch_size: int
) -> dict[str, float | None]:
    augment_seed = derive_seed(seed, "evaluate", "augmentation") if split.preprocess.augments else None
    trained = predict_logits(
        model, split.train, split.preprocess, device=device, batch_size=batch_size, augment_seed=augment_seed
    )
    targets = split.train.targets.cpu()
    unseen = predict_logits(model, split.test, split.preprocess, device=device, batch_size=batch_size)
    retain, forget = split.retain_indices.cpu(), split.forget_indices.cpu()
    return {
        "train_r": accuracy(trained[retain], targets[retain]),
        "train_f": accuracy(trained[forget], targets[forget]),
        "test": accuracy(unseen, split.test.targets),
    }
