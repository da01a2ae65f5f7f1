"""What the methods do to a class of real digits: they forget it, or there is a reason why they cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pymixunlearn import methods, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import Method


def _accuracies(model: nn.Module, split: tasks.Split) -> tuple[float, float]:
    """Test accuracy on the forgotten class and on the others, in percent."""
    with torch.no_grad():
        hits = model(split.preprocess.evaluation(split.test.images)).argmax(1) == split.test.targets
    forgotten = split.test.targets == 0
    return 100 * hits[forgotten].double().mean().item(), 100 * hits[~forgotten].double().mean().item()


def _losses(model: nn.Module, split: tasks.Split) -> tuple[float, float]:
    """Test cross-entropy on the forgotten class and on the others."""
    with torch.no_grad():
        logits = model(split.preprocess.evaluation(split.test.images))
    losses = nn.functional.cross_entropy(logits, split.test.targets, reduction="none")
    forgotten = split.test.targets == 0
    return losses[forgotten].mean().item(), losses[~forgotten].mean().item()


@pytest.mark.parametrize(
    ("method", "at_most", "at_least"),
    [
        (methods.BoundaryExpand(lr=1e-4), 10, 60),
        (methods.BoundaryShrink(lr=1e-3), 10, 80),
        (methods.Laf(), 65, 90),
        (methods.LMix(), 40, 90),
        (methods.RandLabel(), 50, 90),
        (methods.SalUn(), 10, 90),
        (methods.DsMixup(shards=2, slices=2, epochs=8, lr=0.02, momentum=0.9), 0, 90),
        (methods.Scrub(epochs=5), 10, 90),
        (methods.Sisa(shards=2, slices=2, epochs=8, lr=0.02, momentum=0.9), 0, 90),
        (methods.Ssd(), 10, 75),
        (methods.Teachers(teachers="bad", epochs=20, lr=1e-3), 60, 90),
    ],
    ids=lambda value: f"{value.name} {value.config}"[:40] if isinstance(value, Method) else "",
)
def test_forgets_a_class_of_digits(
    method: Method, at_most: float, at_least: float, digits_model: nn.Module, digits_class: tasks.Split
) -> None:
    before = _accuracies(digits_model, digits_class)
    assert before[0] > 90 and before[1] > 90
    forgotten, others = _accuracies(method.unlearn(digits_model, digits_class, device="cpu").model, digits_class)
    assert forgotten <= at_most
    assert others >= at_least


@pytest.mark.parametrize(
    "method",
    [methods.GradientAscent(lr=3e-4, epochs=10), methods.NegGrad(form="convex", lr=0.01, epochs=8)],
    ids=lambda method: method.name,
)
def test_ascent_raises_the_loss_of_the_class_before_it_ruins_the_others(
    method: Method, digits_model: nn.Module, digits_class: tasks.Split
) -> None:
    """A cross-entropy that is maximised has no end, and grows the faster the larger it is.

    At which epoch accuracy breaks therefore hangs on rounding; that the loss of the class leads does not.
    """
    before = _losses(digits_model, digits_class)
    after = _losses(method.unlearn(digits_model, digits_class, device="cpu").model, digits_class)
    assert after[0] > 2 * before[0]
    assert after[0] - before[0] > 2 * (after[1] - before[1])


def test_repair_gives_the_classifier_back_what_it_had(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    """One supervised epoch on D_r: the other classes gain, and so, a little, does the forgotten one."""
    result = methods.LafRepair().unlearn(digits_model, digits_class, device="cpu")
    forgotten, others = _accuracies(result.model, digits_class)
    assert forgotten < _accuracies(digits_model, digits_class)[0] - 10
    assert others >= _accuracies(digits_model, digits_class)[1] - 2


def test_fine_tuning_does_not_look_at_what_it_should_forget(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    """Nothing pushes the class out, and on separable digits nothing needs its place."""
    result = methods.FineTune(epochs=3).unlearn(digits_model, digits_class, device="cpu")
    forgotten, others = _accuracies(result.model, digits_class)
    assert forgotten > 60
    assert others >= _accuracies(digits_model, digits_class)[1] - 1


def test_gli_keeps_a_class_in_one_epoch(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    """The images it trains on keep their own labels; the paper's tables show the class kept as well (MNIST: 99.5)."""
    result = methods.Gli().unlearn(digits_model, digits_class, device="cpu")
    forgotten, others = _accuracies(result.model, digits_class)
    assert forgotten > 80 and others > 90
    assert "retain" in result.history[0]


def test_gli_stops_when_held_out_accuracy_falls(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    method = methods.Gli(epochs=3, lr=1.0, perturb_size=0.2, check_interval=2, tolerance=5)
    result = method.unlearn(digits_model, digits_class, device="cpu")
    assert len(result.history) == 3 and "retain" not in result.history[-1]  # stopped, so nothing more was trained
    patient = methods.Gli(epochs=3, lr=1e-6, check_interval=2).unlearn(digits_model, digits_class, device="cpu")
    assert all("retain" in record for record in patient.history)


def test_unrolling_needs_what_training_really_subtracted(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    """By default hardly anything: the gradients of D_f have vanished at the trained model, and Adam took larger steps.

    With a step as large as what was learnt, the class goes.
    """
    timid = methods.Unroll().unlearn(digits_model, digits_class, device="cpu")
    assert _accuracies(timid.model, digits_class)[0] > 90
    bold = methods.Unroll(lr=0.01, train_epochs=100).unlearn(digits_model, digits_class, device="cpu")
    assert _accuracies(bold.model, digits_class)[0] < 20


def test_trained_teachers_part_the_student_from_the_class(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    """-KL has no lower bound, so that with enough steps all else goes too: the balance is retain_weight."""
    method = methods.Teachers(batch_size=32)
    result = method.unlearn(digits_model, digits_class, device="cpu")
    forgotten, others = _accuracies(result.model, digits_class)
    assert forgotten < 20 < others
    assert len(result.history) == 30 and result.history[9].keys() >= {"forget_teacher"}


def test_ascent_too_steep_is_said_in_one_sentence(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    for method in (methods.NegGrad(lr=0.1), methods.GradientAscent(lr=0.1)):
        with pytest.raises(UserError, match="unlearning diverged.*expected a smaller lr"):
            method.unlearn(digits_model, digits_class, device="cpu")


def test_rewinding_needs_samples_of_the_same_classes(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    with pytest.raises(UserError, match="expected rewind=false when whole classes are forgotten"):
        methods.Scrub(rewind=True).unlearn(digits_model, digits_class, device="cpu")
