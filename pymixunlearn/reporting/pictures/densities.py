"""The loss of forgotten and of unseen samples, model by model: Figures 4 and 10 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pymixunlearn.reporting.pictures.style import FORGET, UNSEEN, Picture, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 160
"""More could not be seen, and would make the file of the picture several times larger."""

Densities = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_densities(models: Mapping[str, Densities | None]) -> Picture:
    """Draw the density of the loss on D_f and on unseen samples of its classes, a panel for each model.

    Args:
        models: Grid ``[G]`` and the two densities ``[G]`` by the model's name; None where a model has none.
    """
    with drawing(0.55 + 1.15 * len(models)) as figure:
        panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
        for axes, (name, densities) in zip(panels, models.items(), strict=True):
            axes.set_title(name)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            if densities is None:
                axes.text(0.5, 0.5, "all losses are the same", ha="center", va="center", transform=axes.transAxes)
                axes.set_xticks([])
                continue
            _panel(axes, *densities)
        panels[-1].set_xlabel("cross entropy")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return Picture(
        "losses",
        "How the loss is distributed over the forgotten samples and over unseen ones of the same classes. Where the "
        "two curves lie on each other, the loss does not tell them apart. Each panel has its own scale.",
        figure,
    )


def _panel(axes: Axes, grid: np.ndarray, forget: np.ndarray, unseen: np.ndarray) -> None:
    # Relative to its own peak: a model that is sure of what it learnt has a peak that dwarfs everything. A peak between
    # two points of the grid leaves zeros.
    forget, unseen = (density / (density.max() or 1.0) for density in (forget, unseen))
    visible = np.flatnonzero(np.maximum(forget, unseen) > 0.01).tolist()
    last = max([1, *visible])
    shown = slice(0, last + 1, max(1, last // _POINTS))
    for height, look, label in ((forget[shown], FORGET, "forgotten"), (unseen[shown], UNSEEN, "unseen")):
        axes.fill_between(grid[shown], height, color=look.colour, alpha=0.15, linewidth=0)
        axes.plot(grid[shown], height, color=look.colour, linestyle=look.line, label=label)
    axes.set_xlim(0, grid[shown][-1])
    axes.set_ylim(0, 1.08)
