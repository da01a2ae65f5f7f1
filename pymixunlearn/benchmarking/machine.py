"""Machine of a measurement: the device in words, the versions, and how fast it copies."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from time import perf_counter

import torch

import pymixunlearn
from pymixunlearn import ops
from pymixunlearn.training.device import processor_name

_COPY_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
_COPIES = 7


@dataclass(frozen=True)
class Machine:
    """What results from different runs must agree in to be one table.

    Attributes:
        device: The processor or GPU in words.
        threads: PyTorch's CPU threads.
        versions: Of everything that was compared.
    """

    device: str
    threads: int
    versions: str


def describe_machine(device: torch.device) -> Machine:
    """Name the device and the versions; nothing that says whose machine it is."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    facts = ops.status().facts
    versions = {
        "pymixunlearn": pymixunlearn.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "CUDA": torch.version.cuda if device.type == "cuda" else None,
        "kernels": facts.get("cpu_isa") if device.type == "cpu" else None,
        "compiler": facts.get("compiler"),
    }
    return Machine(
        name, torch.get_num_threads(), ", ".join(f"{key} {value}" for key, value in versions.items() if value)
    )


def copy_bandwidth(device: torch.device, size: int | None = None) -> float:
    """Return the bytes per second, read and written, of copying a large tensor to another; the median of a few.

    The other one's pages are there already: a new tensor's would be counted as copying, and take several times longer.

    Args:
        device: Where to copy.
        size: Bytes of the tensor; by default far beyond the caches.
    """
    source = torch.ones((size or _COPY_BYTES[device.type]) // 4, device=device)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(_COPIES + 1):
        _wait(device)
        start = perf_counter()
        target.copy_(source)
        _wait(device)
        seconds.append(perf_counter() - start)
    # The first one warms up.
    median = sorted(seconds[1:])[_COPIES // 2]
    return 2 * source.nbytes / median


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
