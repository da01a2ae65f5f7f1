"""Images themselves: what was forgotten, and mixes beside the two images they are made of (Figure 8 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pymixunlearn.reporting.pictures.style import WIDTH, Picture, drawing, show_image

_COLUMNS = 8


def draw_thumbnails(images: Tensor) -> Picture:
    """Draw images ``[N, C, H, W]``, uint8 or float, in rows of eight."""
    rows = -(-len(images) // _COLUMNS)
    with drawing(rows * WIDTH / _COLUMNS) as figure:
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for axes, image in zip(panels, images, strict=False):
            show_image(axes, displayable(image))
        for axes in list(panels)[len(images) :] if len(images) % _COLUMNS else ():
            axes.set_visible(False)
    return Picture("forgotten", f"{len(images)} of the forgotten samples, drawn at random.", figure)


def draw_mixes(forget: Tensor, retain: Tensor, masks: Tensor, mixed: Tensor) -> Picture:
    """Draw each mix below the two images it is made of and the mask that chose between them.

    Args:
        forget: Forget images ``[P, C, H, W]`` as stored.
        retain: Retain images, likewise.
        masks: The share of the forget image in each pixel, ``[P, H, W]`` in 0..1.
        mixed: The mixes ``[P, C, H, W]``, on the scale of the stored images.
    """
    rows: Sequence[tuple[str, Tensor]] = (("forget", forget), ("mask", masks), ("retain", retain), ("mix", mixed))
    with drawing(WIDTH * len(rows) / (len(mixed) + 0.4)) as figure:
        grid = figure.subplots(len(rows), len(mixed), squeeze=False)
        for panels, (title, images) in zip(grid, rows, strict=True):
            for axes, image in zip(panels, images, strict=True):
                if title == "mask":
                    low, high = float(masks.min()), float(masks.max())
                    show_image(axes, image.numpy(), cmap="cividis", vmin=low, vmax=max(high, low + 1e-6))
                else:
                    show_image(axes, displayable(image))
            panels[0].set_ylabel(title)
    return Picture(
        "mixes",
        "What the trained generator mixes: a forget image, the mask (yellow shows the forget image, blue the retain "
        f"image; from {float(masks.min()):.2f} to {float(masks.max()):.2f}), a retain image, and the mix.",
        figure,
    )


def displayable(image: Tensor) -> np.ndarray:
    """Return an image ``[C, H, W]`` as floats in 0..1, ``[H, W]`` for one channel and ``[H, W, 3]`` otherwise.

    A float image that leaves 0..1 is stretched over its own range; of other than one or three channels the first shows.
    """
    values = image.float() / 255 if not image.dtype.is_floating_point else image.float()
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    array: np.ndarray = values.permute(1, 2, 0).cpu().numpy()
    return array if array.shape[2] == 3 else array[:, :, 0]
