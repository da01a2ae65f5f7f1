from __future__ import annotations

import signal
import sys
import time
from typing import Any

import pytest

from pymixunlearn.interrupts import never_lost
from tests.losing import lose_signal


def test_an_interrupt_that_python_drops_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.unraisablehook
    told: list[str] = []
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), never_lost(lost=lambda: told.append("lost")):
        lose_signal(signal.SIGINT)
        assert told == []  # the object is gone, and nothing was raised here
        time.sleep(30)
    assert time.monotonic() - started < 20 and told == ["lost"]
    assert sys.unraisablehook is before
    assert capfd.readouterr().err == ""


def test_it_comes_no_more_once_the_block_is_over() -> None:
    with never_lost():
        lose_signal(signal.SIGINT)
    time.sleep(0.1)


def test_other_exceptions_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("of its own")

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_type))
    with never_lost():
        Broken()
    assert told == [ValueError]
