"""A callback that keeps a snapshot as a file would, and interrupts the run later."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import torch

from pymixunlearn.training import Callback, StateDict


class Interrupt(Callback):
    """Keeps the snapshot of an epoch, and interrupts at a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.epoch, self.step, self.file = epoch, step, io.BytesIO()

    def on_step_end(self, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        if epoch == self.epoch:
            torch.save(state(), self.file)

    def read(self) -> StateDict:
        self.file.seek(0)
        loaded: StateDict = torch.load(self.file, weights_only=True)
        return loaded


def without_time(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return records without what differs between two equal runs."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]
