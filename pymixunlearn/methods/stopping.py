"""Automatic stopping: when forgetting is done, judged from D_f and a held-out part of D_r alone.

The statistics, and why they are these, are in docs/stopping.md. In short, a fixed sample of each set is classified now
and then, and the run ends once the forget sample is **forgotten**, check after check, and both samples have
**settled** meanwhile. Retrain and the test set are never used, and labels only where the method itself sees them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.methods.config import OURS, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.view import Images, SplitView
from pymixunlearn.seeding import generator
from pymixunlearn.training.loop import StateDict

FIRST_CHECK, GROWTH = 32, 1.25
"""After how many steps the first check is, and how much later each one is than the one before: checks get rarer as
changes get slower, so that they cost little and there are few of them."""

LAG = 2
"""A check is compared with the one LAG checks before, that is over the last 36 % of the steps; what is forgotten has to
be so at both and in between."""

REMEMBERED = 0.01
"""The share of a forgotten class that may still be classified as it."""

SHARE_CONFIDENCE = 0.95
FALLEN_CONFIDENCE = 0.999
"""One-sided: with some 25 checks a run, and two ways to have fallen, chance passes one in 5 % of the runs or less."""
Z_SETTLED = 1.645
"""90 %, two-sided."""


@dataclass(frozen=True)
class StoppingConfig(EndingConfig):
    """What the settings of every method have that can stop by itself."""

    stop: Literal["epochs", "auto", "accepted"] = setting(  # type: ignore[assignment]
        "epochs",
        "when to end: after all epochs, when forgetting is done, or when the acceptance test accepts the model",
        source=OURS,
    )
    stop_samples: int = setting(
        1000, "stop=auto: images of each set to judge by; those of D_r are held out", low=1, source=OURS
    )
    stop_tolerance: float = setting(
        1.0, "stop=auto: the change, in points, that still counts as settled", above=0, source=OURS
    )


class Drop(NamedTuple):
    """By how many points the score of a sample fell, and the standard error of that."""

    mean: float
    error: float


@dataclass(frozen=True)
class Stopping:
    """How a run that could stop by itself ended.

    Attributes:
        task: "class" if whole classes were to be forgotten, otherwise "samples".
        met: Whether the criterion was met; False means that the epochs ran out.
        step: After how many steps the run ended.
        budget: How many steps all epochs have.
        samples: How many images of D_f and of D_r it was judged by; the latter were never trained on.
        checks: One record per check: "step", "epoch" (a fraction), "seconds", and the statistics in percent or points.
    """

    task: str
    met: bool
    step: int
    budget: int
    samples: dict[str, int]
    checks: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the earlier checks, JSON-able."""
        last = self.checks[-1] if self.checks else None
        seconds = sum(check["seconds"] for check in self.checks)
        fields = ("task", "met", "step", "budget", "samples")
        return {
            "rule": "auto",
            **{name: getattr(self, name) for name in fields},
            "seconds": seconds,
            "last_check": last,
        }

    def sentence(self) -> str:
        """Say in a few words how the run ended."""
        if not self.met:
            return f"not done forgetting by its own measure after all {self.budget} steps"
        last = self.checks[-1]
        if self.task == "class":
            forgotten = (
                f"{last['forget_share']:.1f} % of the forget sample recognised (below {last['forget_bound']:.1f})"
            )
        else:
            forgotten = (
                f"forget sample {-last['forget_drop']:+.1f} points, forgotten by at least {last['forget_bound']:.1f}"
            )
        retained = f"held-out sample {-last['retain_drop']:+.1f}"
        return f"stopped by itself after {self.step} of {self.budget} steps: {forgotten}, {retained}"


