"""Hooks that let a network compute in bfloat16."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models, training
from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.models.autocast import (
    carry_precision,
    compute_as_usual,
    compute_in,
    computing_as_usual,
    settled_precision,
)
from pymixunlearn.models.features import FeatureExtractor

CPU = torch.device("cpu")


class Failing(nn.Module):
    """Raises an error for images of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images)
        if not images.any():
            raise ValueError("zeros")
        return logits


def cnn() -> nn.Module:
    return models.build("cnn", num_classes=4, in_channels=1, image_size=8)


IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_network_computes_in_bfloat16_and_returns_float32() -> None:
    network, inner = cnn(), []
    network.features.register_forward_hook(lambda module, args, output: inner.append(output.dtype))
    usual = network(IMAGES)
    compute_in(network, "bfloat16")
    logits = network(IMAGES)
    assert inner == [torch.float32, torch.bfloat16] and logits.dtype == torch.float32
    assert not torch.equal(logits, usual)
    torch.testing.assert_close(logits, usual, rtol=0.05, atol=0.05)
    assert not torch.is_autocast_enabled("cpu")
    logits.sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in network.parameters()
    )
    compute_as_usual(network)
    assert torch.equal(network(IMAGES), usual)


def test_float32_puts_nothing_on_it() -> None:
    network = cnn()
    compute_in(network, "float32")
    assert not network._forward_pre_hooks and not network._forward_hooks


def test_copies_compute_likewise() -> None:
    network = cnn()
    usual = network(IMAGES)
    compute_in(network, "bfloat16")
    expected = network(IMAGES)
    assert torch.equal(copy.deepcopy(network)(IMAGES), expected)
    assert torch.equal(pickle.loads(pickle.dumps(network))(IMAGES), expected)
    fresh = training.fresh_weights(network, seed=0)
    again = cnn()
    again.load_state_dict(fresh.state_dict())
    assert not torch.equal(fresh(IMAGES), again(IMAGES))
    carry_precision(network, again)
    assert torch.equal(fresh(IMAGES), again(IMAGES))
    compute_as_usual(network)
    assert torch.equal(network(IMAGES), usual)


def test_an_error_leaves_nothing_open() -> None:
    network = Failing()
    compute_in(network, "bfloat16")
    with pytest.raises(ValueError, match="zeros"):
        network(torch.zeros(2, 4))
    assert not torch.is_autocast_enabled("cpu")
    assert network(torch.ones(2, 4)).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_what_is_measured_is_measured_in_float32() -> None:
    network = cnn().eval()
    images = ImageSet(IMAGES, torch.zeros(5, dtype=torch.int64), tuple("abcd"))
    usual = predict_logits(network, images, Preprocess(), device=CPU)
    compute_in(network, "bfloat16")
    assert torch.equal(predict_logits(network, images, Preprocess(), device=CPU), usual)
    with computing_as_usual(network):
        assert torch.equal(network(Preprocess().evaluation(IMAGES)), usual)
    assert not torch.equal(network(Preprocess().evaluation(IMAGES)), usual)


def test_features_are_in_the_images_type() -> None:
    network = cnn()
    compute_in(network, "bfloat16")
    with FeatureExtractor(network) as extract:
        logits, features = extract(IMAGES)
    assert logits.dtype == features.dtype == torch.float32


def test_float64_is_refused() -> None:
    with pytest.raises(UserError, match="weights in float64; expected a model in float32"):
        compute_in(cnn().double(), "bfloat16")


def test_a_device_that_does_not_compute_in_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert settled_precision(None, gpu) == settled_precision("float32", gpu) == "float32"
    with pytest.raises(UserError, match="precision is bfloat16, in which the device 'cuda' does not compute"):
        settled_precision("bfloat16", gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert settled_precision(None, gpu) == settled_precision("bfloat16", gpu) == "bfloat16"
