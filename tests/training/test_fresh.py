from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.training import fresh_weights, model_hash


def test_every_layer_of_a_users_network_is_reset() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.TransformerEncoderLayer(4, 2), nn.Linear(4, 2)]
        return nn.ModuleList(layers)

    with torch.random.fork_rng():
        old, new, again, other = (network() for _ in range(4))
    new, again, other = fresh_weights(new, 1), fresh_weights(again, 1), fresh_weights(other, 2)
    assert model_hash(new) == model_hash(again) != model_hash(other)
    random_weights = [name for name, parameter in old.named_parameters() if parameter.unique().numel() > 2]
    for name in random_weights:
        assert not torch.equal(old.get_parameter(name), new.get_parameter(name)), name


def test_a_layer_that_cannot_be_reset_is_named() -> None:
    class Stuck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.ones(3))

    with pytest.raises(UserError, match="'1' has parameters but no reset_parameters"):
        fresh_weights(nn.Sequential(nn.Linear(2, 2), Stuck()), 0)


def test_a_built_network_is_built_again_with_what_is_frozen_in_it() -> None:
    model = models.build("resnet18", num_classes=3, in_channels=1, image_size=8).bfloat16()
    model.conv1.requires_grad_(False)
    fresh = fresh_weights(model, 1)
    assert {tensor.dtype for tensor in fresh.state_dict().values()} == {torch.bfloat16, torch.int64}
    assert [name for name, parameter in fresh.named_parameters() if not parameter.requires_grad] == ["conv1.weight"]
    assert models.architecture_of(fresh) == models.architecture_of(model)
    assert not torch.equal(fresh.conv1.weight, model.conv1.weight)


@pytest.mark.parametrize(
    ("name", "layer", "new"),
    [
        ("cnn", "head", nn.Linear(128, 5)),
        ("cnn", "hidden", nn.Sequential(nn.Linear(256, 128), nn.ReLU())),
        ("vit", "head", nn.Sequential(nn.Dropout(0.1), nn.Linear(256, 3))),
        ("resnet18", "fc.head", nn.Linear(256, 7)),
    ],
)
def test_a_changed_network_is_reset_as_it_is(name: str, layer: str, new: nn.Module) -> None:
    model = models.build(name, num_classes=3, in_channels=1, image_size=8)
    model.set_submodule(layer, new)
    before = copy.deepcopy(model)
    fresh = fresh_weights(model, 1)
    assert repr(fresh) == repr(before)
    for key, parameter in fresh.named_parameters():
        if parameter.unique().numel() > 2:  # what starts as all zeros or ones does so again
            assert not torch.equal(parameter, before.get_parameter(key)), key


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the old form is still widely used
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed_are_reset_too(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(norm(nn.Linear(8, 3)))
    images = torch.rand(2, 8)
    expected, before = model(images), {name: value.clone() for name, value in model.named_parameters()}
    fresh = fresh_weights(model, 1)
    assert not torch.allclose(fresh(images), expected)
    for name, parameter in fresh.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    again = fresh_weights(nn.Sequential(norm(nn.Linear(8, 3))), 1)
    assert torch.equal(again(images), fresh(images))