class Criterion:
    """The rule, on numbers alone: scores in [0, 1] of the same samples, check after check.

    Args:
        forget: Scores of the forget sample under the initial model [N_f].
        retain: Scores of the held-out retain sample under the initial model [N_r].
        tolerance: The change, in points, that still counts as settled.
    """

    def __init__(self, forget: Tensor, retain: Tensor, tolerance: float) -> None:
        """Remember where both samples start."""
        self.start = {"forget": forget, "retain": retain}
        self.tolerance = tolerance
        self.recent: deque[dict[str, Tensor]] = deque(maxlen=LAG)
        """The scores at the last LAG checks."""
        self.streak = 0
        """At how many checks in a row the forget sample has been forgotten."""

    def judge(self, forget: Tensor, retain: Tensor, remembered: int | None = None) -> tuple[bool, dict[str, float]]:
        """Tell whether forgetting is done, and the statistics that say so.

        Args:
            forget: The scores now [N_f].
            retain: The scores now [N_r].
            remembered: How many of the forget sample are classified as a class that is to be forgotten as a whole;
                None where single samples are to be forgotten.
        """
        now = {"forget": forget, "retain": retain}
        record: dict[str, float] = {}
        if remembered is not None:
            bound = share_bound(remembered, len(forget), SHARE_CONFIDENCE)
            record.update(forget_share=100 * remembered / len(forget), forget_bound=100 * bound)
            # None at all has to do where the sample is too small for the bound.
            forgotten = bound <= REMEMBERED or remembered == 0
        else:
            lost, beside = self.start["forget"] - forget, self.start["retain"] - retain
            bound = least_fall(lost, beside, FALLEN_CONFIDENCE)
            record.update(forget_drop=drop(self.start["forget"], forget).mean, forget_bound=bound)
            forgotten = bound > 0
        self.streak = self.streak + 1 if forgotten else 0
        record["retain_drop"] = drop(self.start["retain"], retain).mean
        settled = len(self.recent) == LAG
        if settled:
            # Once a class is gone, it does not matter which other class its images are classified as.
            for name in ("retain",) if remembered is not None else ("forget", "retain"):
                change = drop(self.recent[0][name], now[name])
                record[f"{name}_change"] = -change.mean
                record[f"{name}_margin"] = Z_SETTLED * change.error
                settled = settled and abs(change.mean) + Z_SETTLED * change.error <= self.tolerance
        self.recent.append(now)
        return settled and self.streak > LAG, record


