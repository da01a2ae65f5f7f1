"""Memory: how much is free, and the peak of a forward and a backward, or of any call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from pymixunlearn.benchmarking.timing import Job

T = TypeVar("T")

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 2e-3


class Peaks(NamedTuple):
    """Most bytes of tensors alive at once beyond the inputs, while in the forward and while in the backward."""

    forward: int
    backward: int

    @property
    def both(self) -> int:
        """The peak over both."""
        return max(self)


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that could still be allocated on a device, or None where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    try:
        lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        return free if limit.strip() == "max" else min(free, int(limit) - int(used))
    except OSError:
        return free


def peak_memory(job: Job, device: torch.device) -> tuple[Peaks, Any, Any]:
    """Run a job once; return its peaks, the forward's result and the backward's.

    On a CPU, what kernels allocate for themselves and not through PyTorch is not seen.
    """
    watched = _watched_on_cuda if device.type == "cuda" else _watched_on_cpu
    result, forward, kept = watched(job.forward, device)
    gradients, backward, _ = watched(lambda: job.backward(result), device)
    return Peaks(forward, kept + backward), result, gradients


def peak_resident(call: Callable[[], T], device: torch.device) -> tuple[T, int | None]:
    """Return a call's result, and the most bytes that it took beyond what was there before.

    On a GPU of tensors; on a CPU of the process's own memory, sampled, None where the system does not tell. An
    allocator keeps what it is given back, so on a CPU only the first call of a process says everything.
    """
    if device.type == "cuda":
        return _watched_on_cuda(call, device)[:2]
    first = _resident()
    if first is None:
        return call(), None
    top, done = first, threading.Event()

    def watch() -> None:
        nonlocal top
        while not done.wait(_SAMPLE_SECONDS):
            top = max(top, _resident() or 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    return result, max(top, _resident() or 0) - first


def _resident() -> int | None:
    """Return the bytes of this process's own memory; pages of mapped files, which the system can drop, are not."""
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return int(lines["RssAnon"].split()[0]) * 1024
    except (OSError, KeyError):
        return None


def _watched_on_cuda(call: Callable[[], T], device: torch.device) -> tuple[T, int, int]:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = call()
    torch.cuda.synchronize(device)
    peak, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    return result, peak - before, after - before


def _watched_on_cpu(call: Callable[[], T], _: torch.device) -> tuple[T, int, int]:
    """Return a call's result, its peak, and what it keeps: the allocator's events summed up in order of time."""
    with _silent(), torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = call()
    assert profile.kineto_results is not None
    events = [
        (event.start_ns(), event.nbytes()) for event in profile.kineto_results.events() if event.name() == "[memory]"
    ]
    alive = peak = 0
    for _, change in sorted(events, key=lambda event: event[0]):
        alive += change
        peak = max(peak, alive)
    return result, peak, alive


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the profiler's notices, which no setting turns off, away from the file descriptor of standard error."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
