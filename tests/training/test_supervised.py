from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, models
from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.training import (
    TrainConfig,
    TrainResult,
    defaults_for,
    model_hash,
    train,
)
from pymixunlearn.training.optimizers import Adam
from tests.training.watching import Watcher

CPU = torch.device("cpu")


def noise(count: int, *, size: int = 8, classes: int = 3) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, classes, (count,), generator=generator)
    return ImageSet(images, targets, tuple(map(str, range(classes))))


def ones(count: int) -> ImageSet:
    return ImageSet(torch.ones(count, 1, 8, 8), torch.zeros(count, dtype=torch.int64), ("0", "1", "2"))


def fresh(name: str = "cnn", *, seed: int = 0) -> nn.Module:
    return models.build(name, num_classes=3, in_channels=1, image_size=8, seed=seed)


def with_dropout_and_batch_norm() -> nn.Module:
    # The seed of the weights is not what is tested; the copy of one model is.
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )


AUGMENTED = Preprocess(random_crop=True, flip=True)


def trained(model: nn.Module, config: TrainConfig, *, seed: int = 0, **kwargs: object) -> TrainResult:
    return train(copy.deepcopy(model), noise(50), AUGMENTED, config, device=CPU, seed=seed, **kwargs)  # type: ignore[arg-type]


def test_it_learns_the_digits() -> None:
    digits = data.load("digits")
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    result = train(model, digits.train, digits.preprocess, TrainConfig(epochs=5), device=CPU)
    with torch.no_grad():
        predicted = result.model(digits.preprocess.evaluation(digits.test.images)).argmax(1)
    assert (predicted == digits.test.targets).double().mean() > 0.93
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4, 5]
    assert result.history[-1]["accuracy"] > 93 > result.history[0]["accuracy"]
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.seconds == pytest.approx(sum(record["seconds"] for record in result.history))
    assert not result.model.training


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("make", [fresh, with_dropout_and_batch_norm])
def test_one_seed_one_result(make: Callable[[], nn.Module], optimizer: str) -> None:
    model, config = make(), TrainConfig(epochs=2, optimizer=optimizer)  # type: ignore[arg-type]
    torch.manual_seed(1)
    first = trained(model, config, seed=3)
    torch.manual_seed(2)
    second = trained(model, config, seed=3)
    assert model_hash(first.model) == model_hash(second.model) != model_hash(model)
    assert [r["loss"] for r in first.history] == [r["loss"] for r in second.history]
    assert model_hash(trained(model, config, seed=4).model) != model_hash(first.model)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("make", [fresh, with_dropout_and_batch_norm])
@pytest.mark.parametrize("stop_at_step", [4, 5, 6])  # the end of an epoch (of 2 steps), the middle, the next end
def test_interrupted_and_resumed_is_bit_for_bit_the_same(
    make: Callable[[], nn.Module], optimizer: str, stop_at_step: int
) -> None:
    schedule = "linear" if optimizer == "sgd" else "constant"
    model, config = make(), TrainConfig(epochs=4, optimizer=optimizer, schedule=schedule)  # type: ignore[arg-type]
    whole = trained(model, config)
    watcher = Watcher(stop_at_step)
    with pytest.raises(KeyboardInterrupt):
        trained(model, config, callbacks=[watcher])
    resumed = trained(model, config, resume=watcher.snapshots[-1])
    assert model_hash(resumed.model) == model_hash(whole.model)
    for record, expected in zip(resumed.history, whole.history, strict=True):
        assert {**record, "seconds": 0} == {**expected, "seconds": 0}


def test_every_epoch_has_its_own_order_and_its_own_dropout() -> None:
    dropout = nn.Dropout(0.5)
    model = nn.Sequential(nn.Flatten(), dropout, nn.Linear(64, 3))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    dropout.register_forward_hook(lambda module, args, output: seen.append((args[0], output == 0)))
    train(model, noise(32), Preprocess(), TrainConfig(epochs=2), device=CPU)
    (first, first_mask), (second, second_mask) = seen
    assert not torch.equal(first, second)
    assert torch.equal(first.sum(1).sort().values, second.sum(1).sort().values)
    assert not torch.equal(first_mask, second_mask)
    train(model, ones(32), Preprocess(), TrainConfig(epochs=2), device=CPU)
    assert not torch.equal(seen[2][1], seen[3][1])


def test_the_global_generator_is_left_alone() -> None:
    model = with_dropout_and_batch_norm()
    before = torch.random.get_rng_state()
    trained(model, TrainConfig(epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fused_adam_is_adam_for_channels_last_weights() -> None:
    images, config = noise(64), TrainConfig(epochs=2, batch_size=64)
    result = train(fresh(), images, Preprocess(), config, device=CPU)
    model = fresh()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=False, foreach=False)
    for _ in range(2):  # one batch an epoch: the order of the images does not matter
        optimizer.zero_grad()
        logits = model(images.images.float() / 255)
        nn.functional.cross_entropy(logits, images.targets).backward()
        optimizer.step()
    for name, tensor in result.model.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=2e-5, rtol=1e-3)


