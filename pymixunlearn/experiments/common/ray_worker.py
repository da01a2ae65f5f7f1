"""A task on a worker of Ray, and the actor through which workers and the calling process talk."""

from __future__ import annotations

import os
import pickle
import platform
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

import pymixunlearn
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.cache_exchange import exchanging
from pymixunlearn.experiments.common.placement import require_ray
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.shipping import Source, install, unpack
from pymixunlearn.training.device import processor_name
from pymixunlearn.training.process_pool import held_to_threads

_FLUSH_SECONDS = 0.5
_ASK_SECONDS = 0.2


def versions() -> dict[str, str]:
    """Return what has to be the same on all machines for tasks to give the same everywhere."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "pymixunlearn": pymixunlearn.__version__,
        "torch": str(torch.__version__),
    }


@dataclass(frozen=True)
class Common:
    """What all tasks of a pool have in common.

    Attributes:
        work: What each does, packed.
        sources: The user's modules.
        versions: Those of the calling process.
        threads: CPU threads of each task.
    """

    work: bytes
    sources: Mapping[str, Source]
    versions: Mapping[str, str]
    threads: int


class Place(NamedTuple):
    """Where a task ran: the machine's name and its processor."""

    node: str
    processor: str


class News(NamedTuple):
    """What workers have told the desk since it was asked last.

    Attributes:
        events: By the task's number, in order.
        wanted: Names of entries of the cache that a worker waits for.
        made: Entries of the cache that were made.
    """

    events: list[tuple[int, Any]]
    wanted: list[str]
    made: list[tuple[str, dict[str, bytes]]]


class Desk:
    """Actor that passes events and entries of the cache on between workers and the calling process, which asks it.

    Args:
        known: Entries that the calling process has.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._known = set(known)
        self._makers: dict[str, int] = {}
        self._supplied: dict[str, Any] = {}
        self._wanted: dict[str, None] = {}
        self._events: list[tuple[int, Any]] = []
        self._made: list[tuple[str, dict[str, bytes]]] = []

    def post(self, events: list[tuple[int, Any]]) -> None:
        """Take events, each with its task's number."""
        self._events.extend(events)

    def ask(self, name: str, attempt: int, to_make: bool) -> tuple[str, list[Any]]:
        """Say of an entry that it is "here" (with a reference to its files), "coming", or to be "made" by the asker.

        An entry that nobody has, and that is not to be made, is "absent".
        """
        if name in self._supplied:
            return "here", [self._supplied[name]]
        if name in self._known:
            self._wanted[name] = None
            return "coming", []
        if not to_make:
            return "absent", []
        maker = self._makers.setdefault(name, attempt)
        return ("made" if maker == attempt else "coming"), []

    def give(self, name: str, files: dict[str, bytes]) -> None:
        """Take an entry that was made; without files it was not."""
        self._makers.pop(name, None)
        if files:
            self._known.add(name)
            self._supplied.pop(name, None)
            self._made.append((name, files))

    def supply(self, name: str, reference: list[Any]) -> None:
        """Take a reference to the files of an entry that was wanted; none says that it is not there after all."""
        self._wanted.pop(name, None)
        if reference:
            self._supplied[name] = reference[0]
        else:
            self._known.discard(name)

    def release(self, attempt: int) -> None:
        """Forget an attempt that has ended: what it was to make, another makes."""
        self._makers = {name: maker for name, maker in self._makers.items() if maker != attempt}

    def take(self) -> News:
        """Return what is new."""
        news = News(self._events, list(self._wanted), self._made)
        self._events, self._made = [], []
        return news


class DeskExchange:
    """The way to the caches, by the desk; see :class:`~.cache_exchange.Exchange`."""

    def __init__(self, desk: Any, attempt: int) -> None:
        self._desk, self._attempt = desk, attempt

    def bring(self, name: str, *, to_make: bool) -> Mapping[str, bytes]:
        """Return the files of an entry, waiting while another worker makes it."""
        get = require_ray().get
        while True:
            state, reference = get(self._desk.ask.remote(name, self._attempt, to_make))
            if state == "here":
                files: Mapping[str, bytes] = get(reference[0])
                return files
            if state != "coming":
                return {}
            time.sleep(_ASK_SECONDS)

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        """Hand an entry over."""
        # Waited for: this process may end with its task.
        require_ray().get(self._desk.give.remote(name, dict(files)))


class _Post:
    """Sends a task's events to the desk, twice a second at most."""

    def __init__(self, desk: Any, task: int) -> None:
        self._desk, self._task = desk, task
        self._waiting: list[tuple[int, Any]] = []
        self._lock = threading.Lock()

    def send(self, event: Any) -> None:
        with self._lock:
            self._waiting.append((self._task, event))

    def flush(self) -> None:
        with self._lock:
            events, self._waiting = self._waiting, []
        if events:
            require_ray().get(self._desk.post.remote(events))

    @contextmanager
    def open(self) -> Iterator[Callable[[Any], None]]:
        """Give the function that sends."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(_FLUSH_SECONDS):
                self.flush()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield self.send
        finally:
            ended.set()
            thread.join()
            self.flush()


def serve(
    common: list[Any], images: list[Any], content: bytes, desk: Any, task: int, attempt: int
) -> tuple[bytes | None, Exception | None, Place]:
    """Do one task, in a process of Ray.

    Args:
        common: A reference to the :class:`Common`.
        images: References to images, by number.
        content: The task, packed.
        desk: The :class:`Desk`.
        task: Its number.
        attempt: A number of this attempt alone.

    Returns:
        The pickled result or the error, and where it ran.
    """
    place = Place(platform.node(), processor_name() or platform.machine())
    try:
        get = require_ray().get
        shared: Common = get(common[0])
        _check_versions(shared.versions, place)
        install(shared.sources)
        load_plugins(())

        def image(number: int) -> Any:
            return get(images[number])

        threads = shared.threads
        with (
            _own_cache(),
            held_to_threads(threads),
            threadpool_limits(threads),
            exchanging(DeskExchange(desk, attempt)),
            _Post(desk, task).open() as send,
        ):
            work, one = unpack(shared.work, image), unpack(content, image)
            return pickle.dumps(work(one, send)), None, place
    except UserError as error:
        return None, error, place
    except Exception:
        return None, RuntimeError(traceback.format_exc()), place


def _check_versions(expected: Mapping[str, str], place: Place) -> None:
    here = versions()
    for name, version in expected.items():
        if here[name] != version:
            raise UserError(
                f"machine '{place.node}' of the cluster has {name} {here[name]}; expected {version}, as here: other "
                "versions round differently"
            )


@contextmanager
def _own_cache() -> Iterator[None]:
    """Have an empty folder in place of the cache, and no output: what there is to say goes to the desk."""
    before = os.environ.get("PYMIXUNLEARN_CACHE")
    with tempfile.TemporaryDirectory(prefix="pymixunlearn-") as folder:
        os.environ["PYMIXUNLEARN_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYMIXUNLEARN_CACHE"]
            else:
                os.environ["PYMIXUNLEARN_CACHE"] = before
