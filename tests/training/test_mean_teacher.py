from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, models, seeding, tasks
from pymixunlearn.data import ImageSet, Preprocess, TrainingSet, UnlabelledImages
from pymixunlearn.data.batches import batches
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import (
    MeanTeacherConfig,
    TrainConfig,
    TrainResult,
    defaults_for,
    fit,
    model_hash,
    train_mean_teacher,
)
from pymixunlearn.training.mean_teacher import ramp
from pymixunlearn.training.views import strong_view, weak_view
from tests.training.watching import Watcher

CPU = torch.device("cpu")


def noise(count: int, seed: int = 0) -> ImageSet:
    stream = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 8, 8, generator=stream)
    return ImageSet(images, torch.randint(3, (count,), generator=stream), ("0", "1", "2"))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )


def taught(model: nn.Module, config: MeanTeacherConfig, *, seed: int = 0, **further: object) -> TrainResult:
    return train_mean_teacher(
        copy.deepcopy(model),
        noise(20),
        noise(30, seed=1).unlabelled(),
        Preprocess(flip=True),
        config,
        device=CPU,
        seed=seed,
        **further,  # type: ignore[arg-type]
    )


def test_two_steps_are_those_of_the_paper() -> None:
    labelled, unlabelled = noise(6), noise(6, seed=1).unlabelled()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    config = MeanTeacherConfig(
        epochs=1, batch_size=3, lr=0.1, optimizer="sgd", momentum=0.0, weight_decay=0.0, std_weight=0.5,
        consistency=4.0, ramp_up=2.0, ema=0.4,
    )  # fmt: skip
    double = _Double()
    result = train_mean_teacher(copy.deepcopy(model), labelled, unlabelled, double, config, device=CPU, seed=7)

    student, teacher = ([parameter.detach().clone() for parameter in model[1].parameters()] for _ in range(2))
    chance = seeding.generator(7, "views", 0)
    order = {kind: derive_seed(7, "batches", kind, 0, 0) for kind in ("labelled", "unlabelled")}
    known = list(batches(labelled, double, batch_size=3, device=CPU, seed=order["labelled"]))
    unknown = list(batches(unlabelled, double, batch_size=3, device=CPU, seed=order["unlabelled"], labels=False))
    for step in range(2):
        targets = known[step].targets
        assert targets is not None
        images = torch.cat([known[step].images, unknown[step].images])
        strong, weak = strong_view(images, chance).flatten(1), weak_view(images, chance).flatten(1)
        weight, bias = (value.requires_grad_() for value in student)
        logits = strong @ weight.T + bias
        wanted = torch.softmax(weak @ teacher[0].T + teacher[1], 1)
        log_probabilities = logits[:3] - logits[:3].exp().sum(1, keepdim=True).log()
        cross_entropy = -log_probabilities[torch.arange(3), targets].mean()
        spread = ((logits[:3] - logits[:3].mean(1, keepdim=True)) ** 2).mean(1).sqrt().mean()
        consistency = ((torch.softmax(logits, 1) - wanted) ** 2).sum() / (6 * 3)
        share = math.exp(-5 * (1 - (step / 2) / 2) ** 2)
        gradients = torch.autograd.grad(cross_entropy + 0.5 * spread + 4 * share * consistency, [weight, bias])
        student = [value.detach() - 0.1 * change for value, change in zip((weight, bias), gradients, strict=True)]
        keep = min(1 - 1 / (step + 1), 0.4)
        teacher = [keep * old + (1 - keep) * new for old, new in zip(teacher, student, strict=True)]
    for found, expected in zip(result.model[1].parameters(), teacher, strict=True):  # type: ignore[index]
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    assert set(result.history[0]) == {"epoch", "seconds", "loss", "accuracy", "consistency"}


class _Double(Preprocess):
    """Images reach the network in double precision, for an exact comparison."""

    def evaluation(self, images: Tensor) -> Tensor:
        return super().evaluation(images).double()


def test_unlabelled_images_help() -> None:
    """With 60 labels, training on the other images as well beats training on the labels alone."""
    digits = data.load("digits")
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(1))
    labelled, rest = digits.train.subset(order[:60]), digits.train.subset(order[60:]).unlabelled()
    scores = {}
    for consistency in (0.0, 30.0):
        config = MeanTeacherConfig(epochs=20, consistency=consistency)
        fresh = models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=1)
        model = fit(fresh, TrainingSet(labelled, rest), digits.preprocess, config, device=CPU, seed=1).model
        assert not model.training and all(parameter.requires_grad for parameter in model.parameters())
        logits = predict_logits(model, digits.test, digits.preprocess, device=CPU)
        scores[consistency] = accuracy(logits, digits.test.targets)
    assert scores[30.0] is not None and scores[0.0] is not None and scores[30.0] > scores[0.0] + 1


