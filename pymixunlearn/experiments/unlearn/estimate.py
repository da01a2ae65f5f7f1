"""Estimate of how long a run takes: a few steps of each of its trainings, on copies that are thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.display import counted
from pymixunlearn.evaluation import predict_logits
from pymixunlearn.experiments.common.stages import cached_models
from pymixunlearn.experiments.unlearn.plan import Plan
from pymixunlearn.methods import Retrain, RetrainConfig
from pymixunlearn.methods.search import SearchedLoop
from pymixunlearn.reporting import SECOND
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import Callback, EndLoop, fit

_SECONDS = 2.0
"""How long to watch each loop, after its first two steps."""
_STEPS = 30
_IMAGES = 512


@dataclass(frozen=True)
class Phase:
    """Part of a run that takes time.

    Attributes:
        name: As the progress of a run names it: "initial", "unlearn", "retrain", "second_retrain", "evaluation", or a
            training that a method begins with.
        work: What is done, in a few words.
        steps: How many optimisation steps, of which a method that ends by itself or searches may do fewer; None where
            there are none, or it is not known.
        seconds: The estimate; None where it is not known.
    """

    name: str
    work: str
    steps: int | None
    seconds: float | None


class Estimate(NamedTuple):
    """What a run does, in order, and the seconds of one Retrain, whether the run trains one or not."""

    phases: tuple[Phase, ...]
    retrain_seconds: float | None


def estimate(plan: Plan) -> Estimate:
    """Measure a few steps of everything that a run trains, and of Retrain.

    Raises:
        UserError: The method cannot unlearn this model.
    """
    split, device, name = plan.split, plan.device, plan.initial.short_name
    seed = plan.inputs.seed_of_training
    cached = cached_models(
        plan.initial.architecture,
        split,
        plan.initial_config,
        plan.retrain_config,
        device=device,
        seed=seed,
        network=plan.initial.loaded,
        second=plan.inputs.retrain == "two",
    )
    network = plan.initial.loaded or cached.get("initial")
    if network is None:
        assert plan.initial_config is not None  # a plan has either weights or a way to train them
        network = models.build(**plan.initial.architecture, seed=derive_seed(seed, "initial"))
        watch = _Watch("initial", device)
        with suppress(_Enough):
            fit(
                models.build(**plan.initial.architecture, seed=derive_seed(seed, "initial")),
                split.training_set,
                split.preprocess,
                plan.initial_config,
                device=device,
                seed=seed,
                callbacks=[watch],
                name="initial",
            )
        initial = watch.own("initial", f"train {name} on all, {_epochs(plan.initial_config.epochs)}")
    else:
        initial = Phase("initial", f"{name}, {'given' if plan.initial.loaded else 'trained already'}", None, 0.0)
    unlearning = list(_unlearning(plan, network))
    retrain = _retrain(plan, network)
    again = replace(retrain, name=SECOND, work=f"the same with other weights, {_epochs(plan.recipe.retrain.epochs)}")
    every = {"retrain": retrain, SECOND: again}
    retraining = [
        Phase(phase, f"{name}, trained already", None, 0.0) if phase in cached else every[phase]
        for phase in _retrains(plan)
    ]
    return Estimate((initial, *unlearning, *retraining, _evaluation(plan, network)), retrain.seconds)


def _retrain(plan: Plan, network: nn.Module) -> Phase:
    config = plan.recipe.retrain
    watch = _Watch(Retrain.name, plan.device)
    with suppress(_Enough):
        method = Retrain(RetrainConfig.of(config))
        method.unlearn(network, plan.split, device=plan.device, seed=plan.inputs.seed, callbacks=[watch])
    return watch.own("retrain", f"train {plan.initial.short_name} on the rest, {_epochs(config.epochs)}")


def _retrains(plan: Plan) -> tuple[str, ...]:
    if plan.retrain_config is None:
        return ()
    return ("retrain", SECOND) if plan.inputs.retrain == "two" else ("retrain",)


def _unlearning(plan: Plan, network: nn.Module) -> Iterator[Phase]:
    """Yield the trainings that the method begins with, if any, and its own loop."""
    watch = _Watch(plan.method.name, plan.device)
    try:
        with suppress(_Enough):
            plan.method.unlearn(
                network,
                plan.split,
                device=plan.device,
                seed=plan.inputs.seed,
                callbacks=[watch],
                store=None,
                recipe=plan.recipe,
            )
    except Exception:
        # What a first training was cut short for may be of no use to what follows, which is not known then.
        if not watch.cut:
            raise
    for loop in watch.loops:
        if loop.name != plan.method.name:
            yield Phase(loop.name, f"what {plan.method.name} trains first", loop.steps, loop.seconds)
    yield watch.own("unlearn", _method_work(plan))


def _evaluation(plan: Plan, network: nn.Module) -> Phase:
    """Estimate the passes of all images through all models; attacks and figures are not in it."""
    split, count = plan.split, 2 + len(_retrains(plan))
    passes = 2 if split.preprocess.augments and split.task != "class" else 1
    few = split.train.subset(torch.arange(min(_IMAGES, len(split.train))))
    times = []
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        predict_logits(network.to(plan.device), few, split.preprocess, device=plan.device)
        times.append(time.perf_counter() - start)
    images = passes * len(split.train) + len(split.test)
    return Phase(
        "evaluation", f"{images} images through {counted(count, 'model')}", None, times[-1] / len(few) * images * count
    )


def _method_work(plan: Plan) -> str:
    config: dict[str, Any] = plan.settings.to_dict()
    epochs = config.get("epochs")
    if searches(plan):
        return f"{plan.method.name}, at most all its attempts and Retrain"
    most = "at most " if config.get("stop") in ("auto", "accepted") else ""
    return plan.method.name if epochs is None else f"{plan.method.name}, {most}{_epochs(epochs)}"


def ends_early(plan: Plan) -> bool:
    """Whether the method may end before its last step: by itself, or once one of its attempts is accepted."""
    return plan.method.config.to_dict().get("stop") in ("auto", "accepted") or searches(plan)


def searches(plan: Plan) -> bool:
    """Whether the method tries settings until the acceptance test accepts one."""
    method = plan.method
    return isinstance(method, SearchedLoop) and not method.fixed and plan.split.validation_halves is not None


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count != 1 else ''}"


class _Enough(Exception):  # noqa: N818 (no error: enough steps have been seen)
    """Ends what is measured."""


@dataclass
class _Watched:
    """Loop that was watched: its steps in all, the seconds before its first step, and when each step ended."""

    name: str
    steps: int
    set_up: float
    started: float
    ends: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The estimate: the first step, which is like no other, and the median of those that follow."""
        if not self.ends:
            return self.set_up
        times = [end - start for start, end in zip([self.started, *self.ends], self.ends, strict=False)]
        typical = statistics.median(times[1:] or times)
        return self.set_up + times[0] + typical * max(0, self.steps - 1)


class _Watch(Callback):
    """Timing of a few steps of each loop: ends those that come first, and everything with the loop called ``last``."""

    def __init__(self, last: str, device: torch.device) -> None:
        self.loops: list[_Watched] = []
        self.cut = False
        self._last, self._device = last, device
        self._free_since = time.perf_counter()

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        now = self._now()
        self.loops.append(_Watched(name, epochs * steps_per_epoch, now - self._free_since, now))

    def on_step_end(self, step: int) -> None:
        loop = self.loops[-1]
        loop.ends.append(self._now())
        watched = len(loop.ends)
        if watched < 2 or (watched < _STEPS and loop.ends[-1] - loop.ends[1] < _SECONDS):
            return
        if loop.name == self._last:
            raise _Enough
        self.cut = True
        raise EndLoop

    def on_loop_end(self) -> None:
        self._free_since = self._now()

    def own(self, name: str, work: str) -> Phase:
        """Return the phase of the loop called ``last``."""
        loop = next((loop for loop in self.loops if loop.name == self._last), None)
        return Phase(name, work, None, None) if loop is None else Phase(name, work, loop.steps, loop.seconds)

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()
