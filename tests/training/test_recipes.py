"""Training settings by network: the published ones, and those of a kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.methods import Retrain
from pymixunlearn.methods.base import Recipe
from pymixunlearn.training import TrainConfig, defaults_for
from pymixunlearn.training.optimizers import make_optimizer
from pymixunlearn.training.recipes import defaults_of, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet18", "convolutional"),
        ("efficientnet_b0", "convolutional"),
        ("squeezenet1_1", "convolutional"),
        ("vit_b_32", "layer-norm"),
        ("swin_t", "layer-norm"),
        ("convnext_tiny", "layer-norm"),
    ],
)
def test_networks_of_torchvision_are_of_their_kind(name: str, kind: str) -> None:
    with torch.device("meta"):
        network = models.build(f"torchvision:{name}", num_classes=3)
    assert kind_of(network) == kind
    found = defaults_of(network, "initial")
    assert (found.optimizer, found.lr) == (("adam", 1e-3) if kind == "convolutional" else ("adamw", 3e-4))
    assert Recipe.published(network).retrain.epochs == 2 * found.epochs
    assert Retrain().resolve(network) == defaults_of(network, "retrain")


def test_a_start_from_pretrained_weights_has_settings_of_its_own() -> None:
    for kind in ("convolutional", "layer-norm"):
        fresh, tuned = (defaults_for("timm:any", "initial", kind=kind, pretrained=start) for start in (False, True))  # type: ignore[arg-type]
        assert tuned.lr < fresh.lr
    assert defaults_for("timm:any", "initial") == TrainConfig()
    assert defaults_for("vit", "initial", kind="layer-norm", pretrained=True) == TrainConfig(epochs=10, lr=1e-3)
    with pytest.raises(UserError, match="unknown model 'timm'"):
        defaults_for("timm", "initial")


def test_adamw_decays_the_weights_themselves() -> None:
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    make_optimizer(layer, "adamw", 0.1, weight_decay=0.5).step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5))
    assert TrainConfig(optimizer="adamw").optimizer == "adamw"
