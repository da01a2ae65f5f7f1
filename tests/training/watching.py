"""What the tests of trainings share."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import torch

from pymixunlearn.training import Callback, StateDict


class Watcher(Callback):
    """Keeps the snapshots as they come back from a file, and interrupts the training when told to."""

    def __init__(self, stop_at_step: int = -1) -> None:
        self.stop_at_step = stop_at_step
        self.snapshots: list[StateDict] = []

    def on_step_end(self, step: int) -> None:
        if step == self.stop_at_step:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        buffer.seek(0)
        self.snapshots.append(torch.load(buffer, weights_only=True))
