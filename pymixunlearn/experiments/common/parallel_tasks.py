"""Independent tasks in parallel processes, with their progress; an error or Ctrl-C ends all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.placement import Placement
from pymixunlearn.experiments.common.ray_pool import RayPool
from pymixunlearn.experiments.common.ray_worker import Place
from pymixunlearn.training.process_pool import ProcessPool, WorkerEnded, held_to_threads

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_THREADS = 1
_STEP = 0.01


class Work(Protocol[T_co]):
    """Work by the number of a task; it can be pickled if it is to go to other processes."""

    def __call__(self, task: int, report: Callable[[float], None]) -> T_co:
        """Do one task, reporting the share of it that is done, from 0 to 1."""


def run_tasks(
    work: Work[T],
    tasks: int,
    *,
    jobs: int,
    placement: Placement | None = None,
    device: str = "cpu",
    progress: Callable[[list[float]], None] = lambda shares: None,
    note: Callable[[str], None] = lambda text: None,
    ran_on: Callable[[Place], None] = lambda place: None,
) -> list[T]:
    """Do all tasks of ``work``, up to ``jobs`` at a time, each with one CPU thread, and return what they gave.

    One thread each: so the results do not depend on ``jobs``. With one job the work is done in this process; otherwise
    in new ones, which need the usual ``if __name__ == "__main__"`` in a script that calls this; or as tasks of Ray.

    Args:
        work: Does one task.
        tasks: How many there are.
        jobs: How many to do at a time, at least 1.
        placement: Where; None is this machine.
        device: Where they compute.
        progress: Called with the share of every task that is done.
        note: Called with a sentence where a worker of Ray was lost.
        ran_on: Called with the place of every task that ended on Ray.

    Raises:
        UserError: A task raised it, or its process ended, for lack of memory for example.
        RuntimeError: A task raised anything else; the message holds the traceback.
    """
    shares = [0.0] * tasks

    def advance(task: int, share: float) -> None:
        shares[task] = share
        progress(shares)

    if placement is not None and placement.is_ray:
        return _on_ray(work, tasks, jobs, placement, device, advance, note, ran_on)
    if min(jobs, tasks) > 1:
        return _in_processes(work, tasks, min(jobs, tasks), advance)
    with held_to_threads(_THREADS):
        return [work(task, partial(advance, task)) for task in range(tasks)]


def _in_processes(work: Work[T], tasks: int, jobs: int, advance: Callable[[int, float], None]) -> list[T]:
    results: dict[int, T] = {}
    with ProcessPool(partial(_task, work), jobs, threads=_THREADS) as pool:
        for task, done in pool.run(range(tasks), advance):
            try:
                results[task] = done.result()
            except WorkerEnded as end:
                raise UserError(
                    f"a process ended with exit code {end.code} before its work was done, perhaps for lack of memory; "
                    "what is finished is saved, and fewer jobs at a time need less"
                ) from None
            advance(task, 1.0)
    return [results[task] for task in range(tasks)]


def _on_ray(
    work: Work[T],
    tasks: int,
    jobs: int,
    placement: Placement,
    device: str,
    advance: Callable[[int, float], None],
    note: Callable[[str], None],
    ran_on: Callable[[Place], None],
) -> list[T]:
    results: dict[int, T] = {}

    def on_lost(task: int, reason: str) -> None:
        advance(task, 0.0)
        note(f"The worker of task {task + 1} was lost ({reason}); it is given to another.")

    with RayPool(partial(_task, work), placement, jobs, threads=_THREADS, device=device, on_lost=on_lost) as pool:
        for task, done in pool.run(range(tasks), advance):
            try:
                results[task] = done.result()
            except WorkerEnded as end:
                raise UserError(f"task {task + 1} could not be done: {end}; what is finished is saved") from None
            ran_on(pool.places[task])
            advance(task, 1.0)
    return [results[task] for task in range(tasks)]


def _task(work: Work[T], task: int, send: Callable[[float], None]) -> T:
    """Do one task; what a process of its own runs."""
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if last + _STEP <= share < 1.0:
            last = share
            send(share)

    return work(task, report)
