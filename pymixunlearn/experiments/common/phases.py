"""Seconds and peak memory of a run's phases."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
"""What Linux takes for setting a process's peak to its present size."""

GPU, PROCESS, NOTHING = "tensors on the GPU", "resident set of the process", "not measured"


class Phases:
    """Measures what is done one after the other.

    On a GPU the peak is that of the tensors that PyTorch holds there for this process. On a CPU it is that of the
    process's own memory, libraries and data included, from Linux; elsewhere it is not measured, and processes that a
    phase starts are not in it. The peak of a phase never is that of an earlier one, in the same run or in another run
    of the same process.

    Args:
        device: Where the run computes.

    Attributes:
        memory: Of what the bytes are: at the start of a phase, and at its peak.

    Example:
        >>> phases = Phases(torch.device("cpu"))
        >>> with phases.measured("evaluation"):
        ...     found = sum(range(10))
        >>> sorted(phases.to_dict()["evaluation"])
        ['peak_bytes', 'seconds', 'start_bytes']
    """

    def __init__(self, device: torch.device) -> None:
        """Measure nothing yet."""
        self._device = device
        self._found: dict[str, dict[str, Any]] = {}
        self.memory = GPU if device.type == "cuda" else PROCESS if device.type == "cpu" and _reset() else NOTHING

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure what the block does as the phase ``name``."""
        before = self._begin()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        peak = None if before is None else self._peak()
        self._found[name] = {"seconds": seconds, "start_bytes": before, "peak_bytes": peak}

    def _begin(self) -> int | None:
        """Return the memory at the start of a phase, from where on its peak counts; None where it is not measured."""
        if self.memory == GPU:
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self.memory == NOTHING:
            return None
        else:
            _give_back()
            if not _reset():
                return None
        return self._peak()

    def _peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) if self.memory == GPU else _peak()

    def taken_over(self, name: str) -> None:
        """Note that a training came from the cache: loading it says nothing of what making it takes."""
        self._found[name].update(start_bytes=None, peak_bytes=None, cached=True)

    def drop(self, name: str) -> None:
        """Forget a phase in which nothing was done."""
        del self._found[name]

    def to_dict(self, **parts: Mapping[str, float]) -> dict[str, Any]:
        """Return what was measured, by phase in order, with the seconds of the parts of those that have some."""
        return {
            name: {**found, **({"parts": dict(parts[name])} if name in parts else {})}
            for name, found in self._found.items()
        }


def _reset() -> bool:
    """Set this process's peak to its present size; False where the system does not."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return _peak() is not None


def _give_back() -> None:
    """Return free memory to the system: an allocator keeps what it is given back, and the next phase would have it."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # other C libraries than GNU's have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _peak() -> int | None:
    """Return the most bytes of memory that this process has had since the last reset."""
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
