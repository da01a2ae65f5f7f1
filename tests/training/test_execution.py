"""Memory layout of images and weights."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn.training.execution import Execution

CPU = torch.device("cpu")


class Network(nn.Module):
    """Flattens feature maps in one of the ways in which people do."""

    def __init__(self, flatten: str) -> None:
        super().__init__()
        self.conv, self.head, self.flatten = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(64, 3), flatten

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        rows = {
            "view": lambda: maps.view(maps.size(0), -1),
            "transposed view": lambda: maps.view(-1, 64),
            "reshape": lambda: maps.reshape(len(maps), -1),
            "flatten": lambda: maps.flatten(1),
        }[self.flatten]()
        logits: Tensor = self.head(rows)
        return logits


@pytest.mark.parametrize("flatten", ["view", "transposed view"])
def test_a_network_that_views_its_images_gets_contiguous_ones(flatten: str) -> None:
    execution, network, images = Execution(CPU, channels_last=True), Network(flatten).eval(), torch.rand(3, 2, 4, 4)
    expected = network(images)
    with pytest.warns(UserWarning, match=r"calls view\(\) .* channels_last=false ends this warning"):
        execution.arrange(network, example=images[:1])
    assert not execution.channels_last and network.conv.weight.is_contiguous()
    assert torch.equal(execution.run(network, images.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("flatten", ["reshape", "flatten"])
def test_other_networks_get_the_channels_innermost(flatten: str) -> None:
    execution, network, images = Execution(CPU, channels_last=True), Network(flatten).eval(), torch.rand(3, 2, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        execution.arrange(network, example=images[:1])
    assert execution.channels_last
    assert execution.inputs(images).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(execution.run(network, images), network(images))


def test_another_error_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        Execution(CPU, channels_last=True).arrange(Network("flatten").eval(), example=torch.rand(1, 5, 4, 4))


def test_nothing_is_tried_without_channels_last() -> None:
    Execution(CPU).arrange(Network("view"), example=torch.rand(1, 5, 4, 4))
