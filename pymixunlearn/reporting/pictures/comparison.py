"""Comparison of many methods: how far each is from Retrain, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymixunlearn.evaluation.catalogue import metric_info
from pymixunlearn.reporting.comparison import DIFFER
from pymixunlearn.reporting.pictures.style import (
    BLUE,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    PALETTE,
    PURPLE,
    SOFT,
    VERMILLION,
    Picture,
    drawing,
    label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_NAME_SIZE = 7
_LABELS = {"aware": (BLUE, "o", "with labels"), "agnostic": (VERMILLION, "s", "without labels")}
_ANSWERS = {
    "accepted": (GREEN, "o"),
    "refused": (VERMILLION, "X"),
    "cannot tell": (PURPLE, "D"),
    DIFFER: (ORANGE, "^"),
    "": (BLUE, "s"),
}


@dataclass(frozen=True)
class MethodResult:
    """One method over its seeds.

    Attributes:
        name: The method.
        labels: "aware" or "agnostic".
        gap: The mean gap to Retrain, in points.
        std: Its standard deviation over seeds; None for a single one.
        gaps: The gap in each metric, by key.
        seconds: What unlearning took, on average.
        answer: As of :class:`pymixunlearn.reporting.ComparisonRow`.
    """

    name: str
    labels: str
    gap: float
    std: float | None
    gaps: Mapping[str, float]
    seconds: float
    answer: str = ""


def draw_gaps(results: Sequence[MethodResult]) -> Picture:
    """Draw the mean gap of each method with its deviation, the smallest on top, and the gap in every metric."""
    ranked = sorted(results, key=lambda result: result.gap)
    metrics = list(dict.fromkeys(key for result in ranked for key in result.gaps))
    with drawing(1.0 + 0.27 * len(ranked)) as figure:
        axes = figure.subplots()
        for colour, marker, key in zip(PALETTE[1:], MARKERS[1:], metrics, strict=False):
            places = [place for place, result in enumerate(ranked) if key in result.gaps]
            axes.scatter(
                [ranked[place].gaps[key] for place in places],
                places,
                s=16,
                marker=marker,
                facecolors="none",
                edgecolors=colour,
                clip_on=False,
                label=metric_info(key).label,
            )
        for place, result in enumerate(ranked):
            axes.plot([result.gap], [place], "o", color=INK, markersize=5, label=None if place else "mean gap")
            if result.std:
                low = max(0.0, result.gap - result.std)
                axes.plot([low, result.gap + result.std], [place, place], color=INK, linewidth=1.2)
        axes.set_yticks(range(len(ranked)), [label(result.name) for result in ranked])
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.grid(axis="y", linewidth=0.3, alpha=0.5)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.05, 1.4 * max(1.0, *(max([result.gap, *result.gaps.values()]) for result in ranked)))
        _plain_numbers(axes.xaxis)
        axes.set_xlabel("gap to Retrain, points")
        figure.legend(loc="outside upper center", ncols=min(4, len(metrics) + 1), columnspacing=1, handletextpad=0.3)
    return Picture(
        "gaps",
        "How far each method is from Retrain: the mean gap with its standard deviation over seeds, and the gap of its "
        "mean in each metric. Nearer to the left is better; the scale is linear up to 1 and logarithmic beyond.",
        figure,
    )


def draw_times(results: Sequence[MethodResult], retrain_seconds: float | None = None) -> Picture:
    """Draw the mean gap of each method against the seconds that it takes; Retrain's seconds as a line.

    Where the acceptance test was made, shape and colour say what it answers, and methods without labels are hollow.
    """
    judged = any(result.answer for result in results)
    with drawing(3.6) as figure:
        axes = figure.subplots()
        for meaning, colour, marker, chosen in _by_answer(results) if judged else _by_labels(results):
            seconds, gaps = zip(*((result.seconds, result.gap) for result in chosen), strict=True)
            hollow = judged and chosen[0].labels == "agnostic"
            face = "none" if hollow else colour
            axes.scatter(seconds, gaps, s=28, facecolors=face, edgecolors=colour, marker=marker, label=meaning)
        if retrain_seconds is not None:
            axes.axvline(retrain_seconds, color=GREEN, linestyle="-.", linewidth=1.2, label="Retrain takes")
        axes.set_xscale("log")
        axes.margins(x=0.25, y=0.1)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=-0.05)
        for axis in (axes.xaxis, axes.yaxis):
            _plain_numbers(axis)
        axes.set_xlabel("seconds")
        axes.set_ylabel("mean gap to Retrain, points")
        axes.grid(linewidth=0.3, alpha=0.5, color=SOFT)
        _name_points(figure, axes, results)
        figure.legend(loc="outside upper center", ncols=2 if judged else 3, columnspacing=1, handletextpad=0.3)
    return Picture(
        "times",
        "What each method costs and how close it comes to Retrain: the lower left corner is best. Seconds are those of "
        "the machine and the number of processes that ran."
        + (" Shape and colour say what the acceptance test answers." if judged else ""),
        figure,
    )


def _by_labels(results: Sequence[MethodResult]) -> Iterator[tuple[str, str, str, list[MethodResult]]]:
    """Yield the name of a group of points, their colour and shape, and the points."""
    for labels, (colour, marker, meaning) in _LABELS.items():
        chosen = [result for result in results if result.labels == labels]
        if chosen:
            yield meaning, colour, marker, chosen


def _by_answer(results: Sequence[MethodResult]) -> Iterator[tuple[str, str, str, list[MethodResult]]]:
    """Yield the same by what the acceptance test says."""
    for answer, (colour, marker) in _ANSWERS.items():
        for labels, (_, _, meaning) in _LABELS.items():
            chosen = [result for result in results if (result.answer, result.labels) == (answer, labels)]
            if chosen:
                yield f"{answer or 'not tested'}, {meaning}", colour, marker, chosen


def _name_points(figure: Figure, axes: Axes, results: Sequence[MethodResult]) -> None:
    """Write each name beside its point, at the first of several places where it covers no other name or point."""
    # In units of the picture, points of 1/72 inch: the scales must have been set before.
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    points = [scale * axes.transData.transform((result.seconds, result.gap)) for result in results]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    for result, (x, y) in zip(results, points, strict=True):
        width, height = 0.56 * _NAME_SIZE * len(result.name), _NAME_SIZE
        places = [(dx, dy) for dy in (-3, 5, -11, 13, -19, 21, -27) for dx in (5, -5 - width)]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + height) for dx, dy in places]
        free = [not any(_overlap(box, other) for other in taken) for box in boxes]
        best = free.index(True) if True in free else 0
        taken.append(boxes[best])
        axes.annotate(
            label(result.name),
            (result.seconds, result.gap),
            xytext=places[best],
            textcoords="offset points",
            fontsize=_NAME_SIZE,
        )


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _plain_numbers(axis: Axis) -> None:
    """Write 10 and not 10 to the power of 1."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
