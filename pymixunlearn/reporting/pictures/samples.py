"""Images themselves: what was forgotten, and mixes beside the two images they are made of (Figure 8 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from pymixunlearn.reporting.pictures.style import WIDTH, Picture, drawing, show_image

_COLUMNS = 8

FLAT = 0.01
"""Standard deviation inside an image below which masks count as flat."""


def draw_thumbnails(images: Tensor) -> Picture:
    """Draw images ``[N, C, H, W]``, uint8 or float, in rows of eight."""
    tiles = [_coloured(displayable(image)) for image in images]
    rows = [_row(tiles[start : start + _COLUMNS], _COLUMNS) for start in range(0, len(tiles), _COLUMNS)]
    with drawing(len(rows) * WIDTH / _COLUMNS) as figure:
        show_image(figure.subplots(), np.concatenate(rows))
    return Picture("forgotten", f"{len(images)} of the forgotten samples, drawn at random.", figure)


def draw_mixes(forget: Tensor, retain: Tensor, masks: Tensor, mixed: Tensor) -> Picture:
    """Draw each mix below the two images it is made of and the mask that chose between them.

    Masks whose standard deviation inside an image is below ``FLAT`` choose nothing. They are drawn on the whole scale
    from 0 to 1, since one of their own would show noise as structure, and the caption says so.

    Args:
        forget: Forget images ``[P, C, H, W]`` as stored.
        retain: Retain images, likewise.
        masks: The share of the forget image in each pixel, ``[P, H, W]`` in 0..1.
        mixed: The mixes ``[P, C, H, W]``, on the scale of the stored images.
    """
    from matplotlib import colormaps

    low, high = float(masks.min()), float(masks.max())
    within = float(masks.flatten(1).std(1, correction=0).mean())
    flat = within < FLAT
    shares = masks if flat else (masks - low) / (high - low)
    rows: Mapping[str, Sequence[np.ndarray]] = {
        "forget": [_coloured(displayable(image)) for image in forget],
        "mask": [colormaps["cividis"](share.cpu().numpy()) for share in shares],
        "retain": [_coloured(displayable(image)) for image in retain],
        "mix": [_coloured(displayable(image)) for image in mixed],
    }
    with drawing(WIDTH * len(rows) / (len(mixed) + 0.4)) as figure:
        for axes, (title, tiles) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
            show_image(axes, _row(tiles, len(mixed)))
            axes.set_ylabel(title)
    return Picture(
        "mixes",
        "What the trained generator mixes: a forget image, the mask (yellow shows the forget image, blue the retain "
        f"image; from {low:.2f} to {high:.2f}), a retain image, and the mix. "
        + (
            f"The masks are flat: inside an image their standard deviation is {within:.4f}, so that the mixes are "
            "plain averages."
            if flat
            else f"Inside an image the mask has a standard deviation of {within:.2f}."
        ),
        figure,
    )


def _coloured(image: np.ndarray) -> np.ndarray:
    """Return an image ``[H, W]`` or ``[H, W, 3]`` in 0..1 as red, green, blue and opacity, ``[H, W, 4]``."""
    colours = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    return np.concatenate([colours, np.ones((*colours.shape[:2], 1), colours.dtype)], axis=2)


def _row(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return tiles ``[H, W, 4]`` side by side as one image, with clear margins, as wide as ``columns`` of them.

    One image, since a panel of its own for each takes matplotlib twenty times as long.
    """
    margin = max(1, tiles[0].shape[1] // 16)
    framed = [np.pad(tile, ((margin, margin), (margin, margin), (0, 0))) for tile in tiles]
    return np.concatenate(framed + [np.zeros_like(framed[0])] * (columns - len(tiles)), axis=1)


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
