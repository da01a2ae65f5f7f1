"""Prune-reset: which weights start again, how the rate moves, and that D_f is never trained on."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import methods, tasks
from pymixunlearn.evaluation import accuracy, predict_logits
from pymixunlearn.methods.base import Recipe
from pymixunlearn.methods.prune_reset import rate
from pymixunlearn.training import TrainConfig
from tests.methods.literal import ce, make_loop


def matrices(model: nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in model.parameters() if parameter.dim() > 1]


def test_the_smallest_weights_of_all_layers_together_are_reset(tiny: Any) -> None:
    before = tiny.model(5).double()
    loop = methods.PruneReset(share=0.75).begin(tiny.double_job())
    loop.start(0)
    bound = torch.cat([weight.abs().flatten() for weight in matrices(before)]).quantile(0.75)
    for now, was in zip(matrices(loop.model), matrices(before), strict=True):
        assert torch.equal(now, torch.where(was.abs() <= bound, 0.0, was))
    one_dimensional = [
        (a, b) for a, b in zip(loop.model.parameters(), before.parameters(), strict=True) if a.dim() == 1
    ]
    assert one_dimensional and all(torch.equal(a, b) for a, b in one_dimensional)


def test_fisher_resets_what_matters_to_the_forget_set(tiny: Any) -> None:
    loop = make_loop(tiny, methods.PruneReset(select="fisher", share=0.5, batch_size=1))
    before, weights = copy.deepcopy(loop.model).eval(), {}
    for stage in loop.stages()[:2]:
        list(stage.run(0))
    torch.testing.assert_close(loop.model.state_dict(), before.state_dict())
    loop.model.load_state_dict(before.state_dict())
    loop.reset(0.5)
    for side, images in (("forget", loop.forget_set), ("retain", loop.retain_set)):
        squares = [torch.zeros_like(weight) for weight in matrices(before)]
        for image, target in zip(images.images, images.targets, strict=True):
            loss = ce(before(image[None].double()), target[None])
            for total, gradient in zip(squares, torch.autograd.grad(loss, matrices(before)), strict=True):
                total += gradient.square() / len(images)
        weights[side] = torch.cat([square.flatten() for square in squares])
    ratio = weights["forget"] / (weights["retain"] + torch.finfo(torch.float32).tiny)
    zeros = torch.cat([weight.flatten() == 0 for weight in matrices(loop.model)])
    assert zeros.sum() == round(0.5 * len(zeros))
    assert ratio[zeros].min() >= ratio[~zeros].max()


def test_the_rate_rises_for_a_fifth_of_the_steps_and_falls_to_zero() -> None:
    rates = [rate(step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[20] == 1.0 and rates[99] == pytest.approx(1 / 80)
    assert all(a > b for a, b in zip(rates[20:], rates[21:], strict=False))
    assert rate(0, 1) == 1.0


@pytest.mark.parametrize("select", ["magnitude", "fisher"])
def test_the_optimiser_follows_the_rate_over_all_epochs(select: Any, tiny: Any) -> None:
    loop, seen = make_loop(tiny, methods.PruneReset(select=select, share=0.5, epochs=2, batch_size=7, lr=0.5)), []
    *choosing, training = loop.stages()
    loop.step = lambda retain: seen.append(loop.optimizer.param_groups[0]["lr"]) or {}
    for epoch in range(len(choosing), len(choosing) + training.epochs):
        list(training.run(epoch))
    assert seen == pytest.approx([0.5 * rate(step, 4) for step in range(4)])


@pytest.mark.parametrize(("schedule", "epochs", "lr"), [("close", 8, 1e-3), ("quick", 4, 3e-3), ("short", 3, 3e-3)])
def test_a_schedule_is_a_share_of_the_initial_models_training(schedule: Any, epochs: int, lr: float, tiny: Any) -> None:
    recipe = Recipe(TrainConfig(epochs=16, lr=1e-3), TrainConfig(epochs=32, lr=1e-3))
    job = replace(tiny.job(), given_recipe=recipe)
    config = methods.PruneReset(schedule=schedule).begin(job).config
    assert (config.epochs, config.lr) == (epochs, pytest.approx(lr))
    given = methods.PruneReset(schedule=schedule, epochs=5, lr=0.2).begin(job).config
    assert (given.epochs, given.lr) == (5, 0.2)


def test_without_labels_it_learns_the_initial_models_answers_without_the_forgotten(
    digits_model: nn.Module, digits_class: tasks.Split
) -> None:
    result = methods.PruneReset(label_aware=False).unlearn(digits_model, digits_class, device="cpu")
    assert result.search is not None and result.search.sentence() == "share 0.98, untested: there is no validation set"
    predicted = predict_logits(result.model, digits_class.test, digits_class.preprocess, device="cpu").argmax(1)
    forgotten = digits_class.test.targets == 0
    assert not (predicted == 0).any()
    assert (predicted == digits_class.test.targets)[~forgotten].double().mean() > 0.9


def test_it_forgets_what_only_the_forget_set_shows(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    model = methods.PruneReset().unlearn(digits_model, digits_class, device="cpu").model
    logits = predict_logits(model, digits_class.test, digits_class.preprocess, device="cpu")
    forgotten = torch.isin(digits_class.test.targets, torch.tensor(digits_class.forget_classes))
    on_forgotten = accuracy(logits[forgotten], digits_class.test.targets[forgotten])
    on_others = accuracy(logits[~forgotten], digits_class.test.targets[~forgotten])
    assert on_forgotten == 0 and on_others is not None and on_others > 90
