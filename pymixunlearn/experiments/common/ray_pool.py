"""Pool of tasks on a cluster of Ray: as :class:`pymixunlearn.training.process_pool.ProcessPool`, on many machines.

Tasks, the user's modules and images go to the workers through Ray's object store, and results come back through it, so
that no file system is shared. A task whose worker is lost is given out again.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pickle import loads
from typing import Any, Generic, TypeVar

from torch import Tensor

from pymixunlearn.cores import usable_cores
from pymixunlearn.data import cache_dir
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.cache_exchange import entry_names, read_entry, write_entry
from pymixunlearn.experiments.common.placement import Placement, require_ray
from pymixunlearn.experiments.common.ray_worker import Common, Desk, News, Place, serve, versions
from pymixunlearn.experiments.common.shipping import pack, user_modules
from pymixunlearn.training.cache import warn_not_stored
from pymixunlearn.training.process_pool import Work, WorkerEnded

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3
"""How often a task is given out before its workers' ends are blamed on it."""
_POLL_SECONDS = 0.25
_CANCEL_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
_CONNECT_HINT = "expected a running cluster (`ray start`), and RAY_AUTH_MODE and its token as there"


class WorkerLost(WorkerEnded):
    """Every worker that a task was given to was lost."""

    def __init__(self, reason: str) -> None:
        """Take what Ray says of the last one."""
        Exception.__init__(self, f"{ATTEMPTS} workers were lost over it, the last since {reason}")
        self.code = None


class RayPool(Generic[T, R]):
    """Pool of tasks on a cluster. As a context manager it ends in :meth:`close`.

    Args:
        work: What is done with a task.
        placement: Where.
        jobs: How many tasks may run at the same time; None means as many as there is room for.
        threads: CPU threads of each task, which are the CPUs that it declares.
        device: Where tasks compute, which says whether they declare GPUs.
        fresh: Whether every task gets a new process.
        on_lost: Called with a task's number and the reason where its worker is lost and it is given out again.

    Attributes:
        places: Where each task ran that has ended, by its number.

    Raises:
        BadRequest: GPUs and device contradict each other.
        UserError: Ray is not installed, there is no such cluster, or none of its machines is large enough.
    """

    def __init__(
        self,
        work: Work[T, R],
        placement: Placement,
        jobs: int | None,
        *,
        threads: int,
        device: str = "cpu",
        fresh: bool = False,
        on_lost: Callable[[int, str], None] = lambda task, reason: None,
    ) -> None:
        """Connect to the cluster."""
        self.places: dict[int, Place] = {}
        self._jobs, self._on_lost = jobs, on_lost
        self._images: list[Any] = []
        self._shared: dict[int, tuple[int, Tensor]] = {}
        self._entries: list[Any] = []
        self._attempts = itertools.count()
        self._busy: dict[Any, tuple[int, int, int]] = {}
        gpus = placement.gpus_on(device)
        self._ray = require_ray()
        self._owned = _connect(self._ray, placement, threads)
        try:
            _check_room(self._ray, threads, gpus)
            kept = {} if not fresh else {"max_calls": 1}
            self._serve = self._ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0, **kept)(serve)
            self._desk = self._open_desk()
            common = Common(self._pack(work), user_modules(), versions(), threads)
            self._common = self._ray.put(common)
        except BaseException:
            self._disconnect()
            raise

    def run(
        self, tasks: Iterable[T], on_event: Callable[[int, Any], None] = lambda index, event: None
    ) -> Iterator[tuple[int, Future[R]]]:
        """Do ``tasks`` and yield the index and the outcome of each, in the order in which they end.

        As of :meth:`ProcessPool.run`; ``WorkerEnded`` is a :class:`WorkerLost`.
        """
        waiting = enumerate(tasks)
        again: list[tuple[int, int, bytes]] = []
        contents: dict[int, bytes] = {}
        try:
            while True:
                while self._jobs is None or len(self._busy) < self._jobs:
                    if again:
                        index, tries, content = again.pop(0)
                    elif (following := next(waiting, None)) is not None:
                        index, tries, content = following[0], 0, self._pack(following[1])
                    else:
                        break
                    contents[index] = content
                    self._submit(index, tries, content)
                if not self._busy:
                    return
                ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_POLL_SECONDS)
                for index, event in self._news().events:
                    on_event(index, event)
                for reference in ready:
                    index, tries, attempt = self._busy.pop(reference)
                    self._desk.release.remote(attempt)
                    done, lost = self._outcome(index, reference)
                    if lost is not None and tries + 1 < ATTEMPTS:
                        self._on_lost(index, lost)
                        again.append((index, tries + 1, contents[index]))
                        continue
                    if lost is not None:
                        done.set_exception(WorkerLost(lost))
                    del contents[index]
                    for other, event in self._news().events:  # what it has sent before it ended
                        on_event(other, event)
                    yield index, done
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what still runs, as Ctrl-C would, and leave the cluster, or end it if it was started here."""
        if not self._ray.is_initialized():
            return
        try:
            with suppress(Exception):  # whatever has become of the cluster
                self._cancel()
        finally:
            self._busy.clear()
            self._disconnect()

    def __enter__(self) -> RayPool[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pack(self, value: Any) -> bytes:
        return pack(value, self._ray.cloudpickle.Pickler, self._share)

    def _share(self, images: Tensor) -> int:
        """Put images into the object store, once, and return their number."""
        if id(images) not in self._shared:
            self._shared[id(images)] = len(self._images), images  # kept, so that no other gets its id
            self._images.append(self._ray.put(images.detach().contiguous().numpy()))
        return self._shared[id(images)][0]

    def _submit(self, index: int, tries: int, content: bytes) -> None:
        attempt = next(self._attempts)
        arguments = ([self._common], list(self._images), content, self._desk, index, attempt)
        self._busy[self._serve.remote(*arguments)] = index, tries, attempt

    def _outcome(self, index: int, reference: Any) -> tuple[Future[R], str | None]:
        """Return a task's outcome, or why its worker was lost."""
        failures = self._ray.exceptions
        lost = (
            failures.WorkerCrashedError,
            failures.NodeDiedError,
            failures.LocalRayletDiedError,
            failures.OutOfMemoryError,
            failures.ObjectLostError,
        )
        done: Future[Any] = Future()
        try:
            result, error, place = self._ray.get(reference)
        except lost as end:
            return done, _reason(end)
        except failures.TaskCancelledError:  # by somebody else
            return done, "it was cancelled"
        except failures.RayError as problem:
            done.set_exception(UserError(f"a task could not run on the cluster ({_reason(problem)})"))
            return done, None
        self.places[index] = place
        done.set_result(loads(result)) if error is None else done.set_exception(error)
        return done, None

    def _open_desk(self) -> Any:
        """Start the desk on the machine that this process is connected to: it lives as long as that does."""
        here = self._ray.get_runtime_context().get_node_id()
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        actor = self._ray.remote(Desk).options(num_cpus=0, scheduling_strategy=strategy)
        return actor.remote(sorted(entry_names()))

    def _news(self) -> News:
        """Take what is new at the desk, put entries into the cache, and supply those that are wanted."""
        try:
            news: News = self._ray.get(self._desk.take.remote())
        except self._ray.exceptions.RayActorError as error:
            raise UserError(
                f"the machine of the cluster that this one is connected to was lost ({_reason(error)}); what is "
                "finished is saved"
            ) from error
        for name, files in news.made:
            self._store(name, files)
        for name in news.wanted:
            files = read_entry(name)
            references = [self._ray.put(files)] if files else []
            self._entries.extend(references)
            self._desk.supply.remote(name, references)
        return news

    def _store(self, name: str, files: Mapping[str, bytes]) -> None:
        try:
            write_entry(name, files)
        except UserError as error:  # a cache that is full or read-only costs time, not the result
            kind = name.partition("/")[0]
            warn_not_stored(cache_dir() / kind, kind, error)
            reference = self._ray.put(dict(files))
            self._entries.append(reference)
            self._desk.supply.remote(name, [reference])

    def _cancel(self) -> None:
        if not self._busy:
            return
        left = list(self._busy)
        for reference in left:
            self._ray.cancel(reference, force=False)
        _, left = self._ray.wait(left, num_returns=len(left), timeout=_CANCEL_SECONDS)
        for reference in left:
            self._ray.cancel(reference, force=True)

    def _disconnect(self) -> None:
        if self._owned:
            self._ray.shutdown()
        elif hasattr(self, "_desk"):
            self._ray.kill(self._desk)


