from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks


class Recall(nn.Module):
    """Confident on images whose first pixel is bright, undecided on the others; the second pixel is the class."""

    def forward(self, images: Tensor) -> Tensor:
        confidence = images[:, 0, 0, 0] * 8
        label = (images[:, 0, 0, 1] * 255).round().long()
        return nn.functional.one_hot(label, 4).float() * confidence[:, None]


def remembered(count: int, bright: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of four classes; ``bright`` ones are those that the model has seen."""
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    targets = torch.arange(count) % 4
    low, high = (180, 256) if bright else (1, 60)
    images[:, 0, 0, 0] = torch.randint(low, high, (count,), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 1] = targets.to(torch.uint8)
    return images, targets


@pytest.fixture
def model() -> nn.Module:
    return Recall()


@pytest.fixture
def leaky() -> data.Dataset:
    """A data set whose training images the model betrays by its confidence."""
    generator = torch.Generator().manual_seed(0)
    return data.from_tensors(*remembered(240, True, generator), *remembered(160, False, generator), name="leaky")


@pytest.fixture
def class_task(leaky: data.Dataset) -> tasks.Split:
    return tasks.class_split(leaky, (0,))


@pytest.fixture
def sample_task(leaky: data.Dataset) -> tasks.Split:
    return tasks.data_split(leaky, fraction=0.5, classes=(1, 2))
