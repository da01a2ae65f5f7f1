"""Cells of a comparison, run one after the other in this process, or several at once, each in its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.progress import Observer, Summary
from pymixunlearn.experiments.compare.plan import Cell
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.experiments.unlearn.run import run_unlearning
from pymixunlearn.training.process_pool import ProcessPool, WorkerEnded, held_to_threads


@dataclass(frozen=True)
class CellResult:
    """Result of a cell.

    Attributes:
        status: "finished"; "failed", which it would again; or "unfinished", after which it can go on.
        record: The content of its ``metrics.json``, if it is finished.
        reason: Otherwise, what happened.
    """

    status: Literal["finished", "failed", "unfinished"]
    record: dict[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CellEvent:
    """Event of a running cell: where it is ("unlearn 40 %"), or a sentence that stays on the screen."""

    text: str
    lasting: bool = False


OnEvent = Callable[[Cell, CellEvent], None]


def run_here(
    cells: Sequence[Cell], folders: Path, command_line: str, threads: int, on_event: OnEvent
) -> Generator[tuple[Cell, CellResult], None, None]:
    """Run cells one after the other in this process, each into its folder in ``folders``; yield how each ended."""
    with held_to_threads(threads):
        for cell in cells:
            observer = _observer(partial(on_event, cell))
            yield cell, _run_cell(cell.inputs, cell.plan, folders / cell.key, command_line, observer)


def run_in_processes(
    cells: Sequence[Cell], folders: Path, command_line: str, threads: int, on_event: OnEvent, jobs: int
) -> Generator[tuple[Cell, CellResult], None, None]:
    """Run cells in ``jobs`` processes of ``threads`` threads each; yield how each ended, in the order in which they do.

    Every cell has a process of its own, so that nothing one leaves in memory, and no crash, touches another. When the
    generator is closed, or interrupted, the processes are stopped as by Ctrl-C, and waited for.
    """

    def send(index: int, event: CellEvent) -> None:
        on_event(cells[index], event)

    tasks = [(cell.inputs, folders / cell.key) for cell in cells]
    with ProcessPool(partial(_work, command_line), jobs, threads=threads, fresh=True) as pool:
        for index, done in pool.run(tasks, send):
            try:
                result = done.result()
            except WorkerEnded as end:
                result = CellResult("unfinished", reason=str(end))
            yield cells[index], result


def _run_cell(inputs: UnlearnInputs, plan: Plan | None, out: Path, command_line: str, observer: Observer) -> CellResult:
    try:
        outcome = run_unlearning(plan or resolve_unlearning(inputs), out, observer=observer, command_line=command_line)
    except UserError as error:
        return CellResult("failed", reason=" ".join(str(error).split()))
    except Exception as error:  # whatever breaks in one method must not cost the others their turn
        return CellResult("failed", reason=" ".join(f"{type(error).__name__}: {error}".split()))
    # As read from a file: metrics that were just measured carry all of the model's predictions with them.
    return CellResult("finished", json.loads(json.dumps(outcome.record)))


def _observer(send: Callable[[CellEvent], None]) -> Observer:
    return Summary(lambda text: send(CellEvent(text)), lambda text: send(CellEvent(text, lasting=True)))


class _Messages(logging.Handler):
    """Log handler that passes the library's messages and Python's warnings on."""

    def __init__(self, send: Callable[[CellEvent], None]) -> None:
        super().__init__(logging.INFO)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(CellEvent(" ".join(record.getMessage().split()), lasting=True))


def _work(command_line: str, task: tuple[UnlearnInputs, Path], send: Callable[[CellEvent], None]) -> CellResult:
    """Run one cell in a process of its own."""
    inputs, out = task
    logging.captureWarnings(True)
    for name in ("pymixunlearn", "py.warnings"):
        logging.getLogger(name).addHandler(_Messages(send))
        logging.getLogger(name).setLevel(logging.INFO)
    return _run_cell(inputs, None, out, command_line, _observer(send))
