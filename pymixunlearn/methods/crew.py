"""Members of an ensemble that train side by side, in this process or in several.

Those that train in other processes end up the same, bit for bit: these use as many threads, and an epoch depends on
nothing but what it is sent.
"""

from __future__ import annotations

import atexit
import copy
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods.members import Lessons, Member
from pymixunlearn.training.loop import copied


class Crew:
    """Trains members, one after the other or several at a time.

    Args:
        lessons: What the training of all networks has in common.
        processes: How many epochs may run at the same time; 1 stays in this process. Each holds a copy of the images.

    Raises:
        UserError: More than one process for images that stay in a file.
    """

    def __init__(self, lessons: Lessons, processes: int) -> None:
        """Start nothing yet."""
        if processes > 1 and isinstance(lessons.images, StreamedImageSet):
            raise UserError(f"processes is {processes}, but the images are streamed from a file; expected 1")
        self._lessons, self._processes = lessons, processes
        self._pool: ProcessPoolExecutor | None = None
        self._leave: Event | None = None

    def epoch(self, members: Sequence[Member], epoch: int) -> Iterator[tuple[Member, Iterable[Tensor]]]:
        """Give each member its epoch: the member, and the losses of its steps, to be gone through before the next."""
        if self._processes == 1 or len(members) == 1:
            for member in members:
                yield member, self._here(member, epoch)
            return
        coming = [(member, self._elsewhere(member, epoch)) for member in members]
        for member, future in coming:
            network, optimizer, losses, seconds = pickle.loads(future.result())
            member.network.load_state_dict(network)
            assert member.optimizer is not None  # made when the epoch was sent out
            member.optimizer.load_state_dict(optimizer)
            member.note(losses, seconds)
            yield member, losses.unbind()

    def close(self) -> None:
        """End the processes; what they were at is lost."""
        if self._pool is not None and self._leave is not None:
            self._leave.set()
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _here(self, member: Member, epoch: int) -> Iterator[Tensor]:
        phase, place = member.turn(epoch)
        assert member.optimizer is not None
        losses, start = [], time.perf_counter()
        for loss in self._lessons.epoch(member.network, member.optimizer, phase, place):
            losses.append(loss)
            yield loss
        member.note(torch.stack(losses), time.perf_counter() - start)

    def _elsewhere(self, member: Member, epoch: int) -> Future[bytes]:
        phase, place = member.turn(epoch)
        assert member.optimizer is not None
        if self._pool is None:
            self._pool = self._start(member.network)
        state = copied([member.network.state_dict(), member.optimizer.state_dict()])
        return self._pool.submit(_epoch, pickle.dumps((replace(phase, key=None), place, *state)))

    def _start(self, network: nn.Module) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of threads that it has not
        self._leave = context.Event()
        lessons = replace(self._lessons, images=self._lessons.images.to("cpu"))
        # Pickled here: multiprocessing's own way puts tensors into shared memory, of which containers have little.
        content = pickle.dumps((lessons, copy.deepcopy(network).cpu()))
        return ProcessPoolExecutor(
            self._processes, context, initializer=_enter, initargs=(content, torch.get_num_threads(), self._leave)
        )


class _Place(NamedTuple):
    """What a process of the crew has at hand."""

    lessons: Lessons
    network: nn.Module
    leave: Event


_place: _Place | None = None


def _enter(content: bytes, threads: int, leave: Event) -> None:
    """Get a new process of the crew ready."""
    global _place
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the one that started us decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    atexit.register(os._exit, 0)  # nobody should wait for PyTorch to be taken down in order
    torch.set_num_threads(threads)
    lessons, network = pickle.loads(content)
    device = lessons.device
    _place = _Place(replace(lessons, images=lessons.images.to(device)), network.to(device), leave)


def _end_with_parent() -> None:
    """End this process when the one that started it was killed and cannot say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _epoch(task: bytes) -> bytes:
    """Do one epoch of one member; returns its state, the losses of the steps and the seconds."""
    assert _place is not None  # _enter ran first
    lessons, network, leave = _place
    phase, place, weights, optimizer_state = pickle.loads(task)
    network.load_state_dict(weights)
    optimizer = lessons.optimizer(network)
    optimizer.load_state_dict(optimizer_state)
    losses, start = [], time.perf_counter()
    for loss in lessons.epoch(network, optimizer, phase, place):
        losses.append(loss)
        if leave.is_set():
            break
    state = copied([network.state_dict(), optimizer.state_dict(), torch.stack(losses)])
    return pickle.dumps((*state, time.perf_counter() - start))
