"""Samples in a model's last layer but one, in two dimensions: Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pymixunlearn.reporting.pictures.style import FORGET, MARKERS, PALETTE, Picture, bare, drawing, label

PERPLEXITY = 30


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
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = representations.double().numpy()
    # One thread: the order of sums over threads would move every point.
    with threadpool_limits(limits=1, user_api="openmp"):
        embedding = TSNE(
            perplexity=min(PERPLEXITY, (len(values) - 1) / 3), init="pca", random_state=seed % 2**31
        ).fit_transform(values)
    labels, gone = targets.numpy(), forgotten.numpy()
    with drawing(4.3) as figure:
        axes = figure.subplots()
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
        axes.scatter(
            x, y, s=14, c=FORGET.colour, marker=FORGET.marker, linewidths=0.8, label="forgotten", rasterized=True
        )
        bare(axes)
        if len(np.unique(labels)) <= 20:
            figure.legend(loc="outside lower center", ncols=4, markerscale=1.6, columnspacing=1, handletextpad=0.2)
    return Picture(
        f"representations-{model}",
        f"t-SNE of the representations that the {model} model gives {int(gone.sum())} forgotten and "
        f"{int((~gone).sum())} remaining training samples. Distances between far groups mean nothing.",
        figure,
    )