class AutoStop:
    """Ends a loop when forgetting is done: the :class:`pymixunlearn.training.Stop` that methods give their loop.

    It draws the two samples, takes the retain sample out of the training, and notes the initial model's predictions.

    Args:
        model: The initial model, which the method goes on to change in place.
        split: What to forget and what to retain; without labels, the initial model's predictions stand in for them.
        forget_classes: The classes that are to be forgotten as a whole; none where single samples are.
        config: How many images, and the tolerance.
        device: Where ``model`` is.
        seed: Fixes the samples.

    Attributes:
        split: The same, without what is held out of D_r.

    Raises:
        UserError: Nothing would be left to train on.
    """

    def __init__(
        self,
        model: nn.Module,
        split: SplitView,
        forget_classes: Sequence[int],
        config: StoppingConfig,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        """Draw the samples and look at the initial model."""
        held_out = min(config.stop_samples, len(split.retain) // 5)
        if held_out < 1:
            raise UserError(f"stop is auto, but only {len(split.retain)} samples remain; expected at least 5")
        chosen = {
            name: torch.randperm(len(images), generator=generator(seed, "stopping", name))[:count].sort().values
            for name, images, count in (
                ("forget", split.forget, config.stop_samples),
                ("retain", split.retain, held_out),
            )
        }
        self.split = split.without(chosen["retain"])
        self._images: dict[str, Images] = {
            "forget": split.forget.subset(chosen["forget"]).to(device),
            "retain": split.retain.subset(chosen["retain"]).to(device),
        }
        self._model, self._device = model, device
        self._classes = torch.tensor(forget_classes, dtype=torch.int64)
        outputs = {name: self._logits(images) for name, images in self._images.items()}
        self._targets = {name: _targets(self._images[name], logits) for name, logits in outputs.items()}
        scores = {name: self._score(name, logits) for name, logits in outputs.items()}
        self._criterion = Criterion(scores["forget"], scores["retain"], config.stop_tolerance)
        self._checks: list[dict[str, float]] = []
        self._met = False
        self._step = self._budget = self._first_epoch = 0
        self._mean_length = 1.0

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Note the budget, and go on from ``saved``; True if the criterion had been met by then."""
        self._budget, self._first_epoch = sum(lengths), lengths[0]
        self._mean_length = self._budget / len(lengths)
        if saved is not None:
            self._checks = [dict(check) for check in saved["checks"]]
            self._criterion.recent.extend(saved["recent"])
            self._criterion.streak = saved["streak"]
            self._met, self._step = saved["met"], saved["step"]
        return self._met

    def after_step(self, step: int) -> bool:
        """Check, if it is time for that; True once the criterion is met."""
        self._step = step
        if step < check_step(len(self._checks)):
            return False
        start = time.perf_counter()
        logits = {name: self._logits(images) for name, images in self._images.items()}
        remembered = None
        if len(self._classes):
            remembered = int(torch.isin(logits["forget"].argmax(dim=1), self._classes).sum())
        scores = {name: self._score(name, logits[name]) for name in logits}
        done, record = self._criterion.judge(scores["forget"], scores["retain"], remembered)
        # What no step has dealt with yet cannot have been forgotten for good.
        self._met = done and step >= self._first_epoch
        when = {"epoch": step / self._mean_length, "step": step, "seconds": time.perf_counter() - start}
        self._checks.append({**when, **record})
        return self._met

    def state(self) -> StateDict:
        """Return what :meth:`begin` takes to go on."""
        return {
            "checks": self._checks,
            "recent": list(self._criterion.recent),
            "streak": self._criterion.streak,
            "met": self._met,
            "step": self._step,
        }

    def result(self) -> Stopping:
        """Return how the loop ended."""
        return Stopping(
            task="class" if len(self._classes) else "samples",
            met=self._met,
            step=self._step,
            budget=self._budget,
            samples={name: len(images) for name, images in self._images.items()},
            checks=self._checks,
        )

    def _logits(self, images: Images) -> Tensor:
        return predict_logits(self._model, images, self.split.preprocess, device=self._device)

    def _score(self, name: str, logits: Tensor) -> Tensor:
        """Return how far the model agrees with the targets [N], in [0, 1].

        By its predictions where whole classes are forgotten: those change. Single samples are forgotten long before
        their predictions change, so there the model's probabilities count.
        """
        if len(self._classes):
            return self._targets[name].gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
        return (self._targets[name] * logits.double().softmax(dim=1)).sum(dim=1)


def check_step(index: int) -> int:
    """Return after how many steps the check ``index`` (from 0) is."""
    return round(FIRST_CHECK * GROWTH**index)


def drop(before: Tensor, after: Tensor) -> Drop:
    """Return by how many points the mean of paired scores [N] fell, with its standard error.

    The error is as if one more sample had changed fully: a small sample in which nothing changed proves little.
    """
    lost = (before - after).double()
    mean = lost.mean()
    error = ((lost - mean).square().sum() + 1).sqrt() / len(lost)
    return Drop(100 * mean.item(), 100 * error.item())


def least_fall(lost: Tensor, beside: Tensor, confidence: float) -> float:
    """Return by how many points a sample has been forgotten at least: below its start, or behind what has risen.

    Training sharpens the predictions on what it retains, so scores that stay where they were have been left behind.

    Args:
        lost: By how much each score in [0, 1] of the sample is below its start [N].
        beside: The same of the held-out sample [M].
        confidence: Of either one-sided bound.
    """
    fall = least_mean([lost.double()], confidence)
    if beside.double().mean() < 0:
        fall = max(fall, least_mean([lost.double(), -beside.double()], confidence))
    return 100 * fall


def least_mean(samples: list[Tensor], confidence: float) -> float:
    """Return the lower bound of the sum of the means of samples in [-1, 1], by a t-test (Welch's, if there are two)."""
    from scipy.stats import t

    if min(map(len, samples)) < 2:
        return -1.0  # one image shows no spread
    mean = sum(sample.mean().item() for sample in samples)
    variances = [sample.var().item() / len(sample) for sample in samples]
    if not any(variances):
        return mean
    degrees = [len(sample) - 1 for sample in samples]
    freedom = sum(variances) ** 2 / sum(part**2 / count for part, count in zip(variances, degrees, strict=True))
    return mean - float(t.ppf(confidence, freedom)) * math.sqrt(sum(variances))


def share_bound(hits: int, count: int, confidence: float) -> float:
    """Return the upper confidence bound of Clopper and Pearson (1934) for a share, ``hits`` of ``count`` observed.

    It is the share at which so few hits or fewer have the probability 1 - confidence.
    """
    if hits == count:
        return 1.0
    seen = torch.arange(hits + 1, dtype=torch.float64)
    total = torch.tensor(float(count), dtype=torch.float64)
    ways = torch.lgamma(total + 1) - torch.lgamma(seen + 1) - torch.lgamma(total - seen + 1)
    low, high = hits / count, 1.0
    for _ in range(50):  # bisection, to far below a sample's share
        share = (low + high) / 2
        terms = ways + seen * math.log(share) + (total - seen) * math.log1p(-share)
        if torch.logsumexp(terms, dim=0).exp().item() > 1 - confidence:
            low = share
        else:
            high = share
    return high


def _targets(images: Images, logits: Tensor) -> Tensor:
    """Return p(x) [N, classes] (Eq. 4): the labels where there are any, otherwise the initial model's predictions."""
    if isinstance(images, ImageSet):
        return F.one_hot(images.targets.cpu(), logits.shape[1]).double()
    return logits.double().softmax(dim=1)
