"""Pool of spawned processes, each with its own CPU threads and its own pipe.

A worker can be stopped anywhere, in the middle of a lock, too. So workers share no lock, not even those inside of a
queue (as ``concurrent.futures.ProcessPoolExecutor`` has it): each has a pipe of its own, which ends when either side
does.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.interrupts import never_lost

T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")

_THREADS = "OMP_NUM_THREADS"
_STOP_SECONDS = 60.0  # a worker that is stopped puts its files in order; this is far more than that takes
_ORPHAN_SECONDS = 5.0  # for the same where the parent was killed; nobody waits for it
_UNGUARDED = 97  # exit code of a process that was about to run the parent's script once more
_WORKER = "pymixunlearn-worker"
_GUARD = (
    'several processes need a script file whose own work stands under `if __name__ == "__main__":`, because each of '
    "them imports it; use that, or one process"
)
_UNSENDABLE = (
    "another process cannot take over this model or data ({reason}); several processes need classes and functions that "
    "stand at the top of a module, not inside of a function or of a main guard"
)


class Work(Protocol[T_contra, R_co]):
    """Function that workers run; picklable, and unpickled once in each worker."""

    def __call__(self, task: T_contra, send: Callable[[Any], None], /) -> R_co:
        """Do one task; ``send(event)`` passes something picklable on to the parent process."""


class WorkerEnded(Exception):
    """A worker's process ended before its task was done, with exit code ``code``."""

    def __init__(self, code: int | None) -> None:
        """Take the exit code."""
        super().__init__(f"its process ended with code {code}")
        self.code = code


class ProcessPool(Generic[T, R]):
    """Pool of worker processes that end with this one. As a context manager it ends in :meth:`close`.

    Args:
        work: What each worker does with a task.
        processes: How many tasks may run at the same time, at least 1.
        threads: CPU threads of each worker.
        fresh: Whether every task gets a new process, so that nothing that another one left in memory touches it.
    """

    def __init__(self, work: Work[T, R], processes: int, *, threads: int, fresh: bool = False) -> None:
        """Start no process yet."""
        self._work, self._count, self._threads, self._fresh = work, processes, threads, fresh
        self._processes: dict[Connection, BaseProcess] = {}  # by this side's end of the pipe

    def run(
        self, tasks: Iterable[T], on_event: Callable[[int, Any], None] = lambda index, event: None
    ) -> Iterator[tuple[int, Future[R]]]:
        """Do ``tasks`` and yield the index and the outcome of each, in the order in which they end.

        An outcome's ``result()`` returns what ``work`` returned or raises ``UserError`` (``work`` raised it),
        ``RuntimeError`` (``work`` raised anything else; the message holds the traceback) or ``WorkerEnded``. If the
        iteration is broken off, by an exception too, all workers are stopped. Workers stay for the next call.

        Args:
            tasks: Picklable; each is sent when a worker is free.
            on_event: Called with a task's index and with what its ``work`` sent.

        Raises:
            UserError: This program is not one that can start processes, or something cannot be sent to another one.
        """
        waiting = enumerate(tasks)
        idle, busy = list(self._processes), dict[Connection, int]()
        try:
            while True:
                while len(busy) < self._count and (following := next(waiting, None)) is not None:
                    worker = idle.pop() if idle else self._start()
                    busy[worker], task = following
                    self._send(worker, task)
                if not busy:
                    return
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    worker, message = ready, self._receive(ready)
                    if not isinstance(message, Future):
                        on_event(busy[worker], message)
                        continue
                    index = busy.pop(worker)
                    if worker in self._processes:
                        idle.append(worker)
                    yield index, message
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop all workers as Ctrl-C would, and wait for them; one that does not react within a minute is killed."""
        for process in self._processes.values():
            process.terminate()
        for worker in self._processes:
            worker.close()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._processes.clear()

    def __enter__(self) -> ProcessPool[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Connection:
        check_main_module()
        ours, theirs = multiprocessing.Pipe()
        # Not forked: a fork of a process that has used CUDA or OpenMP cannot use them. Its arguments are small: if it
        # ended before it read large ones, starting it would wait for ever.
        process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(self._threads, theirs), daemon=True, name=_WORKER
        )
        with _inherited(self._threads):
            process.start()
        self._processes[ours] = process
        theirs.close()  # the worker's copy is the only one now, and its end is read as the end of the file
        self._send(ours, self._work)
        return ours

    @staticmethod
    def _send(worker: Connection, message: Any) -> None:
        # Plain bytes: PyTorch's own way over shared memory fails where /dev/shm is small.
        try:
            content = pickle.dumps(message)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(_UNSENDABLE.format(reason=_first_line(error))) from error
        with suppress(OSError):  # the worker has ended, which receiving tells
            worker.send_bytes(content)

    def _receive(self, worker: Connection) -> Any:
        """Return an event, or the outcome of the worker's task; a worker that will do no other is let go."""
        try:
            message, outcome = pickle.loads(worker.recv_bytes())
        except (EOFError, OSError):
            code = self._let_go(worker)
            message, outcome = None, (None, UserError(_GUARD) if code == _UNGUARDED else WorkerEnded(code))
        if outcome is None:
            return message
        result, error = outcome
        if worker in self._processes and (self._fresh or error is not None):
            self._let_go(worker)
        done: Future[Any] = Future()
        done.set_result(result) if error is None else done.set_exception(error)
        return done

    def _let_go(self, worker: Connection) -> int | None:
        """End a worker that has nothing to do and return its exit code."""
        process = self._processes.pop(worker)
        worker.close()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode


