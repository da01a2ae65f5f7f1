"""The margins of forgotten samples and of unseen images, at once and after resurfacing: the acceptance test drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pymixunlearn.reporting.pictures.style import FORGET, UNSEEN, Picture, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST_BINS, _MOST_BINS = 8, 30
_HIDDEN = 0.5
"""Percent of the margins at either end that are not shown: single ones would stretch the scale."""


class Compared(NamedTuple):
    """What one panel shows.

    Attributes:
        forget: Margins of D_f, ``[N]``.
        unseen: Margins of unseen images of the same classes, ``[M]``.
        ks: Distance of the two distributions.
        bound: Above it they are told apart.
    """

    forget: np.ndarray
    unseen: np.ndarray
    ks: float
    bound: float


def draw_margins(models: Mapping[str, tuple[Compared, Compared]]) -> Picture:
    """Draw a row for each model: its margins at once, and after a few steps of training without D_f.

    Args:
        models: Both comparisons by the model's name.
    """
    with drawing(0.7 + 1.35 * len(models)) as figure:
        rows = figure.subplots(len(models), 2, squeeze=False)
        for panels, (name, pair) in zip(rows, models.items(), strict=True):
            for axes, compared, when in zip(panels, pair, ("at once", "after training"), strict=True):
                apart = "told apart" if compared.ks > compared.bound else "not told apart"
                axes.set_title(f"{name}, {when}:\n{apart} ({compared.ks:.3f}, bound {compared.bound:.3f})", fontsize=7)
                _panel(axes, compared)
        for axes in rows[-1]:
            axes.set_xlabel("margin of the right class")
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return Picture(
        "margins",
        "How sure the model is of the right class, for the forgotten samples and for images of the same classes that "
        "no model saw. Where the two curves lie on each other, the model treats the forgotten samples as ones it never "
        "saw. On the right the same after a few steps of training on remaining samples, and on other unseen images of "
        "classes that these lack: what was only hidden comes back there.",
        figure,
    )


def _panel(axes: Axes, compared: Compared) -> None:
    sides = [side[np.isfinite(side)] for side in (compared.forget, compared.unseen)]
    together = np.concatenate(sides)
    low, high = np.percentile(together, (_HIDDEN, 100 - _HIDDEN)) if len(together) else (0.0, 1.0)
    bins = min(max(int(min(map(len, sides)) ** 0.5), _FEWEST_BINS), _MOST_BINS)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for side, look, label in zip(sides, (FORGET, UNSEEN), ("forgotten", "unseen"), strict=True):
        share = np.histogram(side, edges)[0] / max(1, len(side))
        axes.stairs(share, edges, fill=True, color=look.colour, alpha=0.15)
        axes.stairs(share, edges, color=look.colour, linestyle=look.line, linewidth=1.3, label=label)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(edges[0], edges[-1])
