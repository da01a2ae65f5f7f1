from __future__ import annotations

import pytest

from pymixunlearn.experiments import Observer
from pymixunlearn.experiments.common import data_progress
from pymixunlearn.experiments.common.data_progress import DataProgress


def test_what_is_left_follows_the_rate_of_the_last_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Listener(Observer):
        def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
            said.append(detail)

    clock = [0.0]
    monkeypatch.setattr(data_progress.time, "monotonic", lambda: clock[0])
    progress = DataProgress(Listener())
    for done in range(1, 51):  # taken up from an interrupted call, at once
        progress(done, 1000)
    for done in range(51, 151):
        clock[0] += 1.0
        progress(done, 1000)
    assert said[49] == "50 of 1000 images"
    assert said[-1] == "150 of 1000 images, about 14 min left"
    progress(1, None)
    assert said[-1] == "1 images" and progress.decoded == 151
