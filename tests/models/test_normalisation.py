"""Batch normalisation: what is frozen stays as it is, and one value per channel is normalised by what was learnt."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn.models.normalisation import carry_norms, frozen_norms, hold_norms, release_norms


def network() -> nn.Sequential:
    backbone = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False))
    return nn.Sequential(backbone, nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The layers whose statistics are no longer what they were."""
    return {name.rpartition(".")[0] for name, now in model.named_buffers() if not torch.equal(now, before[name])}


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("nothing", []),
        ("backbone", ["0.1", "0.2"]),
        ("its normalisation", ["0.1"]),
        ("by mode", ["0.1", "0.2"]),
        ("all by mode", []),
        ("all weights", []),
    ],
)
def test_what_is_frozen_does_not_move(freeze: str, frozen: list[str]) -> None:
    model = network().train()
    if freeze == "backbone":
        model[0].requires_grad_(False)
    elif freeze == "its normalisation":
        model[0][1].requires_grad_(False)
    elif freeze == "by mode":
        model[0].eval()
    elif freeze == "all by mode":  # a model that was just evaluated
        model.eval()
    elif freeze == "all weights":  # refused elsewhere: nothing could be trained
        model.requires_grad_(False)
    hold_norms(model)
    assert frozen_norms(model) == frozen
    before = statistics(model)
    model.train()(torch.randn(4, 1, 4, 4))
    assert moved(model, before) == {"0.1", "0.2", "3"} - set(frozen)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 3, 1, 1, 1)])
def test_one_value_per_channel_is_normalised_by_the_running_statistics(shape: tuple[int, ...]) -> None:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    layer = kind(3).train()
    nn.init.constant_(layer.running_mean, 2.0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        copy.deepcopy(layer)(torch.ones(shape))
    hold_norms(layer)
    torch.testing.assert_close(layer(torch.ones(shape)), torch.full(shape, -1.0))
    assert layer.training and layer.num_batches_tracked == 0 and (layer.running_mean == 2).all()


def test_other_batches_are_normalised_as_before() -> None:
    plain, held = (nn.BatchNorm2d(3).train() for _ in range(2))
    hold_norms(held)
    for shape in [(2, 3, 1, 1), (1, 3, 2, 1)]:
        images = torch.randn(shape)
        assert torch.equal(plain(images), held(images))
    assert torch.equal(plain.running_var, held.running_var) and held.num_batches_tracked == 2


def test_hooks_go_along_with_copies_and_come_off() -> None:
    model = network().train()
    model[0].requires_grad_(False)
    hold_norms(model)
    other = network().train()
    carry_norms(model, other)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert frozen_norms(copied) == ["0.1", "0.2"]
        assert copied(torch.randn(1, 1, 4, 4)).shape == (1, 5)
        hold_norms(copied)  # once is enough
        assert [len(module._forward_hooks) for module in copied.modules()].count(1) == 3
        release_norms(copied)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in copied.modules())
