"""What made a result, and when."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import torch

import pymixunlearn
from pymixunlearn.parallel import processes
from pymixunlearn.training.device import processor_name

_LIBRARIES = ("numpy", "scikit-learn", "torchvision", "safetensors")


def versions() -> dict[str, str | None]:
    """Return the versions and the hardware that results depend on; None for what is not there."""
    found: dict[str, str | None] = {
        "pymixunlearn": pymixunlearn.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "processor": processor_name(),  # as versions do, it decides how sums are rounded
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    if processes() > 1:  # which decides it too
        found["processes"] = str(processes())
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            # torchvision is only needed for some data sets; a report still says that it was absent.
            found[library] = None
    return found


def utc_now() -> str:
    """Return the time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