def test_one_seed_one_result_and_no_trace_in_the_global_generator() -> None:
    model, config = network(), MeanTeacherConfig(epochs=2, batch_size=8)
    before = torch.random.get_rng_state()
    first = taught(model, config, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert model_hash(taught(model, config, seed=3).model) == model_hash(first.model) != model_hash(model)
    assert model_hash(taught(model, config, seed=4).model) != model_hash(first.model)


@pytest.mark.parametrize("stop_at_step", [8, 9])  # the end of the second epoch of 4 steps, and the middle of the third
def test_interrupted_and_resumed_is_bit_for_bit_the_same(stop_at_step: int) -> None:
    model, config = network(), MeanTeacherConfig(epochs=4, batch_size=8)
    whole, watcher = taught(model, config), Watcher(stop_at_step)
    with pytest.raises(KeyboardInterrupt):
        taught(model, config, callbacks=[watcher])
    resumed = taught(model, config, resume=watcher.snapshots[-1])
    assert model_hash(resumed.model) == model_hash(whole.model)


def test_ramp() -> None:
    assert [ramp(t, 4) for t in (0, 2, 4, 9)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])
    assert ramp(0, 0) == 1


@pytest.mark.parametrize("empty", ["labelled", "unlabelled"])
def test_both_parts_are_needed(empty: str) -> None:
    sets: dict[str, ImageSet | UnlabelledImages] = {"labelled": noise(4), "unlabelled": noise(4).unlabelled()}
    sets[empty] = sets[empty].subset(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UserError, match=f"the {empty} part of the training set is empty"):
        train_mean_teacher(network(), **sets, preprocess=Preprocess(), config=MeanTeacherConfig(), device=CPU)  # type: ignore[arg-type]


def test_the_settings_fit_the_training_set() -> None:
    partly = TrainingSet(noise(4), noise(4).unlabelled())
    with pytest.raises(UserError, match="config is a TrainConfig; expected a MeanTeacherConfig"):
        fit(network(), partly, Preprocess(), TrainConfig(), device=CPU)
    with pytest.raises(UserError, match="config is a MeanTeacherConfig; expected a TrainConfig"):
        fit(network(), TrainingSet(noise(4)), Preprocess(), MeanTeacherConfig(), device=CPU)
    assert isinstance(defaults_for("cnn", "retrain", semi_supervised=True), MeanTeacherConfig)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("consistency", -1.0, "a number of at least 0"),
        ("ramp_up", -0.5, "a number of at least 0"),
        ("ema", 1.0, r"a number in \[0, 1\)"),
        ("std_weight", -1.0, "a number of at least 0"),
    ],
)
def test_settings_out_of_range(field: str, value: float, expected: str) -> None:
    with pytest.raises(UserError, match=f"{field} is .*; expected {expected}"):
        MeanTeacherConfig(**{field: value})  # type: ignore[arg-type]


# The views


def test_a_weak_view_shifts_by_up_to_two_pixels() -> None:
    images = torch.zeros(200, 1, 28, 28)
    images[:, :, 13:15, 13:15] = 1.0
    views = weak_view(images, torch.Generator().manual_seed(0))
    pixels = torch.arange(28.0) - 13.5
    for across in (0, 1):
        profile = views.sum(3 - across).squeeze(1)  # [200, 28]
        centres = (profile * pixels).sum(1) / profile.sum(1)
        assert centres.abs().max() <= 2 and centres.min() < -1.5 and centres.max() > 1.5
    assert torch.allclose(views.sum((1, 2, 3)), torch.full((200,), 4.0), atol=1e-4)


def test_a_strong_view_cuts_a_square_out() -> None:
    views = strong_view(torch.ones(50, 3, 32, 32), torch.Generator().manual_seed(0))
    assert views.shape == (50, 3, 32, 32)
    # Seen whole, the square is 8 x 8; what turning, shrinking and shifting bring in from beyond the edge is 0 too.
    missing = (views == 0).sum((2, 3))
    assert (missing[:, 0] >= 16).all() and (missing == missing[:, :1]).all() and views.mean() > 0.6


def test_views_differ_between_images_and_follow_the_generator() -> None:
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    for view in (weak_view, strong_view):
        first, again, other = (view(image, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert len({tuple(single.flatten().tolist()) for single in first}) == 4


def test_a_semi_supervised_split_can_be_fitted() -> None:
    split = tasks.semi_supervised_split(data.load("digits"))
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    result = fit(model, split.training_set, split.preprocess, MeanTeacherConfig(epochs=1), device=CPU)
    assert result.history[0]["accuracy"] > 10 and result.model is model
