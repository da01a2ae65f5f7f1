"""Lines of ``unlearn --dry-run``: what would be forgotten, what would be done, and the estimate; within 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pymixunlearn.display import printable

if TYPE_CHECKING:
    from pymixunlearn.experiments import DryRun

WIDTH = 80
_CLASSES = 20
_FILES = 5


def preview_lines(preview: DryRun) -> Iterator[str]:
    """Yield the lines of a dry run."""
    yield ""
    yield from _forgotten(preview)
    yield ""
    yield from _phases(preview)
    yield ""
    yield from _estimate(preview)
    yield from _wrapped(f"Run folder: {preview.folder} {_STATES[preview.state]}")


_STATES = {
    "new": "(not there yet; nothing was written)",
    "started": "(an unfinished run, which would go on; left as it is)",
    "finished": "(this run is finished already; left as it is)",
}


def _forgotten(preview: DryRun) -> Iterator[str]:
    forgotten = preview.forgotten
    yield "To be forgotten:"
    rows = [(printable(name), f"{count}", f"of {every}") for name, count, every in forgotten.classes]
    yield from _table(("class", "samples", ""), rows[:_CLASSES])
    if len(rows) > _CLASSES:
        rest = sum(count for _, count, _ in forgotten.classes[_CLASSES:])
        yield f"  and {rest} samples of {len(rows) - _CLASSES} other classes"
    if forgotten.files:
        yield from _wrapped(f"Files: {_some(forgotten.files)}", "  ")
    for part, files in forgotten.removed.items():
        yield from _wrapped(f"Taken out of the {part} set, as the request names them: {_some(files)}", "  ")
    for part, files in forgotten.copies.items():
        what = {"retain": "D_r, the samples that remain", "test": "the test set"}[part]
        yield from _wrapped(f"Exact copies that stay in {what}: {_some(files)}", "  ")
    if forgotten.before:
        yield from _wrapped(f"Left out too, since the model forgot them before: {forgotten.before} samples", "  ")
    test = len(preview.plan.split.test)
    yield f"To remain: {forgotten.remaining} training samples (D_r), {test} test images."


def _phases(preview: DryRun) -> Iterator[str]:
    yield "To be done:"
    rows = [
        (phase.name, printable(phase.work), "-" if phase.steps is None else str(phase.steps), _time(phase.seconds))
        for phase in preview.phases
    ]
    yield from _table(("phase", "work", "steps", "time"), rows)


def _estimate(preview: DryRun) -> Iterator[str]:
    from pymixunlearn.benchmarking.units import size_of

    plan = preview.plan
    if preview.seconds is None:
        yield from _wrapped("Time: not known, since a part could not be measured by a few steps.")
    else:
        auto = plan.method.config.to_dict().get("stop") == "auto"
        yield from _wrapped(
            f"Estimate, from a few steps of each training on this machine, as busy as it is now: "
            f"{'at most ' if auto else ''}{_time(preview.seconds)}. Attacks, figures and the report come on top."
        )
    if preview.memory is not None:
        yield from _wrapped(f"Memory: {size_of(preview.memory)}, the most that this process had in these steps.")
    if preview.device_memory is not None:
        yield from _wrapped(f"GPU memory: {size_of(preview.device_memory)} of tensors at most, likewise.")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{printable(name)}'" for name in names[:_FILES])
    more = f" and {len(names) - _FILES} more" if len(names) > _FILES else ""
    return f"{len(names)}: {shown}{more}"


def _time(seconds: float | None) -> str:
    """Write a time with no more digits than an estimate has."""
    if seconds is None:
        return "?"
    if seconds < 1:
        return "0 s" if seconds == 0 else "< 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 6000 else f"{minutes / 1440:.1f} days"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table whose second column is folded where the lines would be longer than the width."""
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    wide = 1 if len(heading) > 3 else 0
    widths[wide] = min(widths[wide], WIDTH - 2 * len(heading) - sum(widths[:wide] + widths[wide + 1 :]))
    for row in (heading, *rows):
        parts = textwrap.wrap(row[wide], widths[wide]) or [""]
        for number, part in enumerate(parts):
            cells = [part if column == wide else cell if number == 0 else "" for column, cell in enumerate(row)]
            aligned = [
                cell.ljust(width) if column <= wide else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            yield f"  {'  '.join(aligned)}".rstrip()


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
