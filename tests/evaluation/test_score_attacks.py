from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.evaluation import predict, score_attacks
from pymixunlearn.evaluation.score_attacks import _interval, _scores

KEYS = ("mia_loss", "mia_confidence", "mia_entropy")


def test_scores_are_loss_confidence_and_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    scores = _scores(logits, torch.tensor([0, 1]))
    probability = logits.double().softmax(1)
    torch.testing.assert_close(scores["mia_loss"], -probability[[0, 1], [0, 1]].log())
    torch.testing.assert_close(scores["mia_confidence"], probability[[0, 1], [0, 1]])
    torch.testing.assert_close(scores["mia_entropy"], -(probability * probability.log()).sum(1))


def test_a_model_that_betrays_its_training_is_found_out(model: nn.Module, sample_task: tasks.Split) -> None:
    attacks = score_attacks(predict(model, sample_task, device="cpu"))
    for key in KEYS:
        estimate = attacks[key]
        assert estimate is not None and estimate.value > 90
        assert estimate.low <= estimate.value <= estimate.high <= 100


def test_a_model_that_treats_all_alike_leaves_the_attacks_guessing(leaky: data.Dataset) -> None:
    class Noise(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.randn(len(images), 4, generator=torch.Generator().manual_seed(len(images)))

    attacks = score_attacks(predict(Noise(), tasks.data_split(leaky, classes=(0, 1, 2, 3)), device="cpu"))
    for key in KEYS:
        estimate = attacks[key]
        assert estimate is not None and estimate.low <= 50 <= estimate.high


def test_the_seed_fixes_the_estimate(model: nn.Module, sample_task: tasks.Split) -> None:
    predictions = predict(model, sample_task, device="cpu")
    assert score_attacks(predictions, seed=1) == score_attacks(predictions, seed=1)


def test_unseen_samples_are_of_the_forgotten_classes(model: nn.Module, sample_task: tasks.Split) -> None:
    predictions = predict(model, sample_task, device="cpu")
    assert predictions.test_targets[predictions.unseen_like_forget].unique().tolist() == [1, 2]
    assert len(predictions.unseen_like_forget) == 80


def test_too_few_unseen_samples_leave_the_attacks_out(model: nn.Module, leaky: data.Dataset) -> None:
    kept = (leaky.test.targets != 0).nonzero().squeeze(1)
    dataset = data.Dataset("partial", leaky.train, leaky.test.subset(kept), leaky.preprocess)
    assert score_attacks(predict(model, tasks.class_split(dataset), device="cpu")) == dict.fromkeys(KEYS)


def test_the_interval_is_wider_than_that_of_independent_splits() -> None:
    accuracies = np.array([48.0, 52.0] * 5)
    estimate = _interval(accuracies)
    assert estimate.value == 50.0
    independent = 2.262 * accuracies.std(ddof=1) / np.sqrt(10)
    assert estimate.high - 50.0 == pytest.approx(independent * np.sqrt(1 + 10 * 0.25), rel=1e-3)
    assert _interval(np.array([100.0, 99.0] * 5)).high == 100.0
