"""Cells of a comparison, run one after the other in this process, or several at once, each in its own.

A cell is a run of ``unlearn``; an experiment has trainings among its cells too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import AnswerIsNo
from pymixunlearn.experiments.common.inputs import TrainInputs
from pymixunlearn.experiments.common.placement import Placement
from pymixunlearn.experiments.common.progress import Observer, Summary
from pymixunlearn.experiments.common.ray_pool import RayPool
from pymixunlearn.experiments.common.ray_worker import Place
from pymixunlearn.experiments.common.run_folder import Busy, Run
from pymixunlearn.experiments.common.training_run import TrainingPlan
from pymixunlearn.experiments.train import resolve_training, run_training
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.experiments.unlearn.remote import RemoteRun, prepare_remote, receive_run, run_remotely
from pymixunlearn.experiments.unlearn.run import run_unlearning
from pymixunlearn.training.process_pool import ProcessPool, Work, WorkerEnded, held_to_threads


@dataclass(frozen=True)
class CellResult:
    """Result of a cell.

    Attributes:
        status: "finished"; "failed", which it would again; "unfinished", after which it can go on; or "not run", where
            it was not asked for, or has no data.
        record: The content of its ``metrics.json``, if it is finished.
        reason: Otherwise, what happened.
        ran_on: Where a task of Ray ran; None for a cell that ran on this machine, or did not run.
    """

    status: Literal["finished", "failed", "unfinished", "not run"]
    record: dict[str, Any] | None = None
    reason: str | None = None
    ran_on: Place | None = None


@dataclass(frozen=True)
class CellEvent:
    """Event of a running cell: where it is ("unlearn 40 %"), or a sentence that stays on the screen."""

    text: str
    lasting: bool = False


class Runnable(Protocol):
    """What can be run as a cell.

    Attributes:
        key: Names it in progress and messages.
        inputs: The run.
        plan: The run resolved, or None where it cannot start.
        reason: Why it cannot start.
    """

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> UnlearnInputs | TrainInputs: ...  # noqa: D102
    @property
    def plan(self) -> Plan | TrainingPlan | None: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102


class Described(Runnable, Protocol):
    """A cell that a record describes.

    Attributes:
        name: The row's name.
        method: The method's name.
        label_aware: Whether the method sees labels.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def label_aware(self) -> bool: ...  # noqa: D102
    def identity_hash(self) -> str | None: ...  # noqa: D102


C = TypeVar("C", bound=Runnable)
OnEvent = Callable[[C, CellEvent], None]
FolderOf = Callable[[C], Path]
"""Gives the run folder of a cell."""

_RECORDED = (
    "version",
    "metrics",
    "intervals",
    "gap",
    "acceptance",
    "seconds",
    "hashes",
    "stopping",
    "phases",
    "peak_memory",
)
MAX_CLASSES = 100
"""Up to so many classes a record says the accuracy of each."""


def run_cells(
    cells: Sequence[C],
    folder_of: FolderOf[C],
    *,
    phase: str,
    total: int,
    jobs: int | None,
    threads: int,
    placement: Placement,
    command_line: str,
    watcher: Observer,
    ended: Callable[[C, CellResult], None],
) -> None:
    """Run cells, here or in processes, and report them as a phase.

    Args:
        cells: Those to run; one that cannot start ends as failed, with its reason.
        folder_of: Gives the run folder of each.
        phase: Name of the phase.
        total: How many cells there are; those that are not in ``cells`` are done already.
        jobs: How many run at once; None is one, and on Ray as many as there is room for.
        threads: CPU threads of each.
        placement: Where they run.
        command_line: The command that repeats them, for their records.
        watcher: Receives the progress, and a note for every cell that ends.
        ended: Called with every cell that ends, before its note.
    """
    at: dict[str, str] = {}
    done = total - len(cells)

    def advance() -> None:
        watcher.phase_advanced(phase, done, "; ".join(f"{key}: {text}" for key, text in at.items()))

    def on_event(cell: C, event: CellEvent) -> None:
        if event.lasting:
            watcher.note(f"{cell.key}: {event.text}")
        else:
            at[cell.key] = event.text
            advance()

    watcher.phase_started(phase, total, done)
    able = [cell for cell in cells if cell.plan is not None]
    common = (folder_of, command_line, threads, on_event)
    if placement.is_ray:
        at_work = run_on_ray(able, *common, jobs, placement, watcher)
    else:
        at_work = run_here(able, *common) if jobs in (None, 1) else run_in_processes(able, *common, jobs)
    refused = ((cell, CellResult("failed", reason=cell.reason)) for cell in cells if cell.plan is None)
    with closing(at_work):
        for results in (refused, at_work):
            for cell, result in results:
                ended(cell, result)
                at.pop(cell.key, None)
                done += 1
                watcher.note(f"{cell.key}: {_summary(result)}.")
                advance()
    watcher.phase_finished(phase, f"{len(cells)} of {total} cells run")


