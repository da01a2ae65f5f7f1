"""The two drawings of growth: time against |D_f|, memory against |D_r|."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pymixunlearn.benchmarking.end_to_end.growth import GrowthRow, fitted

# From the palette of Okabe and Ito; the markers differ as well.
_STYLES = {"streamed": ("#0072b2", "o"), "in memory": ("#d55e00", "s")}
_MEGABYTE = 2**20


def draw_growth(rows: Sequence[GrowthRow], folder: Path) -> list[Path]:
    """Draw what the rows allow, as SVG, and return the files: ``time-forget.svg`` and ``memory-retain.svg``."""
    files = []
    growing = [row for row in rows if row.grows == "forget"]
    if len(growing) > 1:
        files.append(_time(growing, folder / "time-forget.svg"))
    known = [row for row in rows if row.grows == "retain" and row.peak_bytes is not None]
    if known:
        files.append(_memory(known, folder / "memory-retain.svg"))
    return files


def _time(rows: Sequence[GrowthRow], path: Path) -> Path:
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    x, y = [row.forget for row in rows], [row.seconds for row in rows]
    line = fitted(x, y)
    axes.plot([0, max(x)], [line.intercept, line.intercept + line.slope * max(x)], color="#777777", linewidth=1)
    axes.plot(x, y, "o", color=_STYLES["streamed"][0])
    first = rows[0]
    axes.set(
        xlabel="images to forget",
        ylabel="seconds",
        xlim=(0, None),
        ylim=(0, None),
        title=f"{first.epochs} epoch{'s' * (first.epochs > 1)}, {first.retain} other images",
    )
    axes.annotate(
        f"{1000 * line.slope:.2f} s per 1000 images\n$R^2$ = {line.explained:.4f}",
        (0.05, 0.95),
        xycoords="axes fraction",
        va="top",
    )
    return _saved(figure, path)


def _memory(rows: Sequence[GrowthRow], path: Path) -> Path:
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for where, (colour, marker) in _STYLES.items():
        own = [row for row in rows if row.images == where]
        peaks = [(row.peak_bytes or 0) / _MEGABYTE for row in own]
        axes.plot([row.retain for row in own], peaks, marker=marker, color=colour, label=f"images {where}")
    axes.set(
        xlabel="remaining images",
        ylabel="peak memory, MiB",
        xlim=(0, None),
        ylim=(0, None),
        title=f"{rows[0].forget} images to forget, {rows[0].epochs} epochs",
    )
    axes.legend()
    return _saved(figure, path)


def _saved(figure: Figure, path: Path) -> Path:
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    return path
