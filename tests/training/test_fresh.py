from __future__ import annotations

import pytest
import torch
from torch import nn

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
