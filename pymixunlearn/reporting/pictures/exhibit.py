"""Figures of the paper that are made of several runs: learning curves, sensitivity, gaps against shares, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pymixunlearn.evaluation.catalogue import metric_info
from pymixunlearn.reporting.pictures.style import (
    BLUE,
    GREEN,
    MARKERS,
    PALETTE,
    SOFT,
    VERMILLION,
    Picture,
    drawing,
    label,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_NAME = "figure"
_LABELS = {"aware": BLUE, "agnostic": VERMILLION, "": GREEN}


class Point(NamedTuple):
    """A value over seeds at a place of the horizontal axis; ``std`` is None for a single seed."""

    at: float
    mean: float
    std: float | None = None


class Duration(NamedTuple):
    """Seconds of a method: its name, "aware", "agnostic" or "" (Retrain), the mean over seeds."""

    name: str
    labels: str
    seconds: float


def draw_learning_curves(curves: Mapping[str, Mapping[str, Sequence[Point]]]) -> Picture:
    """Draw accuracies after every epoch, a panel for each data set: Figure 5 of the paper.

    Args:
        curves: Data set to "train" and "test" to the points by epoch.
    """
    looks = {"train": (BLUE, "-", "o", "training images, augmented"), "test": (VERMILLION, "--", "s", "test images")}
    with drawing(0.6 + 1.5 * len(curves)) as figure:
        panels = figure.subplots(len(curves), 1, squeeze=False)[:, 0]
        for axes, (name, lines) in zip(panels, curves.items(), strict=True):
            for key, points in lines.items():
                colour, line, marker, meaning = looks[key]
                _line(axes, points, colour, marker, meaning, line)
            axes.set_title(label(name))
            axes.set_ylabel("accuracy, %")
            _whole_numbers(axes)
        panels[-1].set_xlabel("epoch")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=2)
    return Picture(
        _NAME,
        "Accuracy of the initial model after every epoch of its training. On the training images it is the mean over "
        "the epoch, with augmentation and while the weights change; on the test images it is that after the epoch.",
        figure,
    )


def draw_sweeps(
    sweeps: Mapping[str, Sequence[Point]], metric: str, retrain: float | None, *, initial: float | None = None
) -> Picture:
    """Draw a metric against the values of settings, a panel for each setting: Figure 6 of the paper.

    Args:
        sweeps: Setting to the points by its value.
        metric: The key of the metric.
        retrain: Retrain's value of it.
        initial: The initial model's.
    """
    shown = metric_info(metric).label
    with drawing(0.6 + 1.6 * len(sweeps)) as figure:
        panels = figure.subplots(len(sweeps), 1, squeeze=False)[:, 0]
        for axes, (setting, points), colour in zip(panels, sweeps.items(), PALETTE, strict=False):
            places = [Point(float(place), point.mean, point.std) for place, point in enumerate(points)]
            _line(axes, places, colour, "o", None)
            for value, line, meaning in ((retrain, "-.", "Retrain"), (initial, ":", "initial")):
                if value is not None:
                    axes.axhline(value, color=GREEN if meaning == "Retrain" else SOFT, linestyle=line, label=meaning)
            axes.set_xticks(range(len(points)), [f"{point.at:g}" for point in points])
            axes.set_title(label(setting))
            axes.set_ylabel(f"{shown}, %")
            axes.grid(axis="y", linewidth=0.4, alpha=0.5)
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside upper center", ncols=2)
    return Picture(
        _NAME,
        f"{shown} of the unlearned model for values of one setting at a time, the others as the preset has them; bars "
        "are standard deviations over seeds, where there are several. Values stand side by side, not to scale. Near to "
        "Retrain's line is good.",
        figure,
    )


def draw_shares(cases: Mapping[str, Mapping[str, Mapping[str, Sequence[Point]]]]) -> Picture:
    """Draw gaps to Retrain against the share that is forgotten: Figure 9 of the paper.

    Args:
        cases: Data set to metric to method to the points by share, in percent.
    """
    panels = [(name, metric, rows) for name, metrics in cases.items() for metric, rows in metrics.items()]
    with drawing(0.8 + 1.9 * len(panels)) as figure:
        for axes, (name, metric, rows) in zip(
            figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
        ):
            for number, (row, points) in enumerate(rows.items()):
                colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
                _line(axes, points, colour, marker, label(row))
            axes.set_title(label(f"{name}: {metric_info(metric).label}"))
            axes.set_ylabel("gap, points")
            axes.set_ylim(bottom=0)
            axes.set_xticks(sorted({point.at for points in rows.values() for point in points}))
            axes.grid(axis="y", linewidth=0.4, alpha=0.5)
        axes.set_xlabel("forgotten share of the samples of the classes, %")
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=3, columnspacing=1, handletextpad=0.4)
    return Picture(
        _NAME,
        "Gap to Retrain (the absolute difference, a mean over seeds) against the share that is forgotten. Nearer to "
        "the bottom is better.",
        figure,
    )


def draw_durations(cases: Mapping[str, Sequence[Duration]]) -> Picture:
    """Draw the seconds of every method as bars, the shortest on top, a panel for each data set: Figures 7 and 11.

    Args:
        cases: Data set to its methods, Retrain among them.
    """
    bars = sum(len(methods) for methods in cases.values())
    with drawing(0.8 + 0.22 * bars + 0.5 * len(cases)) as figure:
        heights = [len(methods) + 1 for methods in cases.values()]
        panels = figure.subplots(len(cases), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, (name, methods) in zip(panels, cases.items(), strict=True):
            ranked = sorted(methods, key=lambda method: method.seconds)
            axes.barh(
                range(len(ranked)),
                [method.seconds for method in ranked],
                color=[_LABELS[method.labels] for method in ranked],
                height=0.7,
            )
            for place, method in enumerate(ranked):
                axes.annotate(
                    f"{method.seconds:.1f}",
                    (method.seconds, place),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                )
            axes.set_yticks(range(len(ranked)), [label(method.name) for method in ranked])
            axes.set_ylim(len(ranked) - 0.5, -0.5)
            axes.margins(x=0.15)
            axes.set_title(label(name))
        panels[-1].set_xlabel("seconds")
        handles = [_patch(colour) for colour in _LABELS.values()]
        names = ["with labels", "without labels", "Retrain"]
        figure.legend(handles, names, loc="outside upper center", ncols=3, columnspacing=1, handletextpad=0.4)
    return Picture(
        _NAME,
        "Seconds that each method takes beside those of retraining, means over seeds, on the machine and with the "
        "threads of these runs; what else ran at the time counts too.",
        figure,
    )


def _line(axes: Axes, points: Sequence[Point], colour: str, marker: str, meaning: str | None, line: str = "-") -> None:
    places, means = [point.at for point in points], [point.mean for point in points]
    axes.plot(places, means, color=colour, marker=marker, linestyle=line, markersize=3.5, label=meaning)
    spread = [point for point in points if point.std is not None]
    for point in spread:
        assert point.std is not None
        axes.plot([point.at] * 2, [point.mean - point.std, point.mean + point.std], color=colour, linewidth=1)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


def _patch(colour: str) -> Artist:
    from matplotlib.patches import Patch

    patch: Artist = Patch(color=colour)
    return patch
