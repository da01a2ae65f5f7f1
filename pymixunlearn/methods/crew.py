"""Members of an ensemble that train side by side, in this process or in several.

Those that train in other processes end up the same, bit for bit: these use as many threads, and an epoch depends on
nothing but what it is sent.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait

import torch
from torch import Tensor, nn

from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods.members import Lessons, Member, Phase
from pymixunlearn.training.loop import StateDict, copied
from pymixunlearn.training.processes import Employer, WorkerEnded, Workers


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
        self._workers = Workers()
        self._hired: list[Connection] = []

    def epoch(self, members: Sequence[Member], epoch: int) -> Iterator[tuple[Member, Iterable[Tensor]]]:
        """Give each member its epoch: the member, and the losses of its steps, to be gone through before the next."""
        if self._processes == 1 or len(members) == 1:
            for member in members:
                yield member, self._here(member, epoch)
            return
        if not self._hired:
            self._hire(members[0].network)
        tasks = [self._task(member, epoch) for member in members]
        for member, (network, optimizer, losses, seconds) in zip(members, self._done(tasks), strict=True):
            member.network.load_state_dict(network)
            assert member.optimizer is not None  # made for the task
            member.optimizer.load_state_dict(optimizer)
            member.note(losses, seconds)
            yield member, losses.unbind()

    def close(self) -> None:
        """End the processes; what they were at is lost."""
        self._workers.close()
        self._hired = []

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
        pattern = copy.deepcopy(network).cpu()
        for _ in range(self._processes):
            self._hired.append(self._workers.start(_serve, lessons, pattern, threads=threads))

    def _task(self, member: Member, epoch: int) -> _Task:
        phase, place = member.turn(epoch)
        assert member.optimizer is not None
        state = copied([member.network.state_dict(), member.optimizer.state_dict()])
        return replace(phase, key=None), place, *state

    def _done(self, tasks: Sequence[_Task]) -> Iterator[_Answer]:
        """Hand the tasks out and yield what comes back, in their order."""
        waiting = iter(enumerate(tasks))
        at_work: dict[Connection, int] = {}
        answers: dict[int, _Answer] = {}

        def employ(worker: Connection) -> None:
            if (following := next(waiting, None)) is not None:
                at_work[worker], task = following
                self._workers.send(worker, task)

        try:
            for worker in self._hired:
                employ(worker)
            for index in range(len(tasks)):
                while index not in answers:
                    for ready in wait(list(at_work)):
                        assert isinstance(ready, Connection)
                        answers[at_work.pop(ready)] = self._workers.receive(ready)
                        employ(ready)
                yield answers.pop(index)
        except WorkerEnded as end:
            raise UserError(
                f"a process that trains a network ended with exit code {end.code}, perhaps for lack of memory; "
                "fewer processes need less"
            ) from None


_Task = tuple[Phase, int, StateDict, StateDict]
_Answer = tuple[StateDict, StateDict, Tensor, float]


def _serve(lessons: Lessons, network: nn.Module, employer: Employer) -> None:
    """Train epochs for as long as there are any; what a process of the crew runs."""
    lessons = replace(lessons, images=lessons.images.to(lessons.device))
    network.to(lessons.device)
    while True:
        employer.send(_epoch(lessons, network, *employer.receive()))


def _epoch(
    lessons: Lessons, network: nn.Module, phase: Phase, place: int, weights: StateDict, optimizer_state: StateDict
) -> _Answer:
    """Do one epoch of one member; returns its state, the losses of the steps and the seconds."""
    network.load_state_dict(weights)
    optimizer = lessons.optimizer(network)
    optimizer.load_state_dict(optimizer_state)
    start = time.perf_counter()
    losses = torch.stack(list(lessons.epoch(network, optimizer, phase, place)))
    state = copied([network.state_dict(), optimizer.state_dict(), losses])
    return *state, time.perf_counter() - start