def test_a_lone_last_image_does_not_break_batch_norm() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3))
    watcher = Watcher()
    train(model, noise(33), Preprocess(), TrainConfig(epochs=1), device=CPU, callbacks=[watcher])
    assert watcher.snapshots[0]["steps_per_epoch"] == 1
    assert model[2].num_batches_tracked == 1
    train(fresh(), noise(33), Preprocess(), TrainConfig(epochs=1), device=CPU, callbacks=[watcher])
    assert watcher.snapshots[1]["steps_per_epoch"] == 2


def test_frozen_weights_stay() -> None:
    model = fresh()
    frozen = model.get_parameter("hidden.weight").requires_grad_(False)
    before = frozen.clone()
    train(model, noise(32), Preprocess(), TrainConfig(epochs=1), device=CPU)
    assert torch.equal(frozen, before)


def test_divergence_and_empty_sets_are_told() -> None:
    with pytest.raises(UserError, match="training diverged: the loss of epoch 1"):
        train(fresh(), noise(96), Preprocess(), TrainConfig(epochs=1, lr=1e30), device=CPU)
    with pytest.raises(UserError, match="training set is empty"):
        train(fresh(), noise(4).subset(torch.arange(0)), Preprocess(), TrainConfig(), device=CPU)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", -1),
        ("epochs", 1.5),
        ("lr", 0),
        ("lr", float("nan")),
        ("lr", "fast"),
        ("weight_decay", -1e-4),
        ("batch_size", 0),
        ("batch_size", True),
        ("optimizer", "lion"),
        ("momentum", 1.0),
    ],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{field} is {value!r}; expected"):
        TrainConfig(**{field: value})  # type: ignore[arg-type]


def test_published_settings() -> None:
    assert defaults_for("cnn", "initial") == TrainConfig(epochs=10, lr=1e-3)
    assert defaults_for("cnn", "retrain") == TrainConfig(epochs=20, lr=1e-3)
    assert defaults_for("resnet18", "initial") == TrainConfig(epochs=20, lr=5e-5)
    assert defaults_for("resnet18", "retrain") == TrainConfig(epochs=40, lr=5e-5)
    assert all(defaults_for(name, "initial").batch_size == 32 for name in models.available())
    with pytest.raises(UserError, match="unknown model 'cn'"):
        defaults_for("cn", "initial")


def test_a_step_with_the_regulariser_is_literally_its_equation() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = noise(8)
    config = TrainConfig(
        epochs=1, batch_size=8, lr=0.1, optimizer="sgd", momentum=0.0, weight_decay=0.0, std_weight=0.7
    )
    stepped = train(copy.deepcopy(model), images, Preprocess(), config, device=CPU).model
    logits = model(images.images / 255)
    spread = ((logits - logits.mean(1, keepdim=True)) ** 2).mean(1).sqrt()
    loss = -torch.log_softmax(logits, 1)[torch.arange(8), images.targets].mean() + 0.7 * spread.mean()
    for found, weight, gradient in zip(
        stepped.parameters(), model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        assert torch.allclose(found, weight - 0.1 * gradient, atol=1e-6)


def test_the_regulariser_is_finite_where_all_logits_are_equal() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    result = train(model, noise(8), Preprocess(), TrainConfig(epochs=1, std_weight=1.0), device=CPU)
    assert all(parameter.isfinite().all() for parameter in result.model.parameters())


class Rates:
    """What the learning rate was in every step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[float] = []
        step = Adam.step

        def note(optimizer: Any, *args: Any) -> Any:
            self.seen += [group["lr"] for group in optimizer.param_groups]
            return step(optimizer, *args)

        monkeypatch.setattr(Adam, "step", note)


def test_a_linear_schedule_ends_at_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch)
    train(fresh(), noise(64), Preprocess(), TrainConfig(epochs=2, lr=0.1, schedule="linear"), device=CPU)
    assert rates.seen == pytest.approx([0.1, 0.075, 0.05, 0.025])
    rates.seen.clear()
    train(fresh(), noise(64), Preprocess(), TrainConfig(epochs=2, lr=0.1), device=CPU)
    assert rates.seen == [0.1] * 4


def test_a_constant_schedule_is_recorded_as_before_there_was_another() -> None:
    assert "schedule" not in TrainConfig().to_dict()
    assert TrainConfig(schedule="linear").to_dict()["schedule"] == "linear"
    with pytest.raises(UserError, match="schedule is 'cosine'; expected constant or linear"):
        TrainConfig(schedule="cosine")  # type: ignore[arg-type]
