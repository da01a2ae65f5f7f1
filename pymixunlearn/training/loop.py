"""Epoch loop that training and every unlearning method share: progress, history, snapshots and resumption.

The loop knows nothing of models. It calls ``run_epoch`` for each epoch and the callbacks after it, and offers them a
snapshot from which :func:`run_epochs` continues as if it had never stopped. That is exact as long as each epoch draws
its randomness from streams named by the epoch number (:mod:`pymixunlearn.seeding`). A :class:`Stop` can end the loop
before its last epoch, after any step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.parallel import first_alone

StateDict = dict[str, Any]
"""Tensors, numbers, strings, lists and dicts only: what ``torch.load(weights_only=True)`` reads back."""

StepDone = Callable[[], bool]
"""What ``run_epoch`` calls after each step; where it returns True, the epoch ends and returns what it has measured."""

_FORMAT = "pymixunlearn-loop/1"


class EndLoop(Exception):
    """Raised by a callback at the end of a step: the loop ends there, in the middle of its epoch, without an error.

    What the epoch measured is lost, and the weights stay as they are: for looking at a loop, not for results.

    Example:
        >>> class FirstStep(Callback):
        ...     def on_step_end(self, step):
        ...         raise EndLoop
        >>> def run_epoch(epoch, step_done):
        ...     for _ in range(100):
        ...         step_done()
        ...     return {}
        >>> run_epochs("example", 1, 100, run_epoch, state=dict, load_state=len, callbacks=[FirstStep()])
        []
    """


class Callback:
    """Receives the events of a loop; override what is of interest.

    Example:
        >>> class Losses(Callback):
        ...     def on_epoch_end(self, epoch, record, state):
        ...         print(epoch, record["loss"])
        >>> run_epochs("example", 2, 1, lambda epoch, step_done: {"loss": 1 / (epoch + 1)}, state=dict,
        ...            load_state=len, callbacks=[Losses()])[0]["epoch"]
        0 1.0
        1 0.5
        1
    """

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        """Called once before the first epoch.

        Args:
            name: The loop's name, for people ("initial", "mixunlearn").
            epochs: How many epochs the whole loop has.
            steps_per_epoch: How many steps each of them has; the mean, rounded up, where they differ.
            first_epoch: The index (from 0) of the epoch that runs first; above 0 when resuming.
        """

    def on_step_end(self, step: int) -> None:
        """Called after each step with the number of steps done since the loop's epoch 0, so from 1 when not resumed.

        Raises:
            EndLoop: The loop is to end here.
        """

    def on_epoch_end(self, epoch: int, record: dict[str, float], state: Callable[[], StateDict]) -> None:
        """Called after each epoch.

        Args:
            epoch: The index (from 0) of the epoch that ended.
            record: What the epoch measured, with "epoch" (counted from 1) and "seconds"; what a callback adds goes to
                the history too.
            state: Makes a snapshot, on the CPU and independent of later steps, that ``resume`` takes. It costs a copy
                of all weights, so call it only to keep it.
        """

    def on_loop_end(self) -> None:
        """Called once after the last epoch; not when the loop was interrupted."""


class Stop(Protocol):
    """What can end a loop before its last epoch.

    Example:
        >>> class AfterThree:
        ...     def begin(self, lengths, saved): return False
        ...     def after_step(self, step): return step == 3
        ...     def state(self): return {}
        >>> def run_epoch(epoch, step_done):
        ...     return {"steps": next(step for step in (1, 2) if step_done() or step == 2)}
        >>> [record["steps"] for record in run_epochs("example", 5, 2, run_epoch, state=dict, load_state=len,
        ...                                           stop=AfterThree())]
        [2, 1]
    """

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Called once before the first epoch; True if the loop had been ended already in the run that is resumed.

        Args:
            lengths: How many steps each epoch has.
            saved: What :meth:`state` returned at the end of the epoch that the loop goes on from; None at the start.
        """

    def after_step(self, step: int) -> bool:
        """Tell whether the loop is to end after ``step`` steps, counted from the loop's epoch 0."""

    def state(self) -> StateDict:
        """Return everything that changes from step to step; the loop copies it."""


