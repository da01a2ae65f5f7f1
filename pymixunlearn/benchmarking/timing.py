"""Timing of jobs in turn, so that whatever disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch


@dataclass(frozen=True)
class Job:
    """Pair of calls to time: a forward, and a backward from its result to the gradients."""

    forward: Callable[[], Any]
    backward: Callable[[Any], Any]


class Sample(NamedTuple):
    """Seconds of one forward and of the backward that followed it."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """Seconds of the two together."""
        return self.forward + self.backward


class Clock(Protocol):
    """Clock that runs a job a few times in a row and returns how long each took."""

    def runs(self, job: Job, count: int) -> list[Sample]:
        """Time ``count`` runs."""


class CpuClock:
    """Wall time, between calls; memory is given back outside of it."""

    def runs(self, job: Job, count: int) -> list[Sample]:
        """Time ``count`` runs."""
        samples = []
        for _ in range(count):
            start = perf_counter()
            result = job.forward()
            middle = perf_counter()
            gradients = job.backward(result)
            end = perf_counter()
            samples.append(Sample(middle - start, end - middle))
            del result, gradients
        return samples


class CudaClock:
    """Time between events on the stream. Where launching takes longer than computing, it is the launching's.

    Args:
        device: A CUDA device.
        flush: Overwrite the level-2 cache before every run.
    """

    def __init__(self, device: torch.device, *, flush: bool = False) -> None:
        self._device = device
        # Larger than any GPU's level-2 cache so far (126 MB).
        self._scratch = torch.empty(256 << 20, dtype=torch.uint8, device=device) if flush else None

    def runs(self, job: Job, count: int) -> list[Sample]:
        """Time ``count`` runs, waiting for the device only after the last."""
        marks = []
        with torch.cuda.device(self._device):
            for _ in range(count):
                if self._scratch is not None:
                    self._scratch.zero_()
                start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
                start.record()
                result = job.forward()
                middle.record()
                gradients = job.backward(result)
                end.record()
                del result, gradients
                marks.append((start, middle, end))
            torch.cuda.synchronize(self._device)
        return [Sample(a.elapsed_time(b) / 1e3, b.elapsed_time(c) / 1e3) for a, b, c in marks]


def captured(job: Job, device: torch.device) -> Job:
    """Return a job that replays CUDA graphs of another's forward and backward."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):
                job.backward(job.forward())
        torch.cuda.current_stream(device).wait_stream(side)
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward):
            result = job.forward()
        # One pool for both: the backward reads what the forward left there.
        with torch.cuda.graph(backward, pool=forward.pool()):
            gradients = job.backward(result)

    def replay_backward(_: object) -> object:
        backward.replay()
        return gradients

    def replay_forward() -> object:
        forward.replay()
        return result

    return Job(replay_forward, replay_backward)


# A turn takes about this long, so that the first run after the change of provider is one of many.
_TURN_SECONDS = 1e-3
_RUNS_PER_TURN = 20
_WARM_UP_SECONDS = 0.02
_ROUNDS = (3, 400)
# Where one round of all jobs takes longer than this, it is the only one.
_PATIENCE_SECONDS = 30.0


def interleaved(clock: Clock, jobs: Mapping[str, Job], seconds: float) -> dict[str, list[Sample]]:
    """Time jobs in rounds, each job a short turn per round, the order rotating.

    Args:
        clock: What measures.
        jobs: By name; each has run before, and warms up here.
        seconds: About how long to go on; there are 3 to 400 rounds, a single one where it takes very long.
    """
    names = list(jobs)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        expected = {name: _warm_up(clock, job) for name, job in jobs.items()}
        turns = {name: max(1, min(_RUNS_PER_TURN, int(_TURN_SECONDS / expected[name]))) for name in names}
        least, most = _ROUNDS if sum(expected.values()) < _PATIENCE_SECONDS else (1, 1)
        start = perf_counter()
        for round_number in range(most):
            if round_number >= least and perf_counter() - start > seconds:
                break
            first = round_number % len(names)
            for name in names[first:] + names[:first]:
                samples[name] += clock.runs(jobs[name], turns[name])
    finally:
        if collecting:
            gc.enable()
    return samples


def _warm_up(clock: Clock, job: Job) -> float:
    """Run a job until it is warm; return the seconds of its fastest run."""
    start = perf_counter()
    fastest = clock.runs(job, 1)[0].both
    while perf_counter() - start < _WARM_UP_SECONDS:
        fastest = min(fastest, clock.runs(job, 1)[0].both)
    return max(fastest, 1e-9)


def quantiles(samples: list[Sample], mode: str) -> tuple[float, float, float]:
    """Return the 20th, 50th and 80th percentile of a mode ("forward", "backward" or "both"), in seconds."""
    values = [float(getattr(sample, mode)) for sample in samples]
    low, median, high = np.percentile(values, [20, 50, 80])
    return float(low), float(median), float(high)
