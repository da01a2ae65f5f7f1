"""Progress of the decoding of images, with what is left of it."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymixunlearn.experiments.common.progress import Observer

_WINDOW_SECONDS = 30.0
_FIRST_SECONDS = 3.0


class DataProgress:
    """Progress of decoding images, reported to an observer as the phase "data".

    Parts come one after the other, each counted from 1. What is left is estimated by the rate of the last half minute,
    so that images which an earlier, interrupted call decoded do not count as fast ones for long.
    """

    def __init__(self, observer: Observer) -> None:
        self.decoded = 0
        self._observer = observer
        self._recent: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int | None) -> None:
        """Count one image more."""
        if done == 1:
            self._observer.phase_started("data", total)
            self._recent.clear()
        self.decoded += 1
        self._observer.phase_advanced("data", done, self._text(done, total))

    def finish(self) -> None:
        """Tell the end, if images were decoded at all."""
        if self.decoded:
            self._observer.phase_finished("data", f"{self.decoded} images decoded")

    def _text(self, done: int, total: int | None) -> str:
        now = time.monotonic()
        if not self._recent or now - self._recent[-1][0] > 1:
            self._recent.append((now, done))
        while len(self._recent) > 1 and now - self._recent[0][0] > _WINDOW_SECONDS:
            self._recent.popleft()
        if total is None:
            return f"{done} images"
        started, before = self._recent[0]
        if now - started < _FIRST_SECONDS or done <= before:
            return f"{done} of {total} images"
        return f"{done} of {total} images, {_duration((total - done) * (now - started) / (done - before))} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