def entry_of(cell: Described, result: CellResult, folder: str) -> dict[str, Any]:
    """Return what a record says about a cell; ``folder`` is its run folder, seen from the record's."""
    found = {} if result.record is None else recorded(result.record)
    return {
        "name": cell.name,
        "method": cell.method,
        "label_aware": cell.label_aware,
        "seed": cell.inputs.seed,
        "status": result.status,
        "reason": result.reason,
        "identity": cell.identity_hash(),
        "folder": folder,
        **({} if result.ran_on is None else {"ran_on": result.ran_on._asdict()}),
        **found,
    }


def recorded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of a cell's ``metrics.json``, "per_class" being test accuracies by model."""
    details = metrics.get("details") or {}
    classes = {model: found["per_class"] for model, found in details.items() if found.get("per_class")}
    few = {model: values for model, values in classes.items() if len(values) <= MAX_CLASSES}
    further = {"per_class": few, "most_changed": metrics.get("most_changed")}
    return {
        **{name: metrics.get(name) for name in _RECORDED},
        **{name: found for name, found in further.items() if found},
    }


def run_here(
    cells: Sequence[C], folder_of: FolderOf[C], command_line: str, threads: int, on_event: OnEvent[C]
) -> Generator[tuple[C, CellResult], None, None]:
    """Run cells one after the other in this process, each into its folder; yield how each ended."""
    with held_to_threads(threads):
        for cell in cells:
            observer = _observer(partial(on_event, cell))
            yield cell, _run_cell(cell.inputs, cell.plan, folder_of(cell), command_line, observer)


def run_in_processes(
    cells: Sequence[C], folder_of: FolderOf[C], command_line: str, threads: int, on_event: OnEvent[C], jobs: int
) -> Generator[tuple[C, CellResult], None, None]:
    """Run cells in ``jobs`` processes of ``threads`` threads each; yield how each ended, in the order in which they do.

    Every cell has a process of its own, so that nothing one leaves in memory, and no crash, touches another. When the
    generator is closed, or interrupted, the processes are stopped as by Ctrl-C, and waited for.
    """

    def send(index: int, event: CellEvent) -> None:
        on_event(cells[index], event)

    tasks = [(cell.inputs, folder_of(cell)) for cell in cells]
    with ProcessPool(partial(_work, command_line), jobs, threads=threads, fresh=True) as pool:
        for index, done in pool.run(tasks, send):
            try:
                result = done.result()
            except WorkerEnded as end:
                result = CellResult("unfinished", reason=str(end))
            yield cells[index], result


def run_on_ray(
    cells: Sequence[C],
    folder_of: FolderOf[C],
    command_line: str,
    threads: int,
    on_event: OnEvent[C],
    jobs: int | None,
    placement: Placement,
    watcher: Observer,
) -> Generator[tuple[C, CellResult], None, None]:
    """Run cells as tasks of Ray; yield how each ended, as :func:`run_in_processes` does.

    Their run folders come back through Ray and are written here.
    """
    able: list[tuple[C, RemoteRun]] = []
    for cell in cells:
        assert cell.plan is not None  # a cell that can start
        try:
            able.append((cell, prepare_remote(cell.plan)))
        except UserError as error:
            yield cell, CellResult("failed", reason=str(error))
    if not able:
        return

    def send(index: int, event: CellEvent) -> None:
        on_event(able[index][0], event)

    def on_lost(index: int, reason: str) -> None:
        watcher.note(f"{able[index][0].key}: its worker was lost ({reason}); it is given to another.")

    device = str(able[0][1].plan.device)
    work: Work[RemoteRun, tuple[CellResult, dict[str, bytes]]] = partial(_work_remotely, command_line)
    options: dict[str, Any] = {"threads": threads, "device": device, "fresh": True, "on_lost": on_lost}
    with RayPool(work, placement, jobs, **options) as pool:
        for index, done in pool.run((run for _, run in able), send):
            cell, run = able[index]
            try:
                result, files = done.result()
            except WorkerEnded as end:
                yield cell, CellResult("unfinished", reason=str(end))
                continue
            if result.status == "finished":
                result = _outcome(partial(receive_run, run.plan, folder_of(cell), files))
            yield cell, replace(result, ran_on=pool.places[index])


