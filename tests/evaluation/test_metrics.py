from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.evaluation import Metrics, evaluate, metric_keys


class Forgetful(nn.Module):
    """Right about every class but 0, which it calls 1."""

    def __init__(self, right: nn.Module) -> None:
        super().__init__()
        self.right = right

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.right(images)
        logits = logits.clone()
        wrong = logits.argmax(dim=1) == 0
        logits[wrong] = logits[wrong].roll(1, dims=1)
        return logits


def test_class_task_separates_forgotten_from_remaining_classes(model: nn.Module, class_task: tasks.Split) -> None:
    metrics = evaluate(Forgetful(model), class_task, device="cpu")
    assert tuple(metrics) == metric_keys("class")
    assert metrics["test_r"] == 100.0
    assert metrics["test_f"] == 0.0
    assert metrics.gap is None


def test_sample_task_measures_training_samples(model: nn.Module, sample_task: tasks.Split) -> None:
    metrics = evaluate(Forgetful(model), sample_task, device="cpu")
    assert tuple(metrics) == metric_keys("data") == metric_keys("indices")
    # Only the retain set and the test set have samples of class 0.
    assert metrics["train_f"] == 100.0
    assert metrics["train_r"] == pytest.approx(100 * 120 / 180)
    assert metrics["test"] == 75.0


def test_gap_to_a_reference_model_or_its_metrics(model: nn.Module, class_task: tasks.Split) -> None:
    retrain = evaluate(Forgetful(model), class_task, device="cpu")
    against_model = evaluate(model, class_task, device="cpu", reference=Forgetful(model))
    against_metrics = evaluate(model, class_task, device="cpu", reference=dict(retrain))
    assert against_model.gap == against_metrics.gap
    assert against_model.gap is not None
    assert against_model.gap["test_f"] == 100.0
    assert against_model.gap["mean"] == pytest.approx((100 + against_model.gap["asr"]) / 3)


def test_missing_metrics_stay_out_of_the_mean() -> None:
    gap = Metrics({"test_r": 90.0, "test_f": None, "asr": 40.0}).gap_to({"test_r": 92.0, "test_f": 1.0, "asr": 44.0})
    assert gap == {"test_r": 2.0, "test_f": None, "asr": 4.0, "mean": 3.0}
    assert Metrics({"test_f": None}).gap_to({}) == {"test_f": None, "mean": None}


def test_metrics_are_json(model: nn.Module, class_task: tasks.Split) -> None:
    metrics = evaluate(model, class_task, device="cpu")
    assert json.loads(json.dumps(metrics)) == dict(metrics)


def test_a_class_without_test_samples_has_no_accuracy(model: nn.Module, leaky: data.Dataset) -> None:
    kept = (leaky.test.targets != 0).nonzero().squeeze(1)
    dataset = data.Dataset("partial", leaky.train, leaky.test.subset(kept), leaky.preprocess)
    assert evaluate(model, tasks.class_split(dataset), device="cpu")["test_f"] is None


def test_the_model_keeps_its_mode_and_weights(class_task: tasks.Split) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, class_task, device="cpu")
    assert model.training and model[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
