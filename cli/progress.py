"""Progress of a run on the screen: bars in a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from pymixunlearn.display import printable
from pymixunlearn.experiments.common.progress import Observer

from .columns import WIDTH, paragraph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymixunlearn.reporting import Row

_PHASE_WIDTH = 10


def make_console(*, errors: bool = False) -> Console:
    """Return a console on standard output; away from a terminal it is plain, and 80 columns wide unless COLUMNS is set.

    With ``errors`` it is on standard error, for commands whose output other programs read.
    """
    # Looked up now, since tests and shells replace sys.stdout.
    stream = sys.stderr if errors else sys.stdout
    if stream.isatty():
        return Console(file=stream, highlight=False)
    # Without a width, rich would take that of the terminal that the program was started in.
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else WIDTH
    return Console(file=stream, highlight=False, width=width, color_system=None, force_terminal=False)


def say(console: Console, text: str) -> None:
    """Print a line as it is, however long, with what a terminal would not show but obey written as escapes."""
    console.print(printable(text, keep="\n"), soft_wrap=True, markup=False)


def tell(console: Console, text: str, *, hanging: int = 2) -> None:
    """Print sentences, wrapped between words; those after the first line ``hanging`` further in."""
    for line in paragraph(printable(text), hanging=hanging, width=min(WIDTH, console.width)):
        say(console, line)


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """Print a result table, and below it the metrics beyond the paper's where there are any."""
    from pymixunlearn.reporting import further_rows, rich_table

    plain = not console.is_terminal
    console.print()
    console.print(rich_table(rows, plain=plain))
    if further := further_rows(rows):
        console.print(rich_table(further, plain=plain, further=True))


@contextmanager
def watching(console: Console) -> Iterator[Observer]:
    """Give an observer that shows the phases of a run while the block lasts, and the library's log messages."""
    observer = _Bars(console) if console.is_terminal else _Lines(console)
    logger = logging.getLogger("pymixunlearn")
    handler = _Notes(observer)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with observer:
            yield observer
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Shown(Observer):
    """An observer that occupies the screen within a ``with`` block."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> None:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """Leave the screen as it should stay."""

    def note(self, text: str) -> None:
        tell(self._console, text)


class _Bars(_Shown):
    """One bar per phase."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            TextColumn(f"{{task.description:<{_PHASE_WIDTH}}}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            # Wraps where the terminal is narrow; the columns before it would be cut otherwise, and it as well.
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(no_wrap=False, overflow="fold")),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        if phase in self._tasks:
            self._progress.remove_task(self._tasks[phase])
        self._tasks[phase] = self._progress.add_task(phase, total=total, completed=done, detail="")

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        self._progress.update(self._tasks[phase], completed=done, detail=printable(detail))

    def phase_finished(self, phase: str, detail: str) -> None:
        if phase not in self._tasks:
            self.phase_started(phase, total=1)
        task = next(task for task in self._progress.tasks if task.id == self._tasks[phase])
        total = task.total or 1
        self._progress.update(task.id, total=total, completed=total, detail=printable(detail))


class _Lines(_Shown):
    """A line when a phase starts, at each quarter, and when it is over."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._total: int | None = None
        self._quarter = 0

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        self._total = total
        self._quarter = self._quarters(done)
        self._line(phase, self._percent(done))

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        quarter = self._quarters(done)
        if self._quarter < quarter < 4:
            self._quarter = quarter
            self._line(phase, f"{self._percent(done)}  {detail}".rstrip())

    def phase_finished(self, phase: str, detail: str) -> None:
        self._line(phase, f"done  {detail}")

    def _quarters(self, done: int) -> int:
        return 4 * done // self._total if self._total else 0

    def _percent(self, done: int) -> str:
        return f"{100 * done // self._total:>3} %" if self._total else "begins"

    def _line(self, phase: str, text: str) -> None:
        for line in paragraph(f"{phase:<{_PHASE_WIDTH}} {text}", hanging=_PHASE_WIDTH + 1):
            say(self._console, line)


class _Notes(logging.Handler):
    """Log handler that passes messages to an observer."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._observer.note(f"{text[:1].upper()}{text[1:]}.")
