from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models.layers import EmbeddingExtractor, find_embedding_layer, find_head


def _network(*tail: tuple[str, nn.Module]) -> nn.Sequential:
    body = [("conv", nn.Conv2d(1, 6, 3)), ("norm", nn.BatchNorm2d(6)), ("pool", nn.AdaptiveAvgPool2d(1))]
    return nn.Sequential(OrderedDict([*body, ("flat", nn.Flatten()), *tail]))


@pytest.mark.parametrize("name", models.available())
def test_our_models(name: str) -> None:
    model = models.build(name, num_classes=3, in_channels=1, image_size=28).eval()
    images = torch.rand(2, 1, 28, 28)
    head = find_head(model, images[:1])
    width = {"resnet14": 64}.get(name, 256)
    assert head.out_features == 3 and head.in_features in (128, width)
    layer = find_embedding_layer(model, images[:1])
    assert layer == model.embedding_layer
    with EmbeddingExtractor(model, layer) as embed:
        logits, embedding = embed(images)
        assert embed.channels(images[:1]) == width
    assert embedding.shape == (2, width)
    assert torch.equal(logits, model(images))
    assert all(not module._forward_hooks for module in model.modules())


def test_a_users_network_keeps_its_modes_and_statistics() -> None:
    head = nn.Linear(5, 3)
    model = _network(("hidden", nn.Linear(6, 5)), ("relu", nn.ReLU()), ("head", head)).train()
    mean = model.norm.running_mean.clone()
    example = torch.rand(1, 1, 8, 8)
    assert find_head(model, example) is head
    assert find_embedding_layer(model, example) == "relu"
    assert model.training and torch.equal(model.norm.running_mean, mean)


def test_an_embedding_need_not_be_flat() -> None:
    class Inline(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.head = nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.pool(self.conv(images)).flatten(1))

    model, images = Inline(), torch.rand(2, 1, 8, 8)
    assert find_embedding_layer(model, images[:1]) == "pool"
    with EmbeddingExtractor(model, "pool") as embed:
        assert torch.equal(embed(images)[1], model.pool(model.conv(images)).flatten(1))


def test_a_network_without_such_layers_is_told_so() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 8)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images).flatten(1)

    example = torch.rand(1, 1, 8, 8)
    with pytest.raises(UserError, match="the logits of Bare do not come from a linear layer"):
        find_head(Bare(), example)
    with pytest.raises(UserError, match="no layer of Bare returns an embedding"):
        find_embedding_layer(Bare(), example)
    with pytest.raises(UserError, match="unknown embedding_layer 'conf'.*Did you mean 'conv'"):
        EmbeddingExtractor(Bare(), "conf")
