"""What workers do in the tests of the process pool, where a new process can import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.errors import UserError
from tests.losing import lose_signal

Send = Callable[[Any], None]


def describe(task: Any, send: Send) -> tuple[Any, int, int, str]:
    """Return the task, the process and its threads."""
    return task, os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def count(task: int, send: Send) -> int:
    for number in range(task):
        send(number)
    return -task


def chatter(task: Any, send: Send) -> None:
    """Send without end, so that a stop comes in the middle of it."""
    number = 0
    while True:
        send(number)
        number += 1


def fail(task: str, send: Send) -> str:
    if task == "user":
        raise UserError("this cannot be done")
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "other":
        raise ZeroDivisionError("by nothing")
    return task


class Unreadable:
    """Can be pickled, and not be unpickled."""

    def __call__(self, task: int, send: Send) -> int:
        return task

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return missing, ()


def missing() -> Any:
    raise AttributeError("it is not there")


def note_the_stop(path: Path, send: Send) -> None:
    try:
        send("ready")
        time.sleep(60)
    finally:
        path.write_text("in order")


def lose_the_stop(path: Path, send: Send) -> None:
    lose_signal(signal.SIGTERM)
    note_the_stop(path, send)


def stay(task: Any, send: Send) -> None:
    """Be one that does not react, as if the interruption had been lost."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send("ready")
    while True:
        time.sleep(0.1)


def say_pid(path: Path, send: Send) -> None:
    path.with_suffix(".tmp").write_text(str(os.getpid()))
    path.with_suffix(".tmp").rename(path)
    stay(None, send)
