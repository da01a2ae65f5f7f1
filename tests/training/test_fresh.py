from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models.normalisation import hold_norms
from pymixunlearn.training import fresh_weights, model_hash
from pymixunlearn.training.fresh import frozen_parameters


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


def backbone(frozen: bool = True) -> nn.Sequential:
    """A trained network whose first half is frozen, the statistics of its normalisations included."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))
    model = nn.Sequential(first, nn.Flatten(), nn.BatchNorm1d(144, affine=False), nn.Linear(144, 2))
    model(torch.rand(8, 1, 8, 8))
    first.requires_grad_(not frozen)
    return model


def changed(model: nn.Module, fresh: nn.Module) -> set[str]:
    after = fresh.state_dict()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, after[name])}


def test_what_is_frozen_keeps_its_values_where_that_is_asked_for() -> None:
    with torch.random.fork_rng():
        models_ = [backbone() for _ in range(3)]
    for model in models_:
        hold_norms(model)  # as every method does, so that a layer without parameters is known to be frozen
    model, kept, reset = models_
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    rest = {"3.weight", "3.bias", *(f"2.{name}" for name in statistics)}
    assert changed(model, fresh_weights(kept, 1, keep_frozen=True)) == rest
    of_first = {"0.0.weight", "0.0.bias", *(f"0.{layer}.{name}" for layer in (1, 2) for name in statistics)}
    assert changed(model, fresh_weights(reset, 1)) == rest | of_first
    assert [parameter.requires_grad for parameter in kept.parameters()] == [False] * 4 + [True] * 2


def test_where_nothing_can_be_trained_nothing_counts_as_frozen() -> None:
    with torch.random.fork_rng():
        model, other = backbone().requires_grad_(False), backbone().requires_grad_(False)
    assert frozen_parameters(model) == []
    assert "0.0.weight" in changed(model, fresh_weights(other, 1, keep_frozen=True))


def test_a_frozen_layer_need_not_be_able_to_reset_itself() -> None:
    class Stuck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.ones(3), requires_grad=False)

    model = nn.Sequential(nn.Linear(3, 3), Stuck())
    assert torch.equal(fresh_weights(model, 0, keep_frozen=True).get_parameter("1.token"), torch.ones(3))
    with pytest.raises(UserError, match="'1' has parameters but no reset_parameters"):
        fresh_weights(model, 0)


def test_a_built_network_keeps_what_is_frozen_in_it_too() -> None:
    model = models.build("resnet18", num_classes=3, in_channels=1, image_size=8)
    model(torch.rand(4, 1, 8, 8))
    for layer in (model.conv1, model.bn1):
        layer.requires_grad_(False)
    fresh = fresh_weights(model, 1, keep_frozen=True)
    same = set(model.state_dict()) - changed(model, fresh)
    of_first = {"conv1.weight", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"}
    assert of_first <= same and not {"layer1.0.conv1.weight", "layer1.0.bn1.running_mean"} & same
    assert changed(model, fresh_weights(model, 1)) >= of_first


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
