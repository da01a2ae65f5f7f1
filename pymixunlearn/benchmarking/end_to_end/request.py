"""Timing of a deletion request from end to end: unlearning beside Retrain and beside a loop in plain PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from pymixunlearn.benchmarking.machine import Machine
from pymixunlearn.benchmarking.step.plain import PlainStep, endless
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import PAPER_METRICS
from pymixunlearn.experiments import Observer, Plan
from pymixunlearn.experiments.common.stages import evaluate_models, train_initial
from pymixunlearn.methods import Retrain, RetrainConfig, UnlearnResult
from pymixunlearn.methods.mixunlearn import MixUnlearnConfig

PROVIDERS = {
    "unlearn": "MixUnlearn as the command runs it",
    "pytorch": "as many steps of the loop in plain PyTorch",
    "Retrain": "training from scratch on D_r, on the same data path",
}
REPEATS = 3
"""Times that unlearning is repeated: before, between and after the slower two."""


@dataclass(frozen=True)
class RequestRow:
    """Time of one provider for the request: a row of the file, its columns in order.

    Attributes:
        dataset: Which images.
        task: What was forgotten.
        labels: "aware" or "agnostic".
        stop: "auto" or "epochs".
        seed: Of the run.
        provider: One of :data:`PROVIDERS`.
        forget: |D_f|.
        retain: |D_r|.
        steps: Optimisation steps.
        seconds: Of the training; of several, the median.
        runs: How many.
        ratio: Retrain's seconds over these: above 1 is faster than retraining.
        gap: Sum over the paper's metrics of the distance to Retrain, in points; None for the loop in plain PyTorch,
            which is only timed.
        device: In words.
        threads: Of the CPU.
        versions: Of everything that took part.
    """

    dataset: str
    task: str
    labels: str
    stop: str
    seed: int
    provider: str
    forget: int
    retain: int
    steps: int
    seconds: float
    runs: int
    ratio: float
    gap: float | None
    device: str
    threads: int
    versions: str


def measure_request(plan: Plan, *, machine: Machine, observer: Observer) -> list[RequestRow]:
    """Carry out a plan's request with every provider.

    The initial model comes from the cache of models, or is trained first: everybody needs it, nobody is charged for it.

    Args:
        plan: A run of mixunlearn with Retrain whose initial model is trained here.
        machine: The device in words.
        observer: Receives the progress.

    Raises:
        UserError: Another method, a run without Retrain, or an initial model from a file.
    """
    config = plan.method.config
    if not isinstance(config, MixUnlearnConfig) or plan.retrain_config is None or plan.initial_config is None:
        raise UserError("expected a run of mixunlearn with Retrain, and a network that is trained here")
    split, device, seed = plan.split, plan.device, plan.inputs.seed
    initial = train_initial(
        plan.initial.architecture,
        split.training_set,
        split.preprocess,
        plan.initial_config,
        device=device,
        seed=seed,
        observer=observer,
        of=split,
    ).model
    retrain = Retrain(RetrainConfig.of(plan.retrain_config))
    observer.phase_started("bench end-to-end", REPEATS + 2)
    done = 0

    @contextmanager
    def turn(name: str) -> Iterator[None]:
        nonlocal done
        observer.phase_advanced("bench end-to-end", done, name)
        yield
        done += 1

    def unlearn() -> UnlearnResult:
        with turn("unlearn"):
            return plan.method.unlearn(initial, split, device=device, seed=seed)

    first = unlearn()
    with turn("Retrain"):
        retrained = retrain.unlearn(initial, split, device=device, seed=seed)
    second = unlearn()
    per_epoch = -(-min(len(split.forget), len(split.retain)) // config.batch_size)
    steps = len(first.history) * per_epoch if first.stopping is None else first.stopping.step
    with turn("pytorch"):
        plain = _plain_seconds(initial, plan, config.batch_size, steps)
    seconds = [first.seconds, second.seconds, unlearn().seconds]
    observer.phase_finished("bench end-to-end", f"{plan.method.name}, {statistics.median(seconds):.1f} s")
    networks = {"unlearned": first.model, "retrain": retrained.model}
    metrics = evaluate_models(networks, split, device=device, seed=seed, observer=observer)
    gaps = metrics["unlearned"].gap_to(metrics["retrain"])
    gap = sum(gaps[info.key] or 0.0 for info in PAPER_METRICS if info.key in gaps)
    retrain_steps = len(retrained.history) * -(-len(split.retain) // plan.retrain_config.batch_size)

    def row(provider: str, steps: int, times: list[float], gap: float | None) -> RequestRow:
        median = statistics.median(times)
        return RequestRow(
            dataset=split.dataset.name,
            task=split.task,
            labels="aware" if plan.method.needs_labels else "agnostic",
            stop=config.stop,
            seed=seed,
            provider=provider,
            forget=len(split.forget),
            retain=len(split.retain),
            steps=steps,
            seconds=median,
            runs=len(times),
            ratio=retrained.seconds / median,
            gap=gap,
            device=machine.device,
            threads=machine.threads,
            versions=machine.versions,
        )

    return [
        row("unlearn", steps, seconds, gap),
        row("pytorch", steps, [plain], None),
        row("Retrain", retrain_steps, [retrained.seconds], 0.0),
    ]


def _plain_seconds(initial: nn.Module, plan: Plan, batch_size: int, steps: int) -> float:
    """Take ``steps`` steps of the loop in plain PyTorch and return how long they took."""
    split, device = plan.split, plan.device
    model = initial.to(device)
    start = time.perf_counter()
    step = PlainStep(model, str(model.feature_layer), split.preprocess.evaluation(split.retain.images[:1]).to(device))
    loaders = [endless(images, split.preprocess, batch_size, device) for images in (split.forget, split.retain)]
    for _, forget, retain in zip(range(steps), *loaders, strict=False):
        step(forget, retain)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
