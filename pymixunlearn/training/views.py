"""Weak and strong augmentation of the same images, for training with a consistency loss.

Both act on network inputs, one random draw per image, on the images' device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_WEAK_SHIFT = 1 / 14
"""Of the side: two pixels of 28, as in the Mean Teacher paper's experiments on 32x32 images."""

_STRONG_SHIFT = 1 / 8
_STRONG_TURN = math.radians(15)
_STRONG_SCALE = 0.15
_CUTOUT = 1 / 4


def weak_view(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Shift every image by up to a fourteenth of its side in both directions.

    Args:
        inputs: float ``[N, C, H, W]``.
        generator: On the inputs' device.
    """
    across, down = _uniform(inputs, generator, 2) * _WEAK_SHIFT
    return _sampled(inputs, torch.zeros_like(across), torch.ones_like(across), across, down)


def strong_view(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Turn every image by up to 15 degrees, scale it by up to 15 %, shift it by up to an eighth, and cut a square out.

    The square's side is a quarter of the image's; what is cut out or comes from beyond the edge is 0.

    Args:
        inputs: float ``[N, C, H, W]``.
        generator: On the inputs' device.
    """
    turn, scale, across, down, column, row = _uniform(inputs, generator, 6)
    views = _sampled(
        inputs, turn * _STRONG_TURN, 1 + scale * _STRONG_SCALE, across * _STRONG_SHIFT, down * _STRONG_SHIFT
    )
    rows, columns = _square(row, inputs.shape[-2]), _square(column, inputs.shape[-1])
    return views.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _uniform(inputs: Tensor, generator: torch.Generator, count: int) -> Tensor:
    """Numbers in [-1, 1), ``[count, N]``."""
    return torch.rand(count, len(inputs), generator=generator, device=inputs.device) * 2 - 1


def _sampled(inputs: Tensor, turn: Tensor, scale: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Turn [radians], scale and shift [of the side] every image; each of the four is ``[N]``."""
    cosine, sine = torch.cos(turn) / scale, torch.sin(turn) / scale
    # grid_sample's coordinates run from -1 to 1, so a shift by the whole side is 2.
    rows = (torch.stack([cosine, -sine, 2 * across], 1), torch.stack([sine, cosine, 2 * down], 1))
    grid = F.affine_grid(torch.stack(rows, 1).to(inputs.dtype), list(inputs.shape), align_corners=False)
    return F.grid_sample(inputs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _square(centre: Tensor, side: int) -> Tensor:
    """Which pixels of an edge lie in a square around ``centre`` [-1, 1), ``[N, side]``."""
    pixels = (torch.arange(side, device=centre.device) + 0.5) * (2 / side) - 1
    return (pixels - centre.unsqueeze(1)).abs() < _CUTOUT
