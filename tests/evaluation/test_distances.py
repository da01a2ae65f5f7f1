from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models, tasks
from pymixunlearn.evaluation import predict
from pymixunlearn.evaluation.distances import (
    activation_distance,
    jensen_shannon,
    loss_densities,
    loss_kde_distance,
    zero_retrain_forgetting,
)


def test_activation_distance_is_the_mean_euclidean_distance() -> None:
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    q = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert activation_distance(p, q) == pytest.approx(math.sqrt(2) / 2)


def test_jensen_shannon_against_its_definition() -> None:
    torch.manual_seed(0)
    p, q = torch.rand(5, 7, dtype=torch.float64).softmax(1), torch.rand(5, 7, dtype=torch.float64).softmax(1)
    middle = (p + q) / 2

    def entropy(x: Tensor) -> Tensor:
        return -(x * x.log2()).sum(1)

    torch.testing.assert_close(jensen_shannon(p, q), entropy(middle) - (entropy(p) + entropy(q)) / 2)


def test_jensen_shannon_at_its_ends() -> None:
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [math.nan, 0.0]])
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    same, opposite, unknown = jensen_shannon(p, q).tolist()
    assert (same, opposite) == (0.0, 1.0)
    assert math.isnan(unknown)


def test_zrf_is_one_for_a_random_network_and_less_for_a_certain_one(sample_task: tasks.Split, model: nn.Module) -> None:
    network = models.build("cnn", in_channels=1, image_size=8, num_classes=4)
    random = zero_retrain_forgetting(network, predict(network, sample_task, device="cpu"), device="cpu")
    assert random is not None and random > 0.98
    certain = zero_retrain_forgetting(network, predict(model, sample_task, device="cpu"), device="cpu")
    assert certain is not None and certain < 0.6


def test_zrf_is_unknown_where_weights_cannot_be_reset(sample_task: tasks.Split, model: nn.Module) -> None:
    model.register_parameter("stuck", nn.Parameter(torch.ones(1)))
    assert zero_retrain_forgetting(model, predict(model, sample_task, device="cpu"), device="cpu") is None


def test_loss_densities_tell_seen_from_unseen(sample_task: tasks.Split, model: nn.Module) -> None:
    betrayed = loss_kde_distance(predict(model, sample_task, device="cpu"))
    assert betrayed is not None and betrayed > 0.5

    class Blind(nn.Module):
        """Its loss depends on the class alone, which is the same in D_f and among the unseen."""

        def forward(self, images: Tensor) -> Tensor:
            label = (images[:, 0, 0, 1] * 255).round().long()
            return nn.functional.one_hot(label, 4).float() * label[:, None]

    assert loss_kde_distance(predict(Blind(), sample_task, device="cpu")) == pytest.approx(0.0, abs=5e-3)


def test_constant_losses_have_no_density(class_task: tasks.Split) -> None:
    class Mute(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), 4)

    assert loss_kde_distance(predict(Mute(), class_task, device="cpu")) is None


def test_densities_integrate_to_about_one() -> None:
    torch.manual_seed(0)
    grid, density = loss_densities(torch.rand(400, dtype=torch.float64) + 2)
    assert (density.sum() * (grid[1] - grid[0])) == pytest.approx(1.0, abs=0.05)
