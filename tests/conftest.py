"""What every test shares: GPU tests skip without a GPU; those of data or programs that are not here are left out."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same problems every time: a new one that fails belongs to the search of a script, not to a run of the suite.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # share the cores instead of fighting for them, the commands that tests start included
    threads = max(1, torch.get_num_threads() // WORKERS)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA GPU")
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(skip)
    left_out = [] if "PYMIXUNLEARN_DATA" in os.environ else [item for item in items if "real_data" in item.keywords]
    left_out += [item for item in items if any(shutil.which(tool) is None for tool in tools(item))]
    asked_for = config.option.markexpr or ""
    for marker in ("large", "browser", "slow", "extras", "exhibits"):
        left_out += [item for item in items if marker in item.keywords and marker not in asked_for]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def tools(item: pytest.Item) -> list[str]:
    return [tool for marker in item.iter_markers("tools") for tool in marker.args]


@pytest.fixture(scope="module", autouse=True)
def old_objects_frozen() -> None:
    """Leave what is in memory before a module's tests out of their garbage collections.

    A run collects before each of its phases, and thousands of collected tests make each collection take a third of a
    second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def real_data() -> Path:
    """The folder with MNIST/, FashionMNIST/, cifar10-images/ and tiny-imagenet-100/."""
    return Path(os.environ["PYMIXUNLEARN_DATA"])
