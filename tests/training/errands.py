"""What workers do in the tests of processes, where a new process can import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.training.processes import Employer


def echo(greeting: str, employer: Employer) -> None:
    employer.send((greeting, os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]))
    while True:
        employer.send(employer.receive())


def chatter(employer: Employer) -> None:
    """Say something without end, so that a stop comes in the middle of it."""
    number = 0
    while True:
        employer.send(number)
        number += 1


def finish(employer: Employer) -> None:
    employer.send("done")


def fail(kind: str, employer: Employer) -> None:
    raise UserError("this cannot be done") if kind == "user" else ZeroDivisionError("by nothing")


def note_the_stop(path: Path, employer: Employer) -> None:
    try:
        employer.send("ready")
        employer.receive()
    finally:
        path.write_text("in order")


def stay(employer: Employer) -> None:
    """Be one that does not react, as if the interruption had been lost."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    employer.send("ready")
    while True:
        time.sleep(0.1)
