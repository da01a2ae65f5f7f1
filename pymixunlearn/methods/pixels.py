"""Which values the pixels of network inputs can have: for methods that change images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.methods.view import SplitView


class PixelRange(NamedTuple):
    """The network inputs of the darkest and of the brightest pixel, by channel.

    Attributes:
        low: [1, C, 1, 1].
        high: [1, C, 1, 1].
    """

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, split: SplitView, device: torch.device) -> PixelRange:
        """Return the range of the images of ``split``: 0 to 255 for uint8, what occurs in them for float images."""
        stored = split.retain.images
        low, high = 0.0, 255.0
        if stored.dtype != torch.uint8:
            both = (split.forget.images, stored)
            low, high = float(min(images.min() for images in both)), float(max(images.max() for images in both))
        return cls(*(_constant(split.preprocess, stored, value, device) for value in (low, high)))

    @property
    def span(self) -> Tensor:
        """The width of the range, [1, C, 1, 1]: what a step of 1 in pixel space is for the network."""
        return self.high - self.low

    def clamp(self, inputs: Tensor) -> Tensor:
        """Return network inputs [N, C, H, W] with every pixel inside the range."""
        return torch.clamp(inputs, self.low, self.high)


def _constant(preprocess: Preprocess, stored: Tensor, value: float, device: torch.device) -> Tensor:
    """What the network sees of a pixel of this stored value: [1, C, 1, 1]."""
    return preprocess.evaluation(torch.full_like(stored[:1], value))[:, :, :1, :1].to(device)
