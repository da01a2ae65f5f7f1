"""Line charts as numbers that a template draws: what an inline SVG needs, and no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 28


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in SVG units and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One quantity over the epochs, in SVG units."""

    title: str
    points: tuple[tuple[float, float], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]

    @property
    def path(self) -> str:
        """The points as the ``points`` attribute of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


def charts(history: Sequence[Mapping[str, object]]) -> list[Chart]:
    """Return one chart for every quantity that a phase measured over its epochs.

    Args:
        history: Records with "phase", "epoch" and the phase's own quantities, in order.
    """
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in history:
        for name, value in record.items():
            if name in ("phase", "epoch", "seconds") or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            epoch = record["epoch"]
            assert isinstance(epoch, (int, float))
            series.setdefault((str(record["phase"]), name), []).append((float(epoch), float(value)))
    return [_chart(f"{phase}: {name}", points) for (phase, name), points in series.items()]


def _chart(title: str, points: Sequence[tuple[float, float]]) -> Chart:
    epochs = [epoch for epoch, _ in points]
    values = [value for _, value in points]
    y_marks = _marks(min(values), max(values))
    low, high = min(*values, *y_marks), max(*values, *y_marks)
    first, last = min(epochs), max(epochs)

    def x(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    # At most about six epochs are named, the first and whole ones only.
    step = max(1, math.ceil((last - first) / 5))
    named = range(int(first), int(last) + 1, step)
    return Chart(
        title,
        tuple((x(epoch), y(value)) for epoch, value in points),
        tuple(Tick(x(epoch), str(epoch)) for epoch in named),
        tuple(Tick(y(mark), f"{mark:g}") for mark in y_marks),
    )


def _marks(low: float, high: float) -> list[float]:
    """Return a few round numbers that span ``low`` to ``high``: steps of 1, 2 or 5 times a power of ten."""
    span = high - low or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if span / (factor * magnitude) <= 4)
    start, stop = math.floor(low / step), math.ceil(high / step)
    # Rounded, so that 3 * 0.1 is written 0.3.
    return [float(f"{index * step:.10g}") for index in range(start, max(stop, start + 1) + 1)]