def run_epochs(
    name: str,
    epochs: int,
    steps_per_epoch: int | Sequence[int],
    run_epoch: Callable[[int, StepDone], Mapping[str, float]],
    *,
    state: Callable[[], StateDict],
    load_state: Callable[[StateDict], None],
    callbacks: Sequence[Callback] = (),
    resume: StateDict | None = None,
    stop: Stop | None = None,
) -> list[dict[str, float]]:
    """Run a loop of epochs and return its history.

    Args:
        name: The loop's name; a snapshot is only accepted by the loop of the same name.
        epochs: How many epochs to run in all, at least 0.
        steps_per_epoch: How many times ``run_epoch`` will report a step; one number for each epoch where they differ.
        run_epoch: Takes the epoch's index (from 0) and a function to call after each step; returns the epoch's
            means. It should read them from the device once, at the end. With ``stop``, it has to end the epoch
            when that function returns True.
        state: Returns everything that changes from epoch to epoch (weights, optimiser); the loop copies it.
        load_state: Takes what ``state`` returned and puts it in place.
        callbacks: Receive the events, in order.
        resume: A snapshot to continue from.
        stop: Decides after each step whether the loop ends there; None runs all epochs.

    Returns:
        One record per epoch, those before ``resume`` included: the means, "epoch" (from 1) and "seconds". The
        last one is of a part of an epoch where ``stop`` ended it.

    Raises:
        UserError: ``resume`` belongs to another loop.

    Example:
        >>> weights = {"w": 0.0}
        >>> def run_epoch(epoch, step_done):
        ...     weights["w"] += 1
        ...     step_done()
        ...     return {"loss": 1 / weights["w"]}
        >>> history = run_epochs("example", 2, 1, run_epoch, state=lambda: weights, load_state=weights.update)
        >>> [(record["epoch"], record["loss"]) for record in history]
        [(1, 1.0), (2, 0.5)]
    """
    history: list[dict[str, float]] = []
    if resume is not None:
        history = _history_of(resume, name, epochs, steps_per_epoch, stops=stop is not None)
        resume = copied(resume)  # parts and optimisers work on the tensors that they are given
        load_state(resume["state"])
    first = len(history)
    lengths = [steps_per_epoch] * epochs if isinstance(steps_per_epoch, int) else list(steps_per_epoch)
    stopped = stop is not None and stop.begin(lengths, None if resume is None else resume["stop"])
    with first_alone():
        for callback in callbacks:
            callback.on_loop_start(name, epochs, -(-sum(lengths) // max(epochs, 1)), first)

    steps = sum(lengths[:first])

    def step_done() -> bool:
        nonlocal steps, stopped
        steps += 1
        with first_alone():
            for callback in callbacks:
                callback.on_step_end(steps)
        stopped = stop is not None and stop.after_step(steps)
        return stopped

    def snapshot() -> StateDict:
        return {
            "format": _FORMAT,
            "name": name,
            "epochs": epochs,
            "steps_per_epoch": steps_per_epoch if isinstance(steps_per_epoch, int) else list(steps_per_epoch),
            "history": [dict(record) for record in history],
            "state": copied(state()),
            "stop": None if stop is None else copied(stop.state()),
        }

    for epoch in range(first, epochs):
        if stopped:
            break
        start = time.perf_counter()
        try:
            measured = run_epoch(epoch, step_done)
        except EndLoop:
            break
        record = {"epoch": epoch + 1, **measured, "seconds": time.perf_counter() - start}
        history.append(record)
        with first_alone():
            for callback in callbacks:
                callback.on_epoch_end(epoch, record, snapshot)
    with first_alone():
        for callback in callbacks:
            callback.on_loop_end()
    return history


def seconds_by_part(history: Sequence[Mapping[str, float]], parts: Sequence[str]) -> dict[str, float]:
    """Return the seconds of a loop's epochs, summed by the part that each of them belongs to.

    Example:
        >>> seconds_by_part([{"seconds": 2.0}, {"seconds": 1.0}, {"seconds": 0.5}], ["warm_up", "epochs", "epochs"])
        {'warm_up': 2.0, 'epochs': 1.5}
    """
    found: dict[str, float] = {}
    for record, part in zip(history, parts, strict=False):  # a loop may end before its last epoch
        found[part] = found.get(part, 0.0) + record["seconds"]
    return found


def _history_of(
    resume: StateDict, name: str, epochs: int, steps_per_epoch: int | Sequence[int], *, stops: bool
) -> list[dict[str, float]]:
    """Check that ``resume`` is this loop's snapshot and return the records of the epochs it has behind it."""
    if resume.get("format") != _FORMAT:
        raise UserError(
            f"resume is not a snapshot of a training loop: its format is {resume.get('format')!r}, expected {_FORMAT!r}"
        )
    steps = steps_per_epoch if isinstance(steps_per_epoch, int) else list(steps_per_epoch)
    expected = {"name": name, "epochs": epochs, "steps_per_epoch": steps}
    for field, value in expected.items():
        if resume.get(field) != value:
            raise UserError(
                f"resume is a snapshot of another run: its {field} is {resume.get(field)!r}, expected {value!r}"
            )
    if (resume.get("stop") is not None) is not stops:
        raise UserError("resume is a snapshot of another run: only one of the two can end before its last epoch")
    return [dict(record) for record in resume["history"]]


def copied(value: Any) -> Any:
    """Copy a state onto the CPU, so that it neither changes with later steps nor needs the device to be read back."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        # Plain dicts: an OrderedDict with attributes (state_dict's _metadata) would not be read back the same.
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]
    return value
