from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import FURTHER_METRICS, METRICS, Metrics, evaluate, forget_accuracy, metric_keys, predict


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
    assert tuple(metrics)[:3] == metric_keys("class")
    assert metrics["test_r"] == 100.0
    assert metrics["test_f"] == 0.0
    assert metrics.gap is None


def test_sample_task_measures_training_samples(model: nn.Module, sample_task: tasks.Split) -> None:
    metrics = evaluate(Forgetful(model), sample_task, device="cpu")
    assert tuple(metrics)[:4] == metric_keys("data") == metric_keys("indices")
    # Only the retain set and the test set have samples of class 0.
    assert metrics["train_f"] == 100.0
    assert metrics["train_r"] == pytest.approx(100 * 120 / 180)
    assert metrics["test"] == 75.0
    assert (metrics["test_own"], metrics["test_others"]) == (100.0, 50.0)  # classes 1 and 2, and the others
    assert metrics.details["intervals"]["test_own"][1] == 100.0  # type: ignore[index]


def test_a_class_task_has_the_test_set_in_parts_already(model: nn.Module, class_task: tasks.Split) -> None:
    assert not evaluate(model, class_task, device="cpu").keys() & {"test_own", "test_others"}


def test_wrong_labels_do_not_make_a_class_one_of_d_f(leaky: data.Dataset, model: nn.Module) -> None:
    metrics = evaluate(Forgetful(model), tasks.noisy_split(leaky, classes=(0,), fraction=0.5), device="cpu")
    assert (metrics["test_own"], metrics["test_others"]) == (0.0, 100.0)


def test_gap_to_a_reference_model_or_its_metrics(model: nn.Module, class_task: tasks.Split) -> None:
    retrain = evaluate(Forgetful(model), class_task, device="cpu")
    against_model = evaluate(model, class_task, device="cpu", reference=Forgetful(model))
    against_metrics = evaluate(model, class_task, device="cpu", reference=dict(retrain))
    assert against_model.gap is not None and against_metrics.gap is not None
    for key in (*metric_keys("class"), "mean"):
        assert against_model.gap[key] == against_metrics.gap[key]
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


COMPARISONS = ("tow", "tow_mia", "activation_distance", "js_divergence")


def test_every_metric_is_explained(model: nn.Module, class_task: tasks.Split, sample_task: tasks.Split) -> None:
    measured = {
        **evaluate(model, class_task, device="cpu", relearn_to=0.0),
        **evaluate(model, sample_task, device="cpu"),
    }
    assert set(measured) == set(METRICS) - {"earlier_f"}  # of a model that has forgotten before


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
    assert all(f"| `{key}` |" in page for key in METRICS)


def test_without_retrain_comparisons_are_unknown_and_the_rest_is_not(model: nn.Module, class_task: tasks.Split) -> None:
    metrics = evaluate(model, class_task, device="cpu")
    assert [info.key for info in FURTHER_METRICS if info.needs_retrain] == list(COMPARISONS)
    assert all((metrics[key] is None) == (key in COMPARISONS) for key in metrics if key != "zrf")


def test_retrain_beside_itself_is_the_ideal(model: nn.Module, class_task: tasks.Split) -> None:
    metrics = evaluate(model, class_task, device="cpu", reference=model)
    assert [metrics[key] for key in COMPARISONS] == [METRICS[key].ideal for key in COMPARISONS] == [1.0, 1.0, 0.0, 0.0]


def test_tow_multiplies_the_three_differences(model: nn.Module, class_task: tasks.Split) -> None:
    metrics = evaluate(model, class_task, device="cpu", reference=Forgetful(model))
    # Right against wrong on all of D_f; alike on D_r; on the test set a quarter differs.
    assert metrics["tow"] == 0.0
    assert metrics.reference is not None
    attacked = abs(metrics["mia_loss"] - metrics.reference["mia_loss"]) / 100
    assert metrics["tow_mia"] == pytest.approx((1 - attacked) * 0.75)


