"""Progress events of a run, independent of how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pymixunlearn.display import counted
from pymixunlearn.training.loop import Callback, StateDict

_WIDTH = 56
"""Columns for the detail of a phase: with phase and percentage before it a line has at most 80."""
_DOTS = " ..."


class Observer:
    """Receiver of a run's progress events; this one ignores them. The command line shows progress bars instead."""

    def note(self, text: str) -> None:
        """Receive one sentence worth knowing about the run."""

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        """Receive that ``phase`` begins, with ``done`` of ``total`` steps (None: unknown) done already."""

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        """Receive that ``done`` steps of ``phase`` are done; ``detail`` says more, such as the epoch."""

    def phase_finished(self, phase: str, detail: str) -> None:
        """Receive that ``phase`` is over and how it went; it need not have started (a cached model)."""


class Summary(Observer):
    """Observer that sums a run up in a few words, "unlearn 40 %", where many runs share the screen.

    Args:
        moved: Called with the words each time that they change.
        noted: Called with every note.
    """

    def __init__(self, moved: Callable[[str], None], noted: Callable[[str], None]) -> None:
        """Begin with nothing said."""
        self._moved, self._noted = moved, noted
        self._total: int | None = None
        self._said = ""

    def note(self, text: str) -> None:
        """Pass it on."""
        self._noted(text)

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        """Take the total over, and say where the phase begins."""
        self._total = total
        self.phase_advanced(phase, done)

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        """Say the phase and its percentage, if that is new."""
        text = f"{phase} {100 * done // self._total} %" if self._total else phase
        if text != self._said:
            self._said = text
            self._moved(text)


class PhaseCallback(Callback):
    """Callback that reports the progress of a training loop to an observer, as one phase."""

    def __init__(self, observer: Observer, phase: str) -> None:
        """Report the loop to ``observer`` under the name ``phase``."""
        self._observer = observer
        self._phase = phase
        self._epochs = 0
        self._seconds = 0.0
        self._done = 0
        self._detail = ""

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        """Tell the observer the total number of steps."""
        self._epochs = epochs
        self._seconds = 0.0
        self._done = first_epoch * steps_per_epoch
        self._observer.phase_started(self._phase, epochs * steps_per_epoch, self._done)

    def on_step_end(self, step: int) -> None:
        """Tell the observer about one more step."""
        self._done = step
        self._observer.phase_advanced(self._phase, step, self._detail)

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        """Tell the observer the epoch and what it measured."""
        self._seconds += record["seconds"]
        self._detail = _line(f"epoch {epoch + 1}/{self._epochs}", record)
        self._observer.phase_advanced(self._phase, self._done, self._detail)


class MethodCallback(PhaseCallback):
    """Callback that reports an unlearning method: its own loop as one phase, what it trains before as another.

    Args:
        observer: Receives the progress.
        phase: The phase of the method's own loop.
        method: The method's name, which its own loop has.
    """

    def __init__(self, observer: Observer, phase: str, method: str) -> None:
        """Report the method's own loop to ``observer`` under the name ``phase``."""
        super().__init__(observer, phase)
        self._method, self._own_phase = method, phase

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        """Tell the observer which phase begins."""
        self._phase = self._own_phase if name == self._method else name
        super().on_loop_start(name, epochs, steps_per_epoch, first_epoch)

    def on_loop_end(self) -> None:
        """Report that a loop before the method's own is over; the end of that one is reported with its result."""
        if self._phase != self._own_phase:
            detail = f"{counted(self._epochs, 'epoch')}, {self._seconds:.1f} s" if self._epochs else "from the cache"
            self._observer.phase_finished(self._phase, detail)


def _line(start: str, record: Mapping[str, float]) -> str:
    """Append the metrics that fit into the line, and dots after them where more follow; history.csv has them all.

    What the network learns comes first, what a generator of mixes does last.
    """
    line = start
    for key, value in sorted(record.items(), key=lambda item: item[0].startswith(("generator", "mask"))):
        if key in ("epoch", "seconds"):
            continue
        longer = f"{line} {key} {value:.4g}"
        if len(longer) > _WIDTH - len(_DOTS):
            return f"{line}{_DOTS}"
        line = longer
    return line
