"""One training on many processes: each works on a part of every batch, and together they do what one would do.

torchrun starts the processes. Process 0 runs the program in :func:`lead`. The others wait in :func:`serve`; where
process 0 comes to a function that is :func:`shared`, they are sent its arguments and call it too. In there, every
process draws the same random numbers, and batches are divided (:mod:`pymixunlearn.divided`). The functions here do
nothing where there is one process.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from pymixunlearn.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

_SHARED: dict[str, Callable[..., Any]] = {}


class State:
    """What this process is doing.

    Attributes:
        count: How many processes there are; 1 outside of :func:`lead` and :func:`serve`.
        working: Whether it is in a shared function.
        resting: Whether networks run on whole batches meanwhile, in this process alone.
        lost: Whether an error may have left the others waiting for this process.
    """

    count = 1
    working = False
    resting = False
    lost = False


class Ended(Exception):
    """Process 0 has left a shared function, so the others do."""


def processes() -> int:
    """Return how many processes train together.

    Example:
        >>> processes()
        1
    """
    return State.count


def dividing() -> bool:
    """Tell whether batches are divided among several processes right now."""
    return State.working and not State.resting


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process, of the kind that process 0 has.

    Raises:
        UserError: A GPU is named that is not this process's own.
    """
    if device.type != "cuda" or processes() == 1:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if dist.get_rank() == 0 and device.index not in (None, own.index):
        raise UserError(
            f"device is '{device}', but torchrun gives every process a GPU of its own; expected cuda or auto"
        )
    return own


# Process 0 and the others


@contextmanager
def lead() -> Iterator[None]:
    """Run a program in process 0, which ends the waiting of the others at its end.

    Not after an error that came to this process alone: the others may wait for it, and torchrun ends them.
    """
    _start()
    try:
        yield
    finally:
        if not State.lost:
            _send(None)
            _end()


def serve() -> None:
    """Take part in what process 0 does until it ends."""
    _start()
    warnings.simplefilter("ignore")  # process 0 warns of the same
    while (call := _receive()) is not None:
        name, threads, args, kwargs = call
        torch.set_num_threads(threads)
        if isinstance(device := kwargs.get("device"), torch.device):
            kwargs["device"] = own_device(device)
        with suppress(UserError, Ended), _work():  # process 0 reports it
            _SHARED[name](*args, **kwargs)
    _end()


def shared(function: Callable[P, R]) -> Callable[P, R]:
    """Let all processes call a function of process 0, with the same arguments but ``callbacks`` and ``store``.

    Its ``device`` is a ``torch.device`` by name. Calls inside of a shared function are the process's own.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    _SHARED[name] = function

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if processes() == 1 or State.working:
            return function(*args, **kwargs)
        left_here = {"callbacks", "store"}
        sent = {key: value for key, value in kwargs.items() if key not in left_here}
        if isinstance(device := kwargs.get("device"), torch.device):
            kwargs["device"] = own_device(device)
        kwargs.pop("store", None)
        _send((name, torch.get_num_threads(), args, sent))
        State.lost = True
        with _work():
            try:
                result = function(*args, **kwargs)
            except UserError:  # of which all processes know
                State.lost = False
                raise
        State.lost = False
        return result

    return call


@contextmanager
def _work() -> Iterator[None]:
    State.working, State.resting = True, False
    try:
        yield
    finally:
        State.working = State.resting = False


@contextmanager
def whole_batches() -> Iterator[None]:
    """Let networks run on whole batches in the block, in every process."""
    before, State.resting = State.resting, True
    try:
        yield
    finally:
        State.resting = before


@contextmanager
def first_alone() -> Iterator[None]:
    """Run a block that concerns process 0 alone, in which networks run on whole batches.

    Raises:
        Ended: In the other processes, where the block raised an error in process 0.
    """
    if not dividing():
        yield
        return
    State.resting = True
    try:
        yield
    except BaseException:
        # From here on this process is alone: it stays at rest.
        dist.all_reduce(torch.ones(1))
        raise
    State.resting = False
    ended = torch.zeros(1)
    dist.all_reduce(ended)
    if ended.item():
        raise Ended


# Messages


def _start() -> None:
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Process 0 may evaluate, draw and write for hours while the others wait.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=timedelta(days=30))
    State.count, State.lost = dist.get_world_size(), False


def _end() -> None:
    State.count = 1
    dist.destroy_process_group()


def _send(message: Any) -> None:
    content = io.BytesIO()
    torch.save(message, content)
    data = torch.frombuffer(content.getbuffer(), dtype=torch.uint8)
    dist.broadcast(torch.tensor([len(data)]), 0)
    dist.broadcast(data, 0)


def _receive() -> Any:
    length = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(length, 0)
    data = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(data, 0)
    # It comes from process 0 of the same training.
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=False)
