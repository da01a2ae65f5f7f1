"""Retrain: fresh weights, the remaining data, nothing of what was known before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import tasks
from pymixunlearn.errors import UserError
from pymixunlearn.methods import Retrain, RetrainConfig
from pymixunlearn.methods.retrain import fresh_weights

Same = Callable[[nn.Module, nn.Module], bool]


def test_never_sees_the_forgotten_class(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    result = Retrain(epochs=4).unlearn(digits_model, digits_class, device="cpu")
    inputs, targets = digits_class.preprocess.evaluation(digits_class.test.images), digits_class.test.targets
    with torch.no_grad():
        hits = (result.model(inputs).argmax(1) == targets).double()
    assert hits[targets == 0].mean() == 0
    assert hits[targets != 0].mean() > 0.85
    assert len(result.history) == 4
    assert result.model.architecture == digits_model.architecture


def test_depends_on_the_seed_and_not_on_the_given_weights(tiny: Any, same_weights: Same) -> None:
    def run(model_seed: int, seed: int) -> nn.Module:
        return Retrain(epochs=1).unlearn(tiny.model(model_seed), tiny.split(), device="cpu", seed=seed).model

    assert same_weights(run(0, 0), run(1, 0))
    assert not same_weights(run(0, 0), run(0, 1))


def test_settings_left_open_are_those_of_the_network(tiny: Any, digits_model: nn.Module) -> None:
    assert Retrain().resolve(digits_model).epochs == 20
    assert Retrain(epochs=3, lr=0.1).resolve(digits_model).to_dict() == {
        "epochs": 3,
        "lr": 0.1,
        "weight_decay": 1e-4,
        "batch_size": 32,
        "optimizer": "adam",
        "momentum": 0.9,
    }
    result = Retrain(epochs=1).unlearn(tiny.model(), tiny.split(), device="cpu")
    assert result.config == RetrainConfig(epochs=1, lr=1e-3)


def test_every_layer_of_a_users_network_is_reset(same_weights: Same) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.TransformerEncoderLayer(4, 2), nn.Linear(4, 2)]
        return nn.ModuleList(layers)

    with torch.random.fork_rng():
        old, new, again, other = (network() for _ in range(4))
    new, again, other = fresh_weights(new, 1), fresh_weights(again, 1), fresh_weights(other, 2)
    assert same_weights(new, again) and not same_weights(new, other)
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