def end_if_imported() -> None:
    """End this process if it is one of :class:`ProcessPool` that imports its parent's script, and runs its work again.

    Commands call it before they touch anything: the parent is at work in the same folders.
    """
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False) and process.name == _WORKER:
        sys.stdout.flush()
        os._exit(_UNGUARDED)


def check_main_module() -> None:
    """Check that the program can be imported by the processes that it starts.

    In a process that imports the script of its parent, and is about to run its work a second time, it ends the process.

    Raises:
        UserError: The program was piped to Python, so that there is no file to import.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.stdout.flush()
        os._exit(_UNGUARDED)
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and path is not None and not os.path.exists(path):
        raise UserError(_GUARD)


class ParentHandle:
    """The parent process as a worker sees it; once it is gone, the worker has no reason to go on.

    Args:
        connection: The worker's end of the pipe.
    """

    def __init__(self, connection: Connection) -> None:
        """Take the worker's end of the pipe."""
        self._connection = connection
        self._interrupted = self._ended = False

    def receive(self) -> Any:
        """Wait for a message and return it.

        Raises:
            KeyboardInterrupt: The parent is gone.
        """
        try:
            content = self._connection.recv_bytes()
        except (EOFError, OSError):
            self.end()
            raise KeyboardInterrupt from None
        return pickle.loads(content)

    def send(self, event: Any) -> None:
        """Send an event.

        Raises:
            KeyboardInterrupt: The parent is gone.
        """
        self._send((event, None))

    def finish(self, result: Any = None, error: Exception | None = None) -> None:
        """Send the outcome of a task.

        Raises:
            KeyboardInterrupt: The parent is gone.
        """
        self._send((None, (result, error)))

    def interrupt(self, *_: object) -> None:
        """Interrupt what this process is doing, as a handler of signals; only once, and not after :meth:`end`."""
        if not (self._interrupted or self._ended):
            self._interrupted = True
            raise KeyboardInterrupt

    def forget_interrupt(self) -> None:
        """Let :meth:`interrupt` do it once more: what it raised was lost."""
        self._interrupted = False

    def end(self) -> None:
        """From here on :meth:`interrupt` does nothing."""
        self._ended = True

    def _send(self, content: Any) -> None:
        try:
            self._connection.send_bytes(pickle.dumps(content))
        except OSError:
            self.end()
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


def _serve(threads: int, connection: Connection) -> None:
    """Do tasks for as long as there are any, or until one fails; what the process of a worker runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    parent = ParentHandle(connection)
    with suppress(KeyboardInterrupt), never_lost(signal.SIGTERM, parent.forget_interrupt):
        try:
            try:
                work = parent.receive()
            except Exception as error:
                raise UserError(_UNSENDABLE.format(reason=_first_line(error))) from error
            # From here on stopped means interrupted: files are closed and locks let go.
            signal.signal(signal.SIGTERM, parent.interrupt)
            while True:
                parent.finish(work(parent.receive(), parent.send))
        except UserError as error:
            parent.finish(error=error)
        except Exception:
            parent.finish(error=RuntimeError(traceback.format_exc()))
        parent.end()  # inside of the block: a signal comes before, and ends the block, or does nothing


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _end_with_parent() -> None:
    """Wait for the end of the parent process, by SIGKILL too; then stop this one as the parent would have done."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)  # the main thread is in a long computation, where no signal reaches Python


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
