"""Loading of the compiled operators, and its status.

The CPU library holds the schemas and the CPU kernels, the CUDA library the CUDA kernels. Where a library cannot be
loaded, lacks an operator or is of another version, and on devices that have no kernels (MPS, XPU, ROCm), the
plain-PyTorch reference serves, and says so once.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class LibraryStatus:
    """Whether a compiled library is in use; ``reason`` says why not.

    Example:
        >>> from pymixunlearn import ops
        >>> ops.LibraryStatus(False, "switched off")
        LibraryStatus(available=False, reason='switched off')
    """

    available: bool
    reason: str | None = None


@dataclass(frozen=True)
class Status:
    """State of the compiled operators in this process (see :func:`pymixunlearn.ops.status`).

    Example:
        >>> from pymixunlearn import ops
        >>> absent = ops.LibraryStatus(False, "not built")
        >>> ops.Status(cpu=absent, cuda=absent).reason
        'not built'
    """

    cpu: LibraryStatus
    cuda: LibraryStatus
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def available(self) -> bool:
        """Whether the compiled CPU operators, which all others build on, are in use."""
        return self.cpu.available

    @property
    def reason(self) -> str | None:
        """Why the compiled CPU operators are not in use, or None."""
        return self.cpu.reason


def _load(name: str) -> LibraryStatus:
    path = _PACKAGE / f"{name}.so"
    if not path.exists():
        return LibraryStatus(False, f"{path.name} was not built (see the README on building)")
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        # torch names the file; what the loader said is the cause.
        reason = str(error.__cause__ or error).splitlines()[0]
        return LibraryStatus(False, f"{path.name} does not load under torch {torch.__version__}: {reason}")
    return LibraryStatus(True)


def _load_cuda(cpu: LibraryStatus) -> LibraryStatus:
    if not cpu.available:
        return LibraryStatus(False, "the CPU library, which holds the schemas, is not loaded")
    if torch.version.hip is not None:
        return LibraryStatus(False, f"torch {torch.__version__} is built for ROCm, which has no compiled operators")
    if torch.version.cuda is None:
        return LibraryStatus(False, f"torch {torch.__version__} has no CUDA")
    built, running = _cuda_major(_PACKAGE / "_ops_cuda.so"), int(torch.version.cuda.split(".")[0])
    if built not in (None, running):
        reason = f"_ops_cuda.so is for CUDA {built}, and torch {torch.__version__} is built with CUDA {running}"
        return LibraryStatus(False, reason)
    return _load("_ops_cuda")


def _cuda_major(path: Path) -> int | None:
    """The major version of the CUDA runtime that a library asks the loader for; None where it asks for none.

    Known before the library is loaded: another runtime may be on this machine, and would be loaded beside torch's.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            needed = re.search(rb"\0libcudart\.so\.(\d+)", content)
            return int(needed[1]) if needed else None
    except (OSError, ValueError):  # not there, or empty: loading it says so
        return None


def _facts() -> dict[str, Any]:
    try:
        introspection = import_module("pymixunlearn._introspection")
        return {**introspection.build_facts(), "cpu_isa": introspection.cpu_isa()}
    except ModuleNotFoundError:
        others = sorted(path.name for path in _PACKAGE.glob("_introspection.*"))
        here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return {"introspection": f"not for {here}; there is {others[0]}" if others else "was not built"}
    except (ImportError, AttributeError) as error:  # does not load, or is of another version
        return {"introspection": f"not available: {error}"}


def _load_all() -> Status:
    if os.getenv("PYMIXUNLEARN_REFERENCE") == "1":
        off = LibraryStatus(False, "switched off by PYMIXUNLEARN_REFERENCE=1")
        return Status(off, off, _facts())
    cpu = _load("_ops_cpu")
    return Status(cpu, _load_cuda(cpu), _facts())


#: How loading went, and whether CPU and CUDA tensors have compiled operators; :func:`check_fit` has the last word.
STATUS = _load_all()
CPU, CUDA = STATUS.cpu.available, STATUS.cuda.available
_warned: set[str] = set()
#: The oldest GPUs that the CUDA library has code for; and whether a GPU, by its index, is one of these or newer.
OLDEST_CAPABILITY = (8, 0)
_capable: dict[int, bool] = {}


def check_fit(fakes: Sequence[Callable[..., Any]]) -> None:
    """Give up libraries of another version: those that lack an operator, or whose operator takes other arguments.

    Args:
        fakes: The fake kernel of every operator, each named after it with a leading underscore.
    """
    global STATUS, CPU, CUDA
    cpu, cuda = STATUS.cpu, STATUS.cuda
    if cpu.available and (problem := _misfit(fakes, "CPU")):
        cpu = LibraryStatus(False, f"_ops_cpu.so is of another version of this package, rebuild it: {problem}")
        cuda = _load_cuda(cpu)
    if cuda.available and (problem := _misfit(fakes, "CUDA")):
        cuda = LibraryStatus(False, f"_ops_cuda.so is of another version of this package, rebuild it: {problem}")
    STATUS = Status(cpu, cuda, STATUS.facts)
    CPU, CUDA = cpu.available, cuda.available
    if not CPU and os.getenv("PYMIXUNLEARN_REFERENCE") != "1":
        _warn(f"pymixunlearn runs on its plain-PyTorch reference operators, which are slower: {cpu.reason}")


def _misfit(fakes: Sequence[Callable[..., Any]], key: str) -> str | None:
    """What the loaded operators lack: an operator, kernels for a dispatch key, or the arguments of the fake kernels."""
    for fake in fakes:
        name = fake.__name__.removeprefix("_")
        packet = getattr(torch.ops.pymixunlearn, name, None)
        if packet is None or not torch._C._dispatch_has_kernel_for_dispatch_key(f"pymixunlearn::{name}", key):
            return f"it lacks the operator {name}"
        takes = [argument.name for argument in packet.default._schema.arguments]
        if takes != list(inspect.signature(fake).parameters):
            return f"its operator {name} takes {', '.join(takes)}"
    return None


def serves_gpu(index: int) -> bool:
    """Whether the CUDA library has code for a GPU; asked of the driver once for each."""
    capable = _capable.get(index)
    if capable is None:
        capable = _capable[index] = torch.cuda.get_device_capability(index) >= OLDEST_CAPABILITY
    return capable


serves_gpu._dynamo_marked_constant = True  # type: ignore[attr-defined]  # what torch.compiler.assume_constant_result does


def say_that_the_reference_serves(device: str) -> None:
    """Warn once for each type of device whose tensors have no compiled operators, with the reason.

    Without the CPU library, or where it was switched off, the reference serves everywhere, which was said or asked for.
    On ``meta`` nothing is computed.
    """
    if not CPU or device == "meta" or device in _warned:
        return
    _warned.add(device)
    oldest = ".".join(map(str, OLDEST_CAPABILITY))
    too_old = f"the compiled operators need a GPU of compute capability {oldest} or newer"
    reason = STATUS.cuda.reason or too_old if device == "cuda" else f"there are no compiled operators for {device}"
    _warn(f"tensors on {device} are served by the plain-PyTorch reference operators, which are slower: {reason}")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)
