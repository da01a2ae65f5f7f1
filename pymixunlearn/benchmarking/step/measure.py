"""Timing of whole training steps, MixUnlearn's beside a plain PyTorch loop, and where the time of a step goes.

What is timed is a round of ``generator_interval`` steps: one of them trains the generator, so all rounds are alike.
Times are given per step.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pymixunlearn import models, tasks
from pymixunlearn.benchmarking.machine import Machine
from pymixunlearn.benchmarking.memory import peak_memory
from pymixunlearn.benchmarking.step.plain import PLAIN_CNN_LAYER, PlainStep, endless, plain_cnn
from pymixunlearn.benchmarking.timing import Clock, CpuClock, CudaClock, Job, Sample, interleaved
from pymixunlearn.data import Preprocess, batches, from_tensors, natural_images
from pymixunlearn.methods.base import UnlearnJob, held_fixed
from pymixunlearn.methods.mixunlearn import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.fast import FastMixUnlearnLoop
from pymixunlearn.methods.mixunlearn.step import SIDES, MixUnlearnLoop
from pymixunlearn.methods.view import SplitView
from pymixunlearn.models.autocast import compute_in, settled_precision
from pymixunlearn.training.device import seeded_layers

L = TypeVar("L", bound=MixUnlearnLoop)

PROVIDERS = {
    "fast": "the fast step; f_D's outputs cached, unless images are augmented",
    "first epoch": "the fast step, a teacher forward of every sample",
    "loop": "the package's plain loop",
    "pytorch": "a loop in plain PyTorch, same network",
    "pytorch, own network": "a loop in plain PyTorch, the network written plainly too",
}
PARTS = {
    "data": "gather and preprocess both batches",
    "teacher": "f_D's forward, where it is needed",
    "mixing": "MixBlock and blend for the unlearner",
    "forward": "the unlearner's forward",
    "loss": "both losses, forward and backward",
    "backward": "the unlearner's backward",
    "optimiser": "its Adam step",
    "generator": "the generator's step, shared out over the interval",
    "adversary": "of that, the passes through the unlearner",
}
_NETWORK = ("teacher", "forward", "backward", "adversary")
_INTERVAL = MixUnlearnConfig().generator_interval
# Batches of each set: a multiple of the interval, and enough that all three CUDA graphs are captured in a few epochs.
_BATCHES = 8


@dataclass(frozen=True)
class StepCase:
    """A network, its input's side and channels, and images of each set per step on a GPU and on a CPU."""

    network: str
    image_size: int
    channels: int
    batch: int
    cpu_batch: int

    @property
    def name(self) -> str:
        """Network and size, joined by a dash."""
        return f"{self.network}-{self.image_size}"

    @property
    def preprocess(self) -> Preprocess:
        """As in the experiments: grey images as they are, colour images augmented."""
        return Preprocess() if self.channels == 1 else natural_images(self.image_size)


STEP_CASES = {
    case.name: case
    for case in (
        StepCase("cnn", 28, 1, 32, 32),
        StepCase("resnet18", 32, 3, 32, 8),
        StepCase("resnet18", 224, 3, 32, 2),
        StepCase("vit", 224, 3, 32, 8),
    )
}


@dataclass(frozen=True)
class StepRow:
    """A provider's whole step, or a part of the fast one: a row of the file, its columns in order.

    Attributes:
        case: Network and image size.
        batch: Images of each set per step.
        precision: Of the networks in the fast step; the others compute in float32.
        provider: One of :data:`PROVIDERS`; parts are those of "fast".
        part: "step", or one of :data:`PARTS`.
        p20_ms: 20th percentile per step, in milliseconds.
        p50_ms: The median.
        p80_ms: 80th percentile.
        runs: How many rounds were timed.
        ratio: Of a whole step: its median over the fast one's.
        share: Of a part: its median over the fast step's.
        images_per_second: Forget and retain images.
        peak_bytes: Most memory of tensors that came up in a round; on a GPU in all rounds of the warm-up, in which the
            optimisers make their state and graphs are recorded.
        device: In words.
        threads: Of the CPU.
        versions: Of everything compared.
    """

    case: str
    batch: int
    precision: str
    provider: str
    part: str
    p20_ms: float
    p50_ms: float
    p80_ms: float
    runs: int
    ratio: float | None
    share: float | None
    images_per_second: float | None
    peak_bytes: int | None
    device: str
    threads: int
    versions: str


def measure_step(
    case: StepCase, *, batch: int, device: torch.device, seconds: float, precision: str | None, machine: Machine
) -> list[StepRow]:
    """Time every provider's step and the parts of the fast one, all in turn.

    Args:
        case: What to train.
        batch: Images of each set per step.
        device: Where.
        seconds: About how long to go on.
        precision: Of the fast step: "float32", "bfloat16", or None for the device's default.
        machine: The device in words.
    """
    clock: Clock = CudaClock(device) if device.type == "cuda" else CpuClock()
    with rounds(case, batch=batch, device=device, precision=precision) as (jobs, fast, peaks):
        samples = interleaved(clock, {**jobs, **_parts(fast)}, seconds)
    steps = {name: samples.pop(name) for name in jobs}
    return _rows(case, batch, str(fast.config.precision), machine, steps, _flattened(samples), peaks)


