"""Samples in a model's last layer but one, in two dimensions: Figure 3 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pymixunlearn.reporting.pictures.style import FORGET, MARKERS, PALETTE, Picture, bare, drawing, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERPLEXITY = 30
_BESIDE = 2
_NAMED = 20
"""Classes in a legend at most."""


def draw_representations(
    model: str, representations: Tensor, targets: Tensor, forgotten: Tensor, names: Sequence[str], *, seed: int = 0
) -> Picture:
    """Draw a t-SNE of representations, the remaining samples by class and the forgotten as crosses.

    Args:
        model: Whose they are: "initial", "unlearned" or "Retrain".
        representations: ``[N, D]``, N at least 4.
        targets: Class indices ``[N]``.
        forgotten: Which of them belong to D_f, bool ``[N]``.
        names: Of the classes.
        seed: Fixes the t-SNE.
    """
    embedding = _embedded(representations, seed)
    with drawing(4.3) as figure:
        axes = figure.subplots()
        _scatter(axes, embedding, targets.numpy(), forgotten.numpy(), names)
        _legend(figure, axes)
    return Picture(
        f"representations-{model}",
        f"t-SNE of the representations that the {model} model gives {int(forgotten.sum())} forgotten and "
        f"{int((~forgotten).sum())} remaining training samples. Distances between far groups mean nothing.",
        figure,
    )


def draw_representations_of(
    models: Mapping[str, Tensor], targets: Tensor, forgotten: Tensor, names: Sequence[str], *, seed: int = 0
) -> Picture:
    """Draw a t-SNE for each of several models, two beside each other: Figure 3 of the paper.

    Args:
        models: Representations ``[N, D]`` of the same samples by the model's name; others as of
            :func:`draw_representations`.
        targets: See there.
        forgotten: See there.
        names: See there.
        seed: See there.
    """
    rows = math.ceil(len(models) / _BESIDE)
    with drawing(0.9 + 3.1 * rows, width=_BESIDE * 3.1) as figure:
        panels = figure.subplots(rows, _BESIDE, squeeze=False).flatten()
        for axes, (name, seen) in zip(panels, models.items(), strict=False):
            _scatter(axes, _embedded(seen, seed), targets.numpy(), forgotten.numpy(), names)
            axes.set_title(label(name))
        for axes in panels[len(models) :]:
            bare(axes)
        _legend(figure, panels[0])
    return Picture(
        "figure",
        f"t-SNE of the representations that each model gives the same {int(forgotten.sum())} forgotten and "
        f"{int((~forgotten).sum())} remaining training samples, each model by itself. Distances between far groups, "
        "and directions, mean nothing.",
        figure,
    )


def _embedded(representations: Tensor, seed: int) -> np.ndarray:
    """Return the t-SNE ``[N, 2]`` of representations ``[N, D]``."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = representations.double().numpy()
    # One thread: the order of sums over threads would move every point.
    with threadpool_limits(limits=1, user_api="openmp"):
        embedding: np.ndarray = TSNE(
            perplexity=min(PERPLEXITY, (len(values) - 1) / 3), init="pca", random_state=seed % 2**31
        ).fit_transform(values)
    return embedding


def _scatter(axes: Axes, embedding: np.ndarray, labels: np.ndarray, gone: np.ndarray, names: Sequence[str]) -> None:
    for index, target in enumerate(np.unique(labels[~gone])):
        shown = (labels == target) & ~gone
        axes.scatter(
            embedding[shown, 0],
            embedding[shown, 1],
            s=7,
            c=PALETTE[index % len(PALETTE)],
            marker=MARKERS[(index // len(PALETTE) + index) % len(MARKERS)],
            linewidths=0,
            label=label(names[target]),
            rasterized=True,
        )
    x, y = embedding[gone].T
    axes.scatter(x, y, s=14, c=FORGET.colour, marker=FORGET.marker, linewidths=0.8, label="forgotten", rasterized=True)
    bare(axes)


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the classes below the panels, unless there are more than can be told apart."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) <= _NAMED + 1:
        figure.legend(
            handles, names, loc="outside lower center", ncols=4, markerscale=1.6, columnspacing=1, handletextpad=0.2
        )
