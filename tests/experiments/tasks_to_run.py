"""Pieces of work that other processes can import."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import torch

from pymixunlearn.errors import UserError

Report = Callable[[float], None]


def square(piece: int, report: Report) -> tuple[int, int, int]:
    report(0.5)
    return piece**2, os.getpid(), torch.get_num_threads()


def refuse(piece: int, report: Report) -> int:
    if piece == 1:
        raise UserError("piece 1 does not fit")
    return piece


def break_down(piece: int, report: Report) -> int:
    raise ZeroDivisionError("by nothing")


def vanish(piece: int, report: Report) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return piece
