"""The small residual network of the benchmarks on 16 x 16 and 32 x 32 images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (16, 32, 64)
_BLOCKS = 2


class ResNet14(nn.Module):
    """A residual network of 13 convolutions and a linear head, for small images (He et al. 2016, Section 4.2, n = 2).

    A 3 x 3 convolution, three stages of two blocks of two 3 x 3 convolutions each with 16, 32 and 64 channels, average
    pooling, a linear head. The second and third stage halve the map; where a shortcut changes its shape it is a 1 x 1
    convolution. 175 258 weights for 3 channels and 10 classes, 650 of them in the head.

    Args:
        num_classes: C, the number of logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, at least 8; every layer takes any.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        """Create the layers with PyTorch's default initialisation."""
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False), norm=nn.BatchNorm2d(_WIDTHS[0])
            )
        )
        channels = _WIDTHS[0]
        for number, width in enumerate(_WIDTHS, start=1):
            blocks = []
            for block in range(_BLOCKS):
                blocks.append(_Block(channels, width, stride=2 if width != _WIDTHS[0] and block == 0 else 1))
                channels = width
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        # On a CPU, channels last takes about 70 % of the time.
        self.to(memory_format=torch.channels_last)
        self.embedding = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, in_channels, image_size, image_size] to logits [N, num_classes]."""
        features = F.relu(self.stem(images))
        for number in (1, 2, 3):
            features = self.get_submodule(f"stage{number}")(features)
        logits: Tensor = self.head(self.embedding(features))
        return logits


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        same = stride == 1 and in_channels == channels
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), norm=nn.BatchNorm2d(channels)
                )
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, in_channels, h, w] to [N, channels, h / stride, w / stride]."""
        inner = F.relu(self.norm1(self.conv1(features)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))
