"""Processes that work for this one: spawned, each with its CPU threads, stopped by this one and not by Ctrl-C.

A worker is interrupted wherever it is when it is stopped, in the middle of a lock, too. So workers share none, not even
the locks inside of a queue: each is heard through a pipe of its own, which ends when either side does.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from pymixunlearn.errors import UserError

_THREADS = "OMP_NUM_THREADS"
# A worker that is stopped puts its files in order; this is far more than that takes.
_PATIENCE = 60.0


class WorkerEnded(Exception):
    """A worker's process ended before it had said what it was to say, with exit code ``code``."""

    def __init__(self, code: int | None) -> None:
        """Take the exit code."""
        super().__init__(f"its process ended with code {code}")
        self.code = code


class Workers:
    """Processes that end with this one; a worker is known by this side's end of its pipe, to be waited for as such.

    As a context manager it ends in :meth:`close`.
    """

    def __init__(self) -> None:
        """Start none yet."""
        self._processes: dict[Connection, BaseProcess] = {}

    def start(self, target: Callable[..., None], *args: Any, threads: int) -> Connection:
        """Start ``target(*args, employer)`` in a process with ``threads`` CPU threads; all of it must be picklable."""
        ours, theirs = multiprocessing.Pipe()
        # Pickled here, as plain bytes: PyTorch's own way over shared memory fails where /dev/shm is small.
        content = pickle.dumps((target, args))
        # Not forked: a fork of a process that has used CUDA or OpenMP cannot use them.
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(content, threads, theirs), daemon=True
        )
        with _inherited(threads):
            process.start()
        self._processes[ours] = process
        theirs.close()  # the worker's copy is the only one now, and its end is heard as the end of the file
        return ours

    def send(self, worker: Connection, message: Any) -> None:
        """Send a message.

        Raises:
            WorkerEnded: There is nobody to hear it.
        """
        try:
            worker.send_bytes(pickle.dumps(message))
        except OSError:
            raise self._ended(worker) from None

    def receive(self, worker: Connection) -> Any:
        """Wait for a message and return it.

        Raises:
            WorkerEnded: None is left, and none will come.
            UserError: ``target`` raised it.
            RuntimeError: ``target`` raised anything else; the message holds the traceback.
        """
        try:
            message, error = pickle.loads(worker.recv_bytes())
        except (EOFError, OSError):
            raise self._ended(worker) from None
        if error is not None:
            raise error
        return message

    def dismiss(self, worker: Connection) -> None:
        """Wait for a worker that is about to end by itself."""
        self._processes.pop(worker).join()
        worker.close()

    def close(self) -> None:
        """Stop all workers as Ctrl-C would, and wait for them; one that does not react within a minute is killed."""
        for process in self._processes.values():
            process.terminate()
        for worker in self._processes:
            worker.close()
        deadline = time.monotonic() + _PATIENCE
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._processes.clear()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ended(self, worker: Connection) -> WorkerEnded:
        process = self._processes[worker]
        process.join()
        return WorkerEnded(process.exitcode)


class Employer:
    """The process that a worker works for, as the worker sees it; once it is gone, a worker has no reason to go on."""

    def __init__(self, connection: Connection) -> None:
        """Take the worker's end of the pipe."""
        self._connection = connection
        self._left = False

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            KeyboardInterrupt: The employer is gone.
        """
        self._send((message, None))

    def receive(self) -> Any:
        """Wait for a message and return it.

        Raises:
            KeyboardInterrupt: The employer is gone.
        """
        try:
            content = self._connection.recv_bytes()
        except (EOFError, OSError):
            self.part()
            raise KeyboardInterrupt from None
        return pickle.loads(content)

    def fail(self, error: Exception) -> None:
        """Send what is to be raised over there."""
        self._send((None, error))

    def leave(self, *_: object) -> None:
        """Interrupt what this process is doing, as a handler of signals; only once, and not if it knows already."""
        if not self._left:
            self._left = True
            raise KeyboardInterrupt

    def part(self) -> None:
        """Take it that all is done: from here on :meth:`leave` does nothing."""
        self._left = True

    def _send(self, content: tuple[Any, Exception | None]) -> None:
        try:
            self._connection.send_bytes(pickle.dumps(content))
        except OSError:
            self.part()
            raise KeyboardInterrupt from None


@contextmanager
def held_to_threads(threads: int) -> Iterator[None]:
    """Within the block PyTorch uses ``threads`` CPU threads in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _work(content: bytes, threads: int, connection: Connection) -> None:
    """Do what the employer wants; what the process of a worker runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    employer = Employer(connection)
    with suppress(KeyboardInterrupt):
        try:
            target, args = pickle.loads(content)
            # From here on stopped means interrupted: files are closed and locks let go.
            signal.signal(signal.SIGTERM, employer.leave)
            target(*args, employer)
        except UserError as error:
            employer.fail(error)
        except Exception:
            employer.fail(RuntimeError(traceback.format_exc()))
        employer.part()  # inside of the block: a signal comes before, and ends the block, or does nothing


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