def _run_cell(
    inputs: UnlearnInputs | TrainInputs,
    plan: Plan | TrainingPlan | None,
    out: Path,
    command_line: str,
    observer: Observer,
) -> CellResult:
    return _outcome(partial(_carry_out, inputs, plan, out, command_line, observer))


def _outcome(carry_out: Callable[[], Run]) -> CellResult:
    """Run a cell and say how it ended."""
    try:
        outcome = carry_out()
    except AnswerIsNo:  # of the initial model, which is that of other cells too
        raise
    except Busy as error:
        return CellResult("unfinished", reason=str(error))
    except UserError as error:
        return CellResult("failed", reason=" ".join(str(error).split()))
    except Exception as error:  # whatever breaks in one method must not cost the others their turn
        return CellResult("failed", reason=" ".join(f"{type(error).__name__}: {error}".split()))
    # As read from a file: metrics that were just measured carry all of the model's predictions with them.
    return CellResult("finished", json.loads(json.dumps(outcome.record)))


def _carry_out(
    inputs: UnlearnInputs | TrainInputs,
    plan: Plan | TrainingPlan | None,
    out: Path,
    command_line: str,
    observer: Observer,
) -> Run:
    if isinstance(inputs, TrainInputs):
        training = plan if isinstance(plan, TrainingPlan) else resolve_training(inputs)
        return run_training(training, out, observer=observer, command_line=command_line)
    unlearning = plan if isinstance(plan, Plan) else resolve_unlearning(inputs)
    return run_unlearning(unlearning, out, observer=observer, command_line=command_line, guard=False)


def _summary(result: CellResult) -> str:
    if result.record is None:
        return f"{result.status}: {result.reason}"
    seconds = result.record["seconds"]
    if not result.record.get("gap"):  # a training has nothing to be compared with
        return f"{seconds['initial']:.1f} s"
    gap = result.record["gap"]["unlearned"]["mean"]
    return f"mean gap {'-' if gap is None else f'{gap:.2f}'}, {seconds['unlearned']:.1f} s"


def _observer(send: Callable[[CellEvent], None]) -> Observer:
    return Summary(lambda text: send(CellEvent(text)), lambda text: send(CellEvent(text, lasting=True)))


class _Messages(logging.Handler):
    """Log handler that passes the library's messages and Python's warnings on."""

    def __init__(self, send: Callable[[CellEvent], None]) -> None:
        super().__init__(logging.INFO)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(CellEvent(" ".join(record.getMessage().split()), lasting=True))


def _work(
    command_line: str, task: tuple[UnlearnInputs | TrainInputs, Path], send: Callable[[CellEvent], None]
) -> CellResult:
    """Run one cell in a process of its own."""
    inputs, out = task
    _pass_messages_on(send)
    return _run_cell(inputs, None, out, command_line, _observer(send))


def _work_remotely(
    command_line: str, run: RemoteRun, send: Callable[[CellEvent], None]
) -> tuple[CellResult, dict[str, bytes]]:
    """Run one cell on another machine; returns the content of its run folder too."""
    _pass_messages_on(send)
    files: dict[str, bytes] = {}

    def carry_out() -> Run:
        files.update(run_remotely(run, command_line, _observer(send)))
        return Run(Path(), json.loads(files["metrics.json"]), known=False)

    return _outcome(carry_out), files


def _pass_messages_on(send: Callable[[CellEvent], None]) -> None:
    """Send the library's messages and Python's warnings in this process."""
    logging.captureWarnings(True)
    for name in ("pymixunlearn", "py.warnings"):
        logging.getLogger(name).addHandler(_Messages(send))
        logging.getLogger(name).setLevel(logging.INFO)
