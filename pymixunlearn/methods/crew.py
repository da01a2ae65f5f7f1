"""Members of an ensemble that train side by side, in this process or in several.

Those that train in other processes end up the same, bit for bit: these use as many threads, and an epoch depends on
nothing but what it is sent.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from torch import Tensor, nn

from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods.members import Lessons, Member
from pymixunlearn.training.loop import copied
from pymixunlearn.training.processes import settle_in, start_process


class Crew:
    """Trains members, one after the other or several at a time.

    Args:
        lessons: What the training of all networks has in common.
        processes: How many epochs may run at the same time; 1 stays in this process. Each holds a copy of the images.

    Raises:
        UserError: More than one process for images that stay in a file, or in a process that must not start others.
    """

    def __init__(self, lessons: Lessons, processes: int) -> None:
        """Start nothing yet."""
        if processes > 1 and isinstance(lessons.images, StreamedImageSet):
            raise UserError(f"processes is {processes}, but the images are streamed from a file; expected 1")
        if processes > 1 and multiprocessing.current_process().daemon:
            raise UserError(f"processes is {processes}, but this run is one of several at a time itself; expected 1")
        self._lessons, self._processes = lessons, processes
        self._hired: dict[Connection, BaseProcess] = {}

    def epoch(self, members: Sequence[Member], epoch: int) -> Iterator[tuple[Member, Iterable[Tensor]]]:
        """Give each member its epoch: the member, and the losses of its steps, to be gone through before the next."""
        if self._processes == 1 or len(members) == 1:
            for member in members:
                yield member, self._here(member, epoch)
            return
        if not self._hired:
            self._hire(members[0].network)
        tasks = [self._task(member, epoch) for member in members]
        for member, content in zip(members, self._done(tasks), strict=True):
            network, optimizer, losses, seconds = pickle.loads(content)
            member.network.load_state_dict(network)
            assert member.optimizer is not None  # made for the task
            member.optimizer.load_state_dict(optimizer)
            member.note(losses, seconds)
            yield member, losses.unbind()

    def close(self) -> None:
        """End the processes; what they were at is lost."""
        for process in self._hired.values():
            process.terminate()
        for connection, process in self._hired.items():
            connection.close()
            process.join()
        self._hired = {}

    def _here(self, member: Member, epoch: int) -> Iterator[Tensor]:
        phase, place = member.turn(epoch)
        assert member.optimizer is not None
        losses, start = [], time.perf_counter()
        for loss in self._lessons.epoch(member.network, member.optimizer, phase, place):
            losses.append(loss)
            yield loss
        member.note(torch.stack(losses), time.perf_counter() - start)

    def _hire(self, network: nn.Module) -> None:
        threads = torch.get_num_threads()
        lessons = replace(self._lessons, images=self._lessons.images.to("cpu"))
        # Pickled here, as plain bytes: PyTorch's own way over shared memory fails where /dev/shm is small.
        content = pickle.dumps((lessons, copy.deepcopy(network).cpu()))
        for _ in range(self._processes):
            ours, theirs = multiprocessing.Pipe()
            self._hired[ours] = start_process(_serve, (content, threads, theirs), threads=threads)
            theirs.close()  # the process's copy is the only one now, and its end is heard as the end of the file

    def _task(self, member: Member, epoch: int) -> bytes:
        phase, place = member.turn(epoch)
        assert member.optimizer is not None
        state = copied([member.network.state_dict(), member.optimizer.state_dict()])
        return pickle.dumps((replace(phase, key=None), place, *state))

    def _done(self, tasks: Sequence[bytes]) -> Iterator[bytes]:
        """Hand the tasks out and yield what comes back, in their order."""
        waiting = iter(enumerate(tasks))
        at_work: dict[Connection, int] = {}
        answers: dict[int, bytes] = {}

        def employ(connection: Connection) -> None:
            index, task = next(waiting, (None, b""))
            if index is not None:
                try:
                    connection.send_bytes(task)
                except OSError:
                    raise self._lost(connection) from None
                at_work[connection] = index

        for connection in self._hired:
            employ(connection)
        for index in range(len(tasks)):
            while index not in answers:
                for ready in wait(list(at_work)):
                    assert isinstance(ready, Connection)
                    answers[at_work.pop(ready)] = self._hear(ready)
                    employ(ready)
            yield answers.pop(index)

    def _hear(self, connection: Connection) -> bytes:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            raise self._lost(connection) from None
        if message.startswith(_TROUBLE):
            raise RuntimeError(message.removeprefix(_TROUBLE).decode())
        return message

    def _lost(self, connection: Connection) -> UserError:
        process = self._hired[connection]
        process.join()
        return UserError(
            f"a process that trains a network ended with exit code {process.exitcode}, perhaps for lack of memory; "
            "fewer processes need less"
        )


_TROUBLE = b"trouble "


def _serve(content: bytes, threads: int, connection: Connection) -> None:
    """Train epochs for as long as there are any; what a process of the crew runs."""
    settle_in(threads)
    # EOFError, OSError: the process that wanted to know is gone.
    with suppress(KeyboardInterrupt, EOFError, OSError):
        try:
            lessons, network = pickle.loads(content)
            lessons = replace(lessons, images=lessons.images.to(lessons.device))
            network.to(lessons.device)
            while True:
                connection.send_bytes(_epoch(lessons, network, connection.recv_bytes()))
        except (EOFError, OSError):
            raise
        except Exception:
            connection.send_bytes(_TROUBLE + traceback.format_exc().encode())
    os._exit(0)  # nobody is to wait until PyTorch has put everything in order


def _epoch(lessons: Lessons, network: nn.Module, task: bytes) -> bytes:
    """Do one epoch of one member; returns its state, the losses of the steps and the seconds."""
    phase, place, weights, optimizer_state = pickle.loads(task)
    network.load_state_dict(weights)
    optimizer = lessons.optimizer(network)
    optimizer.load_state_dict(optimizer_state)
    start = time.perf_counter()
    losses = torch.stack(list(lessons.epoch(network, optimizer, phase, place)))
    state = copied([network.state_dict(), optimizer.state_dict(), losses])
    return pickle.dumps((*state, time.perf_counter() - start))
