"""Independent pieces of work in parallel processes, with their progress; an error or Ctrl-C ends all of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from pymixunlearn.errors import UserError
from pymixunlearn.training.processes import held_to_threads, settle_in, start_process

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_THREADS = 1
_PATIENCE = 1.0
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
    context = multiprocessing.get_context("spawn")
    tasks, messages = context.Queue(), context.Queue()
    for piece in [*range(pieces), *[None] * jobs]:
        tasks.put(piece)
    # Pickled here, as plain bytes: PyTorch's own way over shared memory fails where /dev/shm is small.
    content = pickle.dumps(work)
    processes: list[BaseProcess] = []
    results: dict[int, T] = {}
    try:
        for _ in range(jobs):
            processes.append(start_process(_serve, (content, tasks, messages), threads=_THREADS))
        while len(results) < pieces:
            kind, piece, value = _next(messages, processes)
            if kind == "share":
                told(piece, value)
            elif kind == "result":
                results[piece] = value
                told(piece, 1.0)
            else:
                raise value
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    return [results[piece] for piece in range(pieces)]


def _next(messages: Any, processes: list[BaseProcess]) -> tuple[str, int, Any]:
    """Wait for a message, as long as there is a process that could send one."""
    while True:
        try:
            message: tuple[str, int, Any] = messages.get(timeout=_PATIENCE)
            return message
        except queue.Empty:
            dead = [process.exitcode for process in processes if process.exitcode]
            if dead:
                raise UserError(
                    f"a process ended with exit code {dead[0]} before its work was done, perhaps for lack of memory; "
                    "what is finished is kept, and fewer jobs at a time need less"
                ) from None


def _serve(content: bytes, tasks: Any, messages: Any) -> None:
    """Do pieces until there are no more; what a process of its own runs."""
    settle_in(_THREADS)
    parent = multiprocessing.parent_process()
    last = 0.0

    def report(piece: int, share: float) -> None:
        nonlocal last
        if share - last >= _STEP:
            last = share
            if parent is not None and not parent.is_alive():
                raise KeyboardInterrupt  # nobody is left to work for
            messages.put(("share", piece, share))

    try:
        work: Work[Any] = pickle.loads(content)
        while (piece := tasks.get()) is not None:
            last = 0.0
            try:
                messages.put(("result", piece, work(piece, partial(report, piece))))
            except UserError as error:
                messages.put(("error", piece, error))
            except Exception:
                messages.put(("error", piece, RuntimeError(traceback.format_exc())))
    except KeyboardInterrupt:
        # What was still to be said, nobody will hear, and a full pipe must not hold this process.
        messages.cancel_join_thread()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # on its way out, where nothing is left to put in order