def _connect(ray: Any, placement: Placement, threads: int) -> bool:
    """Connect to the cluster; tell whether this pool is what did it."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Pages of a lost machine's log, which no option of Ray's keeps off the screen; that it was lost is said otherwise.
    ray._private.worker._worker_logs_enabled = False
    address = placement.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _check_listening(address)
            ray.init(address, **quiet)
        else:
            # Of this machine alone, so nothing listens to others.
            cpus = max(usable_cores(), threads)
            ray.init("local", num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except Exception as error:  # Ray raises that class itself where its processes do not start in time
        if not address:
            raise UserError(f"Ray cannot be started on this machine ({_reason(error)})") from error
        raise UserError(f"there is no cluster of Ray at {address} ({_reason(error)}); {_CONNECT_HINT}") from error
    return True


def _check_listening(address: str) -> None:
    """Check that something listens there: Ray would try again and again.

    Raises:
        OSError: Nothing does.
    """
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _check_room(ray: Any, threads: int, gpus: float) -> None:
    """Check that a task finds room on some machine: Ray would wait for one for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(machine.get("CPU", 0) >= threads and machine.get("GPU", 0) >= gpus for machine in machines):
        return
    largest = max(((machine.get("CPU", 0), machine.get("GPU", 0)) for machine in machines), default=(0, 0))
    raise UserError(
        f"a task declares {threads} CPUs and {gpus:g} GPUs, and no machine of the cluster has them; the largest has "
        f"{largest[0]:g} CPUs and {largest[1]:g} GPUs"
    )


def _reason(error: BaseException) -> str:
    """Return the first sentence of what Ray says; the others name files of its own."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first.partition(". ")[0].rstrip(".")
