"""Training of an ensemble's members side by side, in this process or in several.

Members that train in other processes end up the same, bit for bit: these use as many threads, and an epoch depends on
nothing but what it is sent.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods.sisa.member import Member, Phase, TrainingSetup
from pymixunlearn.training.loop import StateDict, copied
from pymixunlearn.training.process_pool import ProcessPool, WorkerEnded


class EpochTask(NamedTuple):
    """One epoch of one member: the phase, the epoch's index in it, and the states it starts from."""

    phase: Phase
    epoch: int
    network: StateDict
    optimizer: StateDict


class EpochResult(NamedTuple):
    """The states after an epoch, the losses of its steps, float [steps], and what it took."""

    network: StateDict
    optimizer: StateDict
    losses: Tensor
    seconds: float


class MemberPool:
    """Trains members, one after the other or several at a time.

    Args:
        setup: What the training of all networks has in common.
        processes: How many epochs may run at the same time; 1 stays in this process. Each holds a copy of the images.

    Raises:
        UserError: More than one process for images that stay in a file, or in a process that must not start others.
    """

    def __init__(self, setup: TrainingSetup, processes: int) -> None:
        """Start no process yet."""
        if processes > 1 and isinstance(setup.images, StreamedImageSet):
            raise UserError(f"processes is {processes}, but the images are streamed from a file; expected 1")
        if processes > 1 and multiprocessing.current_process().daemon:
            raise UserError(f"processes is {processes}, but this run is one of several at a time itself; expected 1")
        self._setup, self._processes = setup, processes
        self._pool: ProcessPool[EpochTask, EpochResult] | None = None

    def epoch(self, members: Sequence[Member], epoch: int) -> Iterator[tuple[Member, Iterable[Tensor]]]:
        """Give each member its epoch: the member, and the losses of its steps, to be gone through before the next."""
        if self._processes == 1 or len(members) == 1:
            for member in members:
                yield member, self._here(member, epoch)
            return
        if self._pool is None:
            self._pool = self._start(members[0].network)
        for member, done in zip(members, self._in_order(self._pool, members, epoch), strict=True):
            member.network.load_state_dict(done.network)
            assert member.optimizer is not None  # made for the task
            member.optimizer.load_state_dict(done.optimizer)
            member.note(done.losses, done.seconds)
            yield member, done.losses.unbind()

    def close(self) -> None:
        """End the processes; what they were at is lost."""
        if self._pool is not None:
            self._pool.close()

    def _here(self, member: Member, epoch: int) -> Iterator[Tensor]:
        phase, index = member.turn(epoch)
        assert member.optimizer is not None
        losses, start = [], time.perf_counter()
        for loss in self._setup.epoch(member.network, member.optimizer, phase, index):
            losses.append(loss)
            yield loss
        member.note(torch.stack(losses), time.perf_counter() - start)

    def _start(self, network: nn.Module) -> ProcessPool[EpochTask, EpochResult]:
        setup = replace(self._setup, images=self._setup.images.to("cpu"))
        work = EpochWork(setup, copy.deepcopy(network).cpu())
        return ProcessPool(work, self._processes, threads=torch.get_num_threads())

    @staticmethod
    def _task(member: Member, epoch: int) -> EpochTask:
        phase, index = member.turn(epoch)
        assert member.optimizer is not None
        network, optimizer = copied([member.network.state_dict(), member.optimizer.state_dict()])
        return EpochTask(replace(phase, key=None), index, network, optimizer)

    def _in_order(
        self, pool: ProcessPool[EpochTask, EpochResult], members: Sequence[Member], epoch: int
    ) -> Iterator[EpochResult]:
        """Yield the results in the order of ``members``."""
        early: dict[int, EpochResult] = {}
        following = 0
        for index, done in pool.run([self._task(member, epoch) for member in members]):
            try:
                early[index] = done.result()
            except WorkerEnded as end:
                raise UserError(
                    f"a process that trains a network ended with exit code {end.code}, perhaps for lack of memory; "
                    "fewer processes need less"
                ) from None
            while following in early:
                yield early.pop(following)
                following += 1


class EpochWork:
    """An epoch of one member as a worker process does it.

    Args:
        setup: What the training of all networks has in common, its images on the CPU.
        network: Any network of the members' architecture.
    """

    def __init__(self, setup: TrainingSetup, network: nn.Module) -> None:
        """Leave everything on the CPU: it is yet to be sent."""
        self._setup, self._network, self._ready = setup, network, False

    def __call__(self, task: EpochTask, send: Callable[[Any], None]) -> EpochResult:
        """Do one epoch."""
        if not self._ready:
            self._setup = replace(self._setup, images=self._setup.images.to(self._setup.device))
            self._network.to(self._setup.device)
            self._ready = True
        self._network.load_state_dict(task.network)
        optimizer = self._setup.optimizer(self._network)
        optimizer.load_state_dict(task.optimizer)
        start = time.perf_counter()
        losses = torch.stack(list(self._setup.epoch(self._network, optimizer, task.phase, task.epoch)))
        network, state, losses = copied([self._network.state_dict(), optimizer.state_dict(), losses])
        return EpochResult(network, state, losses, time.perf_counter() - start)
