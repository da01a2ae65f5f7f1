"""Device to compute on, and how to compute the same bits there twice."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pymixunlearn.errors import UserError
from pymixunlearn.seeding import derive_seed

_CPUINFO = Path("/proc/cpuinfo")


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device called ``name``, having checked that it is there.

    Args:
        name: "auto" or None for CUDA where there is one and the CPU otherwise; else anything ``torch.device`` takes.

    Raises:
        UserError: The name means nothing to PyTorch, or this machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
        >>> resolve_device("gpu")
        Traceback (most recent call last):
        pymixunlearn.errors.UserError: device is 'gpu', which PyTorch does not know; expected auto, cpu, cuda or cuda:N
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"device is '{name}', which PyTorch does not know; expected auto, cpu, cuda or cuda:N"
        ) from error
    if device.type == "cpu":
        return torch.device("cpu")
    present = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if present is not None else 0
    if present is None or device.type != present.type or (device.index or 0) >= count:
        found = "cpu" if present is None else ", ".join(["cpu", *(f"{present.type}:{i}" for i in range(count))])
        raise UserError(f"device is '{name}', which is not available here; available: {found}")
    return device


@contextmanager
def seeded_layers(device: torch.device, seed: int, *names: str | int) -> Iterator[None]:
    """Run a block whose layers (dropout, stochastic depth) draw from the stream ``names`` of ``seed``.

    Layers can only draw from PyTorch's global generators, so these are seeded inside and put back afterwards. On an
    accelerator, kernels that add up in varying order (cuDNN's default weight gradients, fused attention's backward)
    are replaced by deterministic ones meanwhile.

    Args:
        device: Where the block computes.
        seed: The run's seed.
        *names: The name of the stream.

    Example:
        >>> from torch import nn
        >>> def dropped():
        ...     with seeded_layers(torch.device("cpu"), 0, "layers", 1):
        ...         return nn.functional.dropout(torch.ones(8))
        >>> torch.equal(dropped(), dropped())
        True
    """
    stream = derive_seed(seed, *names)
    with ExitStack() as stack:
        # Only the generators that the block can reach are touched: torch.manual_seed would seed every device.
        if device.type == "cpu":
            stack.enter_context(torch.random.fork_rng(devices=[]))
        else:
            module = torch.get_device_module(device)
            index = module.current_device() if device.index is None else device.index
            stack.enter_context(torch.random.fork_rng(devices=[index], device_type=device.type))
            stack.enter_context(module.device(index))
            module.manual_seed(stream)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(_deterministic_cudnn())
        torch.default_generator.manual_seed(stream)
        yield


@contextmanager
def _deterministic_cudnn() -> Iterator[None]:
    """Hold cuDNN to deterministic algorithms; benchmark mode would pick them by stopwatch."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def processor_name() -> str:
    """Return the processor's name as Linux knows it; where there is no such file, what Python knows."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(next(names, "").split()) or platform.processor() or platform.machine()
