"""Snapshot of a loop in a file: the last complete epoch, from which an interrupted run goes on."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.files import read_with_hash, write_with_hash
from pymixunlearn.training.loop import Callback, StateDict

T = TypeVar("T")


class SnapshotFile(Callback):
    """Callback that saves the state of the last complete epoch in a file, with its hash.

    Args:
        path: The file; it appears after the first epoch.
        work: What the loop does, for messages: "training", "unlearning".
        spare: Called with one sentence if the file cannot be written; the loop goes on without it. None lets that end
            the loop.
    """

    def __init__(self, path: Path, work: str, *, spare: Callable[[str], None] | None = None) -> None:
        """Read nothing yet."""
        self.path, self._work, self._spare = path, work, spare
        self.enabled = True
        """Whether the file is written."""
        self._started = self._said = False

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        """Note that the loop took the snapshot it was given."""
        self._started = True

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        """Write the file."""
        if not self.enabled:
            return
        content = io.BytesIO()
        torch.save(state(), content)
        try:
            write_with_hash(self.path, content.getvalue())
        except UserError as error:
            if self._spare is None:
                raise
            if not self._said:  # the next epoch tries again
                self._said = True
                advice = "free some space, or it cannot resume after an interruption"
                self._spare(f"{error}; {self._work} goes on: {advice}")

    def run(self, attempt: Callable[[StateDict | None], T], tell: Callable[[str], None]) -> T:
        """Return ``attempt(state)``, with the file's state or, where there is none that fits, with None.

        Args:
            attempt: Runs the loop with this callback, from the state it is given.
            tell: Called with one sentence if there is a state that cannot be used.

        Raises:
            UserError: ``attempt`` raised it, other than by refusing the state before the first step.
        """
        state = self._read(tell)
        try:
            return attempt(state)
        except UserError as error:
            if state is None or self._started:
                raise
            tell(f"snapshot '{self.path}' does not fit ({error}); {self._work} starts again")
        return attempt(None)

    def discard(self) -> None:
        """Delete the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def _read(self, tell: Callable[[str], None]) -> StateDict | None:
        if not self.path.exists():
            return None
        content = read_with_hash(self.path)
        if content is not None:
            with suppress(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
                state: StateDict = torch.load(io.BytesIO(content), weights_only=True)
                return state
        tell(f"snapshot '{self.path}' is damaged; {self._work} starts again")
        return None
