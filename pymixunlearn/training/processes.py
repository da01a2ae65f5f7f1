"""Processes that work beside this one: spawned, each with its CPU threads, stopped by this one and not by Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch

_THREADS = "OMP_NUM_THREADS"


def start_process(target: Callable[..., None], args: tuple[Any, ...], *, threads: int) -> BaseProcess:
    """Start ``target(*args)`` in a process of its own, which ends with this one; it is to call :func:`settle_in` first.

    ``terminate()`` stops it as Ctrl-C would: ``target`` sees a ``KeyboardInterrupt``.
    """
    # Not forked: a fork of a process that has used CUDA or OpenMP cannot use them.
    process = multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)
    with _inherited(threads):
        process.start()
    return process


def settle_in(threads: int) -> None:
    """Set up a process that :func:`start_process` started: its threads, and what signals mean to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Stopped means interrupted: files are closed and locks let go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(threads)


@contextmanager
def held_to_threads(threads: int) -> Iterator[None]:
    """Within the block PyTorch uses ``threads`` CPU threads in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """What a new process takes over: the number of threads, for every library, and deafness to Ctrl-C.

    A terminal sends Ctrl-C to all processes at once; this one is to stop the others, in its own time.
    """
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = str(threads)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before
