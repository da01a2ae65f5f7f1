"""Lines of ``unlearn --dry-run``: what would be forgotten, what would be done, and the estimate; within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pymixunlearn.display import printable

from . import names
from .advice import advice
from .columns import paragraph, table

if TYPE_CHECKING:
    from pymixunlearn.experiments import DryRun

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
    yield from paragraph(f"Run folder: {preview.folder} {_STATES[preview.state]}")


_STATES = {
    "new": "(not there yet; nothing was written there)",
    "started": "(an unfinished run, which would go on; left as it is)",
    "finished": "(this run is finished already; left as it is)",
}


def _forgotten(preview: DryRun) -> Iterator[str]:
    forgotten = preview.forgotten
    yield "To be forgotten:"
    rows = [(printable(name), f"{count}", f"of {every}") for name, count, every in forgotten.classes]
    yield from table(("class", "samples", ""), rows[:_CLASSES])
    if len(rows) > _CLASSES:
        rest = sum(count for _, count, _ in forgotten.classes[_CLASSES:])
        yield f"  and {rest} samples of {len(rows) - _CLASSES} other classes"
    if forgotten.files:
        yield from paragraph(f"Files: {_some(forgotten.files)}", "  ")
    for part, files in forgotten.removed.items():
        yield from paragraph(f"Taken out of the {part} set, as the request names them: {_some(files)}", "  ")
    for part, files in forgotten.copies.items():
        what = "D_r, the samples that remain" if part == "retain" else f"the {part} set"
        yield from paragraph(f"Exact copies that stay in {what}: {_some(files)}", "  ")
    if forgotten.before:
        yield from paragraph(f"Left out too, since the model forgot them before: {forgotten.before} samples", "  ")
    test = len(preview.plan.split.test)
    yield f"To remain: {forgotten.remaining} training samples (D_r), {test} test images."


def _phases(preview: DryRun) -> Iterator[str]:
    yield "To be done:"
    rows = [
        (phase.name, printable(phase.work), "-" if phase.steps is None else str(phase.steps), _time(phase.seconds))
        for phase in preview.phases
    ]
    yield from table(("phase", "work", "steps", "time"), rows, fold=1)
    method = preview.plan.method.name
    if method in names.ADVICE:  # of a method of the user's own nothing is known
        yield ""
        yield "What is known of the method (list methods --help explains it):"
        yield from advice([method])
    if preview.retrain_seconds is not None:
        yield f"Retrain, for comparison: {_time(preview.retrain_seconds)} on this machine."


def _estimate(preview: DryRun) -> Iterator[str]:
    from pymixunlearn.benchmarking.units import size_of

    if preview.seconds is None:
        yield from paragraph("Time: not known, since a part could not be measured by a few steps.")
    else:
        yield from paragraph(
            "Estimate, from a few steps of each training on this machine, as busy as it is now: "
            f"{'at most ' if preview.at_most else ''}{_time(preview.seconds)}. "
            "Attacks, figures and the report come on top."
        )
    if preview.memory is not None:
        yield from paragraph(f"Memory: {size_of(preview.memory)}, the most that this process had in these steps.")
    if preview.device_memory is not None:
        yield from paragraph(f"GPU memory: {size_of(preview.device_memory)} of tensors at most, likewise.")


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