class Rounds(NamedTuple):
    """Every provider's job of a round of steps, the loop of the fast one, and each provider's peak memory in bytes."""

    jobs: dict[str, Job]
    fast: FastMixUnlearnLoop
    peaks: dict[str, int]


@contextmanager
def rounds(case: StepCase, *, batch: int, device: torch.device, precision: str | None = None) -> Iterator[Rounds]:
    """Give every provider's rounds of steps, warmed up; the arguments are :func:`measure_step`'s."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(0)
        split = _split(case, batch)
        view = SplitView.of(split, labels=False)
        model = models.build(case.network, num_classes=10, in_channels=case.channels, image_size=case.image_size)
        model.to(device)

        def loop(kind: type[L], cache_mb: int, precision: str) -> L:
            network = copy.deepcopy(model)
            compute_in(network, precision)
            config = MixUnlearnConfig(batch_size=batch, precision=precision, cache_mb=cache_mb)  # type: ignore[arg-type]
            made = kind(config).begin(UnlearnJob(network, view, device, 0, (), None))
            stack.enter_context(made.closing)
            return made

        settled = settled_precision(precision, device)
        fast = loop(FastMixUnlearnLoop, 1024, settled)
        loops: dict[str, MixUnlearnLoop] = {
            "fast": fast,
            "first epoch": loop(FastMixUnlearnLoop, 0, settled),
            "loop": loop(MixUnlearnLoop, 0, "float32"),
        }
        if not fast.caches:  # nothing is cached of augmented images, so every epoch is like the first
            del loops["first epoch"]
        jobs = {name: _round(_own_steps(each), partial(seeded_layers, device, 0)) for name, each in loops.items()}
        jobs |= {name: _round(steps) for name, steps in _plain_steps(case, model, split, batch, device).items()}
        yield Rounds(jobs, fast, {name: _warmed_up(job, device) for name, job in jobs.items()})


def _warmed_up(job: Job, device: torch.device) -> int:
    """Run a job until every teacher output is cached and every graph recorded; return the most memory that it took."""
    if device.type == "cuda":
        # A replay takes no memory: what a step needs is taken while it is recorded.
        many = Job(lambda: [job.forward() for _ in range(2 * _BATCHES)], job.backward)
        return peak_memory(many, device)[0].both
    for _ in range(_BATCHES // _INTERVAL):
        job.forward()
    return peak_memory(job, device)[0].both


def network_share(rows: Iterable[StepRow]) -> float:
    """Return the share of the fast step that is passes through networks, which no implementation can leave out."""
    return sum(row.share or 0.0 for row in rows if row.part in _NETWORK)


def _split(case: StepCase, batch: int) -> tasks.Split:
    """As many forget as retain images, of noise: a step does not look at what they show."""
    count = 2 * _BATCHES * batch
    stored = case.image_size if case.channels == 1 else min(case.image_size, 224)
    images = torch.randint(256, (count, case.channels, stored, stored), dtype=torch.uint8)
    targets = torch.randint(10, (count,))
    names = tuple("0123456789")
    noise = from_tensors(images, targets, images[:1], targets[:1], classes=names, preprocess=case.preprocess)
    return tasks.index_split(noise, range(count // 2))


def _round(steps: Iterator[None], within: Callable[[], AbstractContextManager[None]] = nullcontext) -> Job:
    """Return a job of as many steps as there are from one generator update to the next.

    Args:
        steps: One step each.
        within: Makes the context that they run in: the package's loops hold a GPU to deterministic kernels.
    """

    def forward() -> None:
        with within():
            for _ in range(_INTERVAL):
                next(steps)

    return Job(forward, lambda _: None)


def _own_steps(loop: MixUnlearnLoop) -> Iterator[None]:
    """Take the steps of ``loop.epoch``, one at a time, epoch after epoch."""
    shuffle = torch.Generator(loop.device).manual_seed(0)
    lam = torch.tensor([0.3, 0.7], device=loop.device)
    for epoch in itertools.count():
        for step, (forget, retain) in enumerate(loop.samples(epoch)):
            if step % _INTERVAL == 0:
                loop.train_generator(forget, retain, lam[0])
            partners = torch.randperm(len(retain.images), generator=shuffle, device=loop.device)
            loop.train_unlearner(forget, retain, lam[1], partners)
            yield


def _plain_steps(
    case: StepCase, model: nn.Module, split: tasks.Split, batch: int, device: torch.device
) -> dict[str, Iterator[None]]:
    def steps(network: nn.Module, layer: str) -> Iterator[None]:
        loaders = [endless(images, case.preprocess, batch, device) for images in (split.forget, split.retain)]
        plain = PlainStep(network, layer, case.preprocess.evaluation(split.retain.images[:1]).to(device))
        for x_f, x_r in zip(*loaders, strict=True):
            plain(x_f, x_r)
            yield

    rivals = {"pytorch": steps(model, str(model.feature_layer))}
    if case.name == "cnn-28" and case.channels == 1:
        rivals["pytorch, own network"] = steps(plain_cnn().to(device), PLAIN_CNN_LAYER)
    return rivals


def _parts(loop: FastMixUnlearnLoop) -> dict[str, Job]:
    """Return the parts of a step on their own.

    On a GPU the generator's step, and the data where f_D's outputs are cached, are replayed as in a step; the passes
    through networks, the losses and the optimiser are launched one by one, which takes longer than in a step.
    """
    forget, retain = next(loop.samples(0))
    lam = torch.tensor(0.4, device=loop.device)
    both = torch.cat([forget.images, retain.images])
    with torch.no_grad():
        mixed, _ = loop.mix(forget, retain, lam)
        logits = loop.logits(loop.model, torch.cat([both, mixed]))
    gradient = torch.randn_like(logits)
    leaf, mixed = logits.requires_grad_(), mixed.requires_grad_()

    def pairs() -> Iterator[object]:
        for epoch in itertools.count():
            sides = (batches(**loop.sampling(side, epoch)) for side in SIDES)
            yield from loop.samples(epoch) if loop.caches else zip(*sides, strict=True)

    def losses() -> Tensor:
        z_f, z_r, z_mix = leaf.chunk(3)
        mix = loop.mix_loss(z_mix, forget.target, retain.target, lam)
        loss: Tensor = mix + loop.config.omega * loop.real_loss(z_f, z_r, forget.target, retain.target)
        return loss

    def backward(output: Tensor, gradient: Tensor) -> None:
        loop.optimizer.zero_grad()
        torch.autograd.backward(output, gradient)

    def attacked() -> Tensor:
        with held_fixed(loop.adversary):
            return loop.logits(loop.adversary, mixed)

    taken = pairs()
    jobs = {
        "data": _alone(lambda: next(taken)),
        "mixing": _alone(torch.no_grad()(lambda: loop.mix(forget, retain, lam))),
        "network": Job(
            lambda: loop.logits(loop.model, torch.cat([both, mixed.detach()])), lambda z: backward(z, gradient)
        ),
        # Not through .backward(): the optimiser, timed in turn with it, needs the gradients that the network left.
        "loss": Job(losses, lambda loss: torch.autograd.grad(loss, leaf)),
        "optimiser": _alone(loop.optimizer.step),
        "generator": _alone(lambda: loop.train_generator(forget, retain, lam)),
        "adversary": Job(attacked, lambda z: torch.autograd.grad(z, mixed, torch.ones_like(z))),
    }
    if not loop.caches:
        jobs["teacher"] = _alone(lambda: loop.teacher(both))
    return jobs


def _alone(call: Callable[[], object]) -> Job:
    return Job(call, lambda _: None)


def _flattened(samples: dict[str, list[Sample]]) -> dict[str, list[float]]:
    """Return the seconds of every part per step, the network's passes apart and the generator's shared out."""
    network = samples.pop("network")
    parts = {
        "forward": [sample.forward for sample in network],
        "backward": [sample.backward for sample in network],
        **{part: [sample.both for sample in found] for part, found in samples.items()},
    }
    for part in ("generator", "adversary"):
        parts[part] = [seconds / _INTERVAL for seconds in parts[part]]
    return {part: parts[part] for part in PARTS if part in parts}


def _rows(
    case: StepCase,
    batch: int,
    precision: str,
    machine: Machine,
    steps: dict[str, list[Sample]],
    parts: dict[str, list[float]],
    peaks: dict[str, int],
) -> list[StepRow]:
    whole = {name: [sample.both / _INTERVAL for sample in samples] for name, samples in steps.items()}
    fast = percentiles(whole["fast"])[1]

    def row(provider: str, part: str, seconds: Sequence[float]) -> StepRow:
        low, median, high = percentiles(seconds)
        is_step = part == "step"
        return StepRow(
            case=case.name,
            batch=batch,
            precision=precision if provider in ("fast", "first epoch") else "float32",
            provider=provider,
            part=part,
            p20_ms=1e3 * low,
            p50_ms=1e3 * median,
            p80_ms=1e3 * high,
            runs=len(seconds),
            ratio=median / fast if is_step else None,
            share=None if is_step else median / fast,
            images_per_second=2 * batch / median if is_step else None,
            peak_bytes=peaks[provider] if is_step else None,
            device=machine.device,
            threads=machine.threads,
            versions=machine.versions,
        )

    rows = [row(provider, "step", seconds) for provider, seconds in whole.items()]
    return rows + [row("fast", part, seconds) for part, seconds in parts.items()]


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return the 20th, 50th and 80th percentile."""
    low, median, high = np.percentile(seconds, [20, 50, 80])
    return float(low), float(median), float(high)
