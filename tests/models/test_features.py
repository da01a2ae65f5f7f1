from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models import FeatureExtractor, find_feature_layer
from pymixunlearn.training import model_hash


class Plain(nn.Module):
    """A user's network: no attribute of ours, batch norm and dropout inside, a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2)
        self.drop = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop(self.second(self.norm(self.first(images)).relu()))
        return self.head(self.pool(hidden).flatten(1))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def built(name: str, size: int = 8) -> nn.Module:
    return models.build(name, num_classes=3, in_channels=1, image_size=size).eval()


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("cnn", 28, (2, 32, 7, 7)),
        ("resnet14", 32, (2, 64, 8, 8)),
        ("resnet18", 32, (2, 256, 8, 8)),
        ("vit", 28, (2, 128, 7, 7)),
    ],
)
def test_our_models(name: str, size: int, expected: tuple[int, ...]) -> None:
    model = built(name, size)
    images = torch.rand(2, 1, size, size)
    with FeatureExtractor(model) as extract:
        logits, features = extract(images)
        assert extract.layer == model.feature_layer == find_feature_layer(model, images)
        assert extract.channels(images[:1]) == expected[1]
    assert features.shape == expected
    assert torch.equal(logits, model(images))
    assert hooks(model) == 0


def test_torchvision_resnet() -> None:
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock

    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5).eval()
    images = torch.rand(2, 3, 64, 64)
    assert find_feature_layer(model, images) == "layer3"
    with FeatureExtractor(model) as extract, torch.no_grad():
        logits, features = extract(images)
    assert logits.shape == (2, 5)
    assert features.shape == (2, 256, 4, 4)


def test_torchvision_vision_transformer() -> None:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24, num_classes=5).eval()
    images = torch.rand(2, 3, 32, 32)
    assert find_feature_layer(model, images) == "encoder.layers.encoder_layer_1"
    with FeatureExtractor(model) as extract, torch.no_grad():
        logits, features = extract(images)
        tokens = model.encoder.layers(
            torch.cat([model.class_token.expand(2, -1, -1), model._process_input(images)], 1)
            + model.encoder.pos_embedding
        )
    assert logits.shape == (2, 5)
    # Token 1 + 4 i + j is the patch in row i, column j.
    torch.testing.assert_close(features[:, :, 2, 3], tokens[:, 1 + 4 * 2 + 3])
    assert features.shape == (2, 12, 4, 4)


def test_a_trial_run_finds_the_last_map_and_changes_nothing() -> None:
    model = Plain().train()
    model.norm.eval()
    before = model_hash(model)
    assert find_feature_layer(model, torch.rand(2, 1, 8, 8)) == "drop"
    assert model_hash(model) == before
    assert hooks(model) == 0
    assert model.training
    assert model.drop.training
    assert not model.norm.training


def test_a_model_without_maps_asks_for_a_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UserError, match="pass feature_layer"):
        find_feature_layer(model, torch.rand(2, 1, 8, 8))
    with pytest.raises(UserError, match="feature_layer is not given"):
        FeatureExtractor(model)


def test_a_failing_trial_run_leaves_no_hooks() -> None:
    model = Plain().train()
    with pytest.raises(RuntimeError):
        find_feature_layer(model, torch.rand(2, 2, 8, 8))
    assert hooks(model) == 0
    assert model.training


def test_hooks_go_on_close_on_exceptions_and_when_dropped() -> None:
    model = Plain()
    extract = FeatureExtractor(model, "second")
    assert hooks(model) == 1
    extract.close()
    extract.close()
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="closed"):
        extract(torch.rand(1, 1, 8, 8))

    with pytest.raises(RuntimeError), FeatureExtractor(model, "second") as extract:
        extract(torch.rand(1, 2, 8, 8))
    assert hooks(model) == 0

    extract = FeatureExtractor(model, "second")
    del extract
    gc.collect()
    assert hooks(model) == 0


def test_the_model_and_its_copies_run_freely_meanwhile() -> None:
    model = Plain().eval()
    images, others = torch.rand(2, 1, 8, 8), torch.rand(3, 1, 8, 8)
    with FeatureExtractor(model, "second") as extract:
        clone = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in clone.parameters():
                parameter.zero_()
        _, features = extract(images)
        clone(others)
        model(others)
        assert extract._tap.output is None
        torch.testing.assert_close(extract(images)[1], features)


def test_gradients_reach_the_layer_and_the_images() -> None:
    model = Plain().eval()
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    with FeatureExtractor(model, "second") as extract:
        extract(images)[1].square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert model.second.weight.grad is not None
    assert model.head.weight.grad is None


def test_unknown_silent_and_unsuitable_layers() -> None:
    model = Plain().eval()
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(UserError, match="unknown feature_layer 'secnd'.*Did you mean 'second'"):
        FeatureExtractor(model, "secnd")
    with FeatureExtractor(model, "unused") as extract, pytest.raises(UserError, match="'unused' did not run"):
        extract(images)
    with FeatureExtractor(model, "head") as extract, pytest.raises(UserError, match=r"'head' returns shape \[2, 3\]"):
        extract(images)


def test_layers_with_several_outputs_and_odd_token_counts() -> None:
    class Tokens(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.count = count
            self.layer = nn.GRU(2, 5, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.flatten(1)[:, : 2 * self.count].unflatten(1, (self.count, 2)))[0].mean(1)

    images = torch.rand(2, 1, 8, 8)
    with FeatureExtractor(Tokens(9), "layer") as extract:
        assert extract(images)[1].shape == (2, 5, 3, 3)
    with FeatureExtractor(Tokens(10), "layer") as extract:
        assert extract(images)[1].shape == (2, 5, 3, 3)
    with FeatureExtractor(Tokens(8), "layer") as extract, pytest.raises(UserError, match="square number"):
        extract(images)
