"""Effect of unlearning on each class: accuracies side by side, and what its samples were taken for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pymixunlearn.reporting.pictures.style import INK, MODELS, PAPER, Picture, drawing, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 20
MAX_NUMBERS = 12
_MAX_NAMES = 30
_LONGEST = 14


def draw_accuracies(
    models: Mapping[str, Sequence[float | None]], names: Sequence[str], forgotten: Collection[int] = ()
) -> Picture:
    """Draw the test accuracy of every class as bars, one for each model.

    Of more than :data:`MAX_BARS` classes those are shown that unlearning changed most.

    Args:
        models: Accuracies in percent by class index, by the model's name ("initial", "unlearned", "Retrain").
        names: Of the classes.
        forgotten: Indices of classes to mark as forgotten.
    """
    shown = _most_changed(models["initial"], models["unlearned"])
    count, share = len(models), 0.8 / len(models)
    with drawing(0.8 + len(shown) * (0.12 * count + 0.08)) as figure:
        axes = figure.subplots()
        places = np.arange(len(shown))
        for row, (model, values) in enumerate(models.items()):
            look = MODELS[model]
            widths = [values[index] or 0.0 for index in shown]
            axes.barh(
                places + (row - (count - 1) / 2) * share,
                widths,
                share,
                color=look.colour,
                hatch=look.hatch,
                edgecolor=INK,
                linewidth=0.3,
                label=model,
            )
        axes.set_yticks(
            places, [label(names[index], _LONGEST) + (" *" if index in forgotten else "") for index in shown]
        )
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("test accuracy, %")
        figure.legend(loc="outside upper center", ncols=count)
    left_out = f" The {len(shown)} of {len(names)} classes that changed most." if len(shown) < len(names) else ""
    marked = " An asterisk marks what was to be forgotten." if forgotten else ""
    return Picture("classes", f"Test accuracy of each class.{marked}{left_out}", figure)


def draw_confusion_change(
    before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], names: Sequence[str]
) -> Picture:
    """Draw how much more often (in points) each class is taken for each other after unlearning than before.

    Args:
        before: Test samples by class and prediction, ``[classes, classes]``.
        after: The same of the unlearned model.
        names: Of the classes.
    """
    from matplotlib.colors import TwoSlopeNorm

    counts = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    change = 100 * (counts[1] - counts[0]) / np.maximum(counts[0].sum(axis=1, keepdims=True), 1)
    extent = max(1.0, float(np.abs(change).max()))
    with drawing(3.5) as figure:
        axes = figure.subplots()
        # Purple to orange: the colour-blind tell both from each other and from white.
        scale = TwoSlopeNorm(0, -extent, extent)
        mesh = axes.pcolormesh(change, cmap="PuOr_r", norm=scale, edgecolor=PAPER, linewidth=0.4)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        _name_axes(axes, names)
        if len(names) <= MAX_NUMBERS:
            for row, column in zip(*np.nonzero(np.abs(change) >= 0.5), strict=True):
                value = change[row, column]
                dark = abs(value) > 0.6 * extent
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{value:+.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="#fefefe" if dark else "#1a1a1a",  # on the cell's colour, light page or dark
                )
        axes.set_xlabel("prediction")
        axes.set_ylabel("class")
        bar = figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
    return Picture(
        "confusion",
        "What samples were taken for: by how many points of a class's test samples each prediction became more "
        "(orange) or less (purple) frequent through unlearning.",
        figure,
    )


def _name_axes(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > _MAX_NAMES:
        return
    labels = [label(name, _LONGEST) for name in names]
    places = np.arange(len(names)) + 0.5
    upright = max(map(len, labels)) > 2
    axes.set_xticks(places, labels, rotation=90 if upright else 0)
    axes.set_yticks(places, labels)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _most_changed(before: Sequence[float | None], after: Sequence[float | None]) -> list[int]:
    """Indices of the classes to show, in ascending order."""
    change = [abs((theirs or 0.0) - (mine or 0.0)) for mine, theirs in zip(before, after, strict=True)]
    ranked = sorted(range(len(change)), key=lambda index: -change[index])
    return sorted(ranked[:MAX_BARS])