def test_details_tell_classes_apart_and_say_how_sure_the_attacks_are(model: nn.Module, class_task: tasks.Split) -> None:
    details = evaluate(Forgetful(model), class_task, device="cpu").details
    assert details["per_class"] == [0.0, 100.0, 100.0, 100.0]
    assert details["confusion"] == [[0, 40, 0, 0], [0, 40, 0, 0], [0, 0, 40, 0], [0, 0, 0, 40]]
    low, high = details["intervals"]["mia_loss"]
    assert 0 <= low <= high <= 100
    assert json.loads(json.dumps(details)) == details


def test_training_samples_are_augmented_where_the_paper_says_so(leaky: data.Dataset) -> None:
    flipping = data.Dataset("flipped", leaky.train, leaky.test, data.Preprocess(flip=True))
    pixels = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    assert predict(pixels, tasks.class_split(flipping), device="cpu").augmented is None
    predictions = predict(pixels, tasks.data_split(flipping, classes=(1, 2)), device="cpu")
    assert predictions.augmented is not None and not torch.equal(predictions.augmented, predictions.train)


def test_forget_accuracy_is_that_of_the_forgotten_samples(model: nn.Module, class_task: tasks.Split) -> None:
    assert forget_accuracy(predict(model, class_task, device="cpu")) == 100.0
    assert forget_accuracy(predict(Forgetful(model), class_task, device="cpu")) == 0.0


class Altered(nn.Module):
    """A model whose logits of one class are replaced, for the bright images or for all."""

    def __init__(self, right: nn.Module, value: float, label: int = 0, every: bool = False) -> None:
        super().__init__()
        self.right, self.value, self.label, self.every = right, value, label, every
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.right(images) * self.scale
        return (
            torch.full_like(logits, self.value)
            if self.every
            else logits.index_fill(1, torch.tensor(self.label), self.value)
        )


@pytest.mark.parametrize(
    ("value", "every"), [(float("nan"), False), (float("inf"), False), (float("nan"), True), (float("-inf"), True)]
)
def test_logits_that_are_no_numbers_are_refused(
    model: nn.Module, class_task: tasks.Split, value: float, every: bool
) -> None:
    with pytest.raises(UserError, match=r"NaN or infinite for 240 of 240 images \(its parameters are finite\)"):
        evaluate(Altered(model, value, every=every), class_task, device="cpu")


def test_weights_that_are_nan_are_named(model: nn.Module, class_task: tasks.Split) -> None:
    broken = Altered(model, 0.0)
    broken.scale.data.fill_(float("nan"))
    with pytest.raises(UserError, match="its parameter 'scale' holds such values"):
        evaluate(broken, class_task, device="cpu")


def test_a_masked_class_is_measured(model: nn.Module, class_task: tasks.Split, sample_task: tasks.Split) -> None:
    metrics = evaluate(Altered(model, float("-inf")), class_task, device="cpu", reference=model)
    assert metrics["test_f"] == 0.0 and metrics["test_r"] == 100.0
    # The loss of every forgotten sample is that of an impossible one, and so is that of every unseen sample.
    assert metrics["mia_loss"] == 50.0 and metrics["loss_kde_distance"] is None
    assert all(value is None or math.isfinite(value) for value in metrics.values())
    metrics = evaluate(Altered(model, float("-inf"), label=1), sample_task, device="cpu")
    assert metrics["train_f"] == pytest.approx(100 * 28 / 60) and metrics["loss_kde_distance"] is not None


def test_the_samples_that_metrics_are_counted_on_are_told(model: nn.Module, sample_task: tasks.Split) -> None:
    details = evaluate(model, sample_task, device="cpu").details
    assert details["class_samples"] == [40, 40, 40, 40]
    expected = {"train_r": 180, "train_f": 60, "test_r": 160, "test_f": 0, "test": 160}
    assert {key: details["samples"][key] for key in expected} == expected  # type: ignore[index]
    assert [details["samples"][key] for key in ("mia_loss", "mia_confidence", "mia_entropy")] == [60] * 3  # type: ignore[index]


@pytest.mark.parametrize(("classes", "shape"), [(3, r"\[1, 3\]"), (1000, r"\[1, 1000\]")])
def test_a_model_of_other_classes_is_refused(classes: int, shape: str, class_task: tasks.Split) -> None:
    pixels = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    with pytest.raises(UserError, match=rf"{shape}; expected logits \[1, 4\].*'1' has {classes} outputs"):
        evaluate(pixels, class_task, device="cpu")
