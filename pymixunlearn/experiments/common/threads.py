"""Number of CPU threads that suits a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from pymixunlearn.data import Dataset
from pymixunlearn.training.process_pool import held_to_threads

SMALL_IMAGE = 16
"""Networks for images up to this many pixels high do so little in a step that a second thread only waits."""


def suited_threads(dataset: Dataset, device: torch.device) -> AbstractContextManager[None]:
    """Hold PyTorch to one thread in the block where more would slow a run down, and put the number back after it.

    With two threads, a step on the 8x8 digits is no faster on an idle machine and many times slower on a busy one,
    where each of its small parallel regions waits for a thread that is not running.
    """
    small = device.type == "cpu" and dataset.image_size <= SMALL_IMAGE
    return held_to_threads(1) if small else nullcontext()
