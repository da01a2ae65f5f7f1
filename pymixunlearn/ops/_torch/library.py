"""Loads the compiled operators and remembers how that went.

The CPU library holds the schemas and the CPU kernels, the CUDA library the CUDA kernels. Where a library cannot be
loaded the package goes on with the plain-PyTorch reference for that device, and says so once.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class LibraryStatus:
    """Whether a compiled library is in use; ``reason`` says why not."""

    available: bool
    reason: str | None = None


@dataclass(frozen=True)
class Status:
    """State of the compiled operators in this process (see :func:`pymixunlearn.ops.status`)."""

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
    if torch.version.cuda is None:
        return LibraryStatus(False, f"torch {torch.__version__} has no CUDA")
    return _load("_ops_cuda")


def _facts() -> dict[str, Any]:
    try:
        introspection = import_module("pymixunlearn._introspection")
    except ImportError as error:
        return {"introspection": f"not available: {error}"}
    return {**introspection.build_facts(), "cpu_isa": introspection.cpu_isa()}


def _load_all() -> Status:
    if os.getenv("PYMIXUNLEARN_REFERENCE") == "1":
        off = LibraryStatus(False, "switched off by PYMIXUNLEARN_REFERENCE=1")
        return Status(off, off, _facts())
    cpu = _load("_ops_cpu")
    if not cpu.available:
        warnings.warn(
            f"pymixunlearn runs on its plain-PyTorch reference operators, which are slower: {cpu.reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return Status(cpu, _load_cuda(cpu), _facts())


STATUS = _load_all()
