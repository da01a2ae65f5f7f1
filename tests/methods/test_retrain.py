"""Retrain: fresh weights, the remaining data, nothing of what was known before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import tasks
from pymixunlearn.methods import Retrain, RetrainConfig

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
        "std_weight": 0.0,
    }
    result = Retrain(epochs=1).unlearn(tiny.model(), tiny.split(), device="cpu")
    assert result.config == RetrainConfig(epochs=1, lr=1e-3, weight_decay=1e-4, optimizer="adam")


def test_what_is_frozen_stays_as_the_initial_model_has_it_and_is_said(tiny: Any) -> None:
    model, split = tiny.model(), tiny.split()
    first = next(name for name, _ in model.named_parameters())
    model.get_parameter(first).requires_grad_(False)
    with pytest.warns(UserWarning, match=f"are frozen, 1 from '{first}' on; the retrained model has the same"):
        result = Retrain(epochs=1).unlearn(model, split, device="cpu").model
    assert torch.equal(result.get_parameter(first), model.get_parameter(first))
    others = [name for name, _ in model.named_parameters() if name != first]
    assert not any(torch.equal(result.get_parameter(name), model.get_parameter(name)) for name in others)
