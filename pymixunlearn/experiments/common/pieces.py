"""Independent pieces of work in parallel processes, with their progress; an error or Ctrl-C ends all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from pymixunlearn.errors import UserError
from pymixunlearn.training.process_pool import ProcessPool, WorkerEnded, held_to_threads

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_THREADS = 1
_STEP = 0.01


class Work(Protocol[T_co]):
    """Pieces of work by number; it can be pickled if it is to go to other processes."""

    def __call__(self, piece: int, report: Callable[[float], None]) -> T_co:
        """Do one piece, telling ``report`` which share of it is done, from 0 to 1."""


def usable_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pieces(
    work: Work[T], pieces: int, *, jobs: int, progress: Callable[[list[float]], None] = lambda shares: None
) -> list[T]:
    """Do all pieces of ``work``, up to ``jobs`` at a time, each with one CPU thread, and return what they gave.

    One thread each: so the results do not depend on ``jobs``. With one job the work is done in this process; otherwise
    in new ones, which need the usual ``if __name__ == "__main__"`` in a script that calls this.

    Args:
        work: Does one piece.
        pieces: How many there are.
        jobs: How many to do at a time, at least 1.
        progress: Told how much of every piece is done.

    Raises:
        UserError: A piece raised it, or its process ended, for lack of memory for example.
        RuntimeError: A piece raised anything else; the message holds the traceback.
    """
    shares = [0.0] * pieces

    def told(piece: int, share: float) -> None:
        shares[piece] = share
        progress(shares)

    if min(jobs, pieces) > 1:
        return _in_processes(work, pieces, min(jobs, pieces), told)
    with held_to_threads(_THREADS):
        return [work(piece, partial(told, piece)) for piece in range(pieces)]


def _in_processes(work: Work[T], pieces: int, jobs: int, told: Callable[[int, float], None]) -> list[T]:
    results: dict[int, T] = {}
    with ProcessPool(partial(_piece, work), jobs, threads=_THREADS) as pool:
        for piece, done in pool.run(range(pieces), told):
            try:
                results[piece] = done.result()
            except WorkerEnded as end:
                raise UserError(
                    f"a process ended with exit code {end.code} before its work was done, perhaps for lack of memory; "
                    "what is finished is kept, and fewer jobs at a time need less"
                ) from None
            told(piece, 1.0)
    return [results[piece] for piece in range(pieces)]


def _piece(work: Work[T], piece: int, send: Callable[[float], None]) -> T:
    """Do one piece; what a process of its own runs."""
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if last + _STEP <= share < 1.0:
            last = share
            send(share)

    return work(piece, report)
