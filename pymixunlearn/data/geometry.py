"""Resizing and cutting of images as libraries' own evaluation transforms do it with Pillow, to the same pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

INTERPOLATIONS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Names of Pillow's filters, and their numbers there."""


class Geometry(NamedTuple):
    """From an image of any size to a square.

    Attributes:
        size: Side of the square.
        resize: Length to which the shorter side is brought before the middle is cut out.
        interpolation: One of :data:`INTERPOLATIONS`.
        squash: Whether both sides are brought to ``resize``, whatever the image's shape.
    """

    size: int
    resize: int
    interpolation: str
    squash: bool

    def waits(self, width: int, height: int) -> bool:
        """Tell whether an image is so much smaller that it is better stored as it is, and enlarged when it is used."""
        small = width == height != self.size and 2 * width <= self.resize
        return small and self.interpolation in ("bilinear", "bicubic")

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height after the resizing."""
        if self.squash:
            return self.resize, self.resize
        short, long = min(width, height), max(width, height)
        other = int(self.resize * long / short)
        return (self.resize, other) if width <= height else (other, self.resize)

    def apply(self, image: Any) -> NDArray[np.uint8]:
        """Return an image of Pillow as uint8 [size, size] or [size, size, channels]."""
        width, height = self.scaled(*image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        left, top = _start(width, self.size), _start(height, self.size)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def apply_to(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] as float32 [N, C, size, size]: uint8 in [0, 1], float32 on their own scale.

        uint8 images are rounded to whole steps after each of the two passes, as Pillow does. Images of the right size
        were resized when they were decoded.
        """
        whole = images.dtype == torch.uint8
        inputs = images.to(torch.float32)
        height, width = images.shape[-2:]
        if (height, width) != (self.size, self.size):
            new_width, new_height = self.scaled(width, height)
            for new in ((height, new_width), (new_height, new_width)):
                if inputs.shape[-2:] != new:
                    inputs = self._resized(inputs, new)
                    inputs = inputs.add_(0.5).floor_().clamp_(0, 255) if whole else inputs
            left, top = _start(new_width, self.size), _start(new_height, self.size)
            inputs = inputs[..., top : top + self.size, left : left + self.size]
        return inputs / 255 if whole else inputs

    def _resized(self, inputs: Tensor, size: tuple[int, int]) -> Tensor:
        if self.interpolation == "nearest":
            return F.interpolate(inputs, size=size, mode="nearest-exact")
        mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
        return F.interpolate(inputs, size=size, mode=mode, antialias=True, align_corners=False)


def _start(length: int, size: int) -> int:
    """Return where torchvision's CenterCrop begins; a half is rounded to the even number."""
    return round((length - size) / 2)
