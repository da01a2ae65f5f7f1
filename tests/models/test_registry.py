from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.training import model_hash


def _layer_output(model: torch.nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("cnn", 1, 8),
        ("cnn", 3, 9),
        ("cnn", 1, 28),
        ("cnn", 2, 33),
        ("resnet18", 3, 32),
        ("resnet18", 1, 8),
        ("resnet18", 1, 70),
        ("vit", 1, 8),
        ("vit", 3, 32),
        ("vit", 1, 29),
    ],
)
def test_every_model_gives_logits_and_a_256_vector(name: str, channels: int, size: int) -> None:
    model = models.build(name, num_classes=7, in_channels=channels, image_size=size)
    images = torch.rand(2, channels, size, size)
    assert model.eval()(images).shape == (2, 7)
    assert _layer_output(model, str(model.embedding_layer), images).shape == (2, 256)
    assert model.architecture == {"name": name, "num_classes": 7, "in_channels": channels, "image_size": size}


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit"])
def test_weights_are_contiguous_so_that_any_library_saves_them(name: str, tmp_path: Path) -> None:
    model = models.build(name, num_classes=7, in_channels=1, image_size=8)
    for key, tensor in model.state_dict().items():
        assert tensor.stride() == torch.empty(tensor.shape).stride(), key
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert {key: tensor.shape for key, tensor in load_file(tmp_path / "model.safetensors").items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }


def test_the_cnn_computes_with_the_channels_innermost() -> None:
    model = models.build("cnn", num_classes=7, in_channels=1, image_size=8)
    features = _layer_output(model, "features", torch.rand(2, 1, 8, 8))
    assert features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()


def test_the_cnn_is_the_published_one() -> None:
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=28)
    images = torch.rand(4, 1, 28, 28)
    weights = model.state_dict()
    expected = images
    for layer in ("conv1", "conv2"):
        kernel, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
        expected = torch.nn.functional.conv2d(expected, kernel, bias, padding=2).relu()
        expected = torch.nn.functional.max_pool2d(expected, 2)
    torch.testing.assert_close(_layer_output(model, str(model.feature_layer), images), expected)
    for layer in ("embedding", "hidden", "head"):
        expected = torch.nn.functional.linear(expected.flatten(1), weights[f"{layer}.weight"], weights[f"{layer}.bias"])
    torch.testing.assert_close(model(images), expected)
    assert weights["embedding.weight"].shape == (256, 1568)


@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 8), (3, 33)])
def test_resnet14_has_three_stages_and_a_vector_of_64(channels: int, size: int) -> None:
    model = models.build("resnet14", num_classes=10, in_channels=channels, image_size=size).eval()
    images = torch.rand(2, channels, size, size)
    assert model(images).shape == (2, 10)
    assert _layer_output(model, str(model.embedding_layer), images).shape == (2, 64)
    quarter = (size + 3) // 4
    assert _layer_output(model, str(model.feature_layer), images).shape == (2, 64, quarter, quarter)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len([layer for layer in convolutions if layer.kernel_size == (3, 3)]) == 13
    if channels == 3:
        assert sum(parameter.numel() for parameter in model.parameters()) == 175_258
        assert sum(parameter.numel() for parameter in model.head.parameters()) == 650


def test_resnet_has_a_256_channel_feature_map_of_the_published_size() -> None:
    model = models.build("resnet18", num_classes=10, in_channels=3, image_size=224)
    assert _layer_output(model, str(model.feature_layer), torch.rand(1, 3, 224, 224)).shape == (1, 256, 14, 14)
    native = models.build("resnet18", num_classes=10, in_channels=3, image_size=32)
    assert _layer_output(native, str(native.feature_layer), torch.rand(1, 3, 32, 32)).shape == (1, 256, 8, 8)


@pytest.mark.parametrize("name", models.available())
def test_the_seed_alone_fixes_the_weights(name: str) -> None:
    kwargs = {"num_classes": 3, "in_channels": 1, "image_size": 8}
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = model_hash(models.build(name, seed=5, **kwargs))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert model_hash(models.build(name, seed=5, **kwargs)) == first
    assert model_hash(models.build(name, seed=6, **kwargs)) != first


def test_available_names() -> None:
    assert models.available() == ["cnn", "resnet14", "resnet18", "vit"]


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown model 'resnet'.*Did you mean 'resnet1[48]'"):
        models.build("resnet", num_classes=10, in_channels=3, image_size=32)


@pytest.mark.parametrize(("field", "value"), [("num_classes", 1), ("in_channels", 0), ("image_size", 7)])
def test_numbers_out_of_range_are_named(field: str, value: int) -> None:
    kwargs = {"num_classes": 10, "in_channels": 1, "image_size": 28, field: value}
    with pytest.raises(UserError, match=f"{field} of model 'cnn' is {value}"):
        models.build("cnn", **kwargs)


def test_resnet_without_torchvision_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    with pytest.raises(UserError, match="'resnet18' needs torchvision.*use model 'cnn'"):
        models.build("resnet18", num_classes=10, in_channels=3, image_size=32)


SMALL = {"num_classes": 3, "in_channels": 1, "image_size": 8}


def _replaced(name: str, layer: str, new: torch.nn.Module, **members: int) -> torch.nn.Module:
    model = models.build(name, **SMALL, **members)
    model.set_submodule(layer, new)
    return model


class _Doubling(torch.nn.Linear):
    """A layer that prints and weighs like its parent and is another."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(images)


_Doubling.__name__ = "Linear"


@pytest.mark.parametrize(
    "changed",
    [
        lambda: _replaced("cnn", "head", torch.nn.Linear(128, 5)),
        lambda: _replaced("cnn", "head", torch.nn.Linear(128, 3, bias=False)),
        lambda: _replaced("cnn", "hidden", torch.nn.Sequential(torch.nn.Linear(256, 128), torch.nn.ReLU())),
        lambda: _replaced("cnn", "features.relu1", torch.nn.LeakyReLU()),
        lambda: _replaced("cnn", "hidden", _Doubling(256, 128)),
        lambda: _replaced("vit", "norm", torch.nn.LayerNorm(128, eps=1e-3)),
        lambda: _replaced("cnn", "members.1.head", torch.nn.Linear(128, 5), members=2),
        lambda: _replaced("cnn", "head", torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(128, 3))),
        lambda: _replaced("cnn", "head", _Stateful(128, 3)),
    ],
)
def test_a_changed_network_is_no_longer_a_built_one(changed: Callable[[], torch.nn.Module]) -> None:
    model = changed()
    assert models.architecture_of(model) is None
    assert models.architecture_name(model) is None
    assert models.ensemble_of([model, model], None, "mean").__dict__.get("architecture") is None


class _Stateful(torch.nn.Linear):
    """Its state holds something that is no tensor, as that of a quantized layer does."""

    def get_extra_state(self) -> object:
        return {"dtype": "int8"}


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("name", models.available())
def test_what_is_not_structure_changes_no_network(name: str, members: int | None) -> None:
    model = models.build(name, **SMALL, members=members)
    expected = dict(model.architecture)
    for changed in (model, copy.deepcopy(model), model.train(), model.requires_grad_(False), model.half()):
        assert models.architecture_of(changed) == expected
    assert models.architecture_name(model) == name


@pytest.mark.parametrize("declared", [{"name": "cnn"}, {**SMALL, "name": "cnn", "extra": 1}, {"name": []}, "cnn", None])
def test_an_attribute_of_that_name_does_not_make_a_built_network(declared: object) -> None:
    model = torch.nn.Linear(1, 1)
    model.architecture = declared
    assert models.architecture_of(model) is None
