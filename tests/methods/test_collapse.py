"""Collapse: it is noticed within 50 steps, the state before comes back, and a run that does not is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, methods, tasks
from pymixunlearn.data.batches import Batch
from pymixunlearn.errors import UserError
from pymixunlearn.methods.collapse import INTERVAL, Collapse, Guard
from pymixunlearn.methods.loop import Loop, Measured
from pymixunlearn.methods.parts import Tensors
from pymixunlearn.methods.view import SplitView
from pymixunlearn.training import Callback, EndLoop
from tests.methods.interrupting import Interrupt
from tests.methods.test_all_methods import CASES
from tests.methods.test_rollback import Scripted, numbered

Same = Callable[[nn.Module, nn.Module], bool]
CPU = torch.device("cpu")
FRESH = ("dsmixup", "sisa", "retrain", "eu-k", "mixunlearn-reset", "prune-reset")
"""Methods that train from fresh or reset weights: there is no state to go back to."""
GIVEN = [name for name, method in CASES.items() if method.name not in (*FRESH, "ssd") and name != "unroll, regularised"]
"""Those with a learning rate that train the model they are given."""


@pytest.mark.parametrize("name", GIVEN)
def test_every_method_that_diverges_gives_the_initial_model_back(name: str, tiny: Any, same_weights: Same) -> None:
    config = CASES[name].config
    rates = {field.name: 1e36 for field in fields(config) if field.name.rpartition("_")[2] == "lr"}
    method, model = type(CASES[name])(config.replace(**rates)), tiny.model()
    result = method.unlearn(model, tiny.split(), device="cpu", guard=True)
    assert result.collapse is not None and result.collapse.good_step == 0
    assert same_weights(result.model, model.eval())
    assert "went back to the initial model: nothing is forgotten; try a smaller lr" in result.collapse.sentence()
    assert all(value == value and abs(value) < float("inf") for record in result.history for value in record.values())


def test_fresh_weights_that_diverge_are_an_error_at_once(digits_model: nn.Module, digits: data.Dataset) -> None:
    steps = []

    class Count(Callback):
        def on_step_end(self, step: int) -> None:
            steps.append(step)

    split = tasks.data_split(digits, classes=(0,), fraction=0.2)
    with pytest.raises(UserError, match="unlearning diverged: retain is .* expected a smaller lr"):
        methods.PruneReset(epochs=2, lr=1e30, batch_size=4).unlearn(
            digits_model, split, device="cpu", callbacks=[Count()], guard=True
        )
    assert len(steps) == INTERVAL  # an epoch has ten times as many


@pytest.mark.parametrize("task", ["class", "samples"])
def test_a_rate_far_too_high_is_noticed_within_fifty_steps(
    task: str, digits_model: nn.Module, digits: data.Dataset, digits_class: tasks.Split, same_weights: Same
) -> None:
    split = digits_class if task == "class" else tasks.data_split(digits, classes=(5, 6, 7, 8, 9), fraction=0.4)
    result = methods.RandLabel(lr=0.3, epochs=40, rollback=False).unlearn(digits_model, split, device="cpu", guard=True)
    found = result.collapse
    assert found is not None and found.step <= 50 and "no more than by chance" in found.cause
    assert same_weights(result.model, digits_model.eval())


class Late(methods.FineTune):
    """Trains well for 60 steps, and then breaks the weights in one of two ways."""

    way = "nan"

    def setup(self) -> None:
        super().setup()
        self.count = self.parts["count"] = Tensors(steps=torch.tensor(0))

    def step(self, retain: Batch) -> Measured:
        measured = super().step(retain)
        self.count["steps"] += 1
        if self.count["steps"] > 60:
            for weight in self.model.parameters():
                weight.data.fill_(float("nan") if self.way == "nan" else 1e-3)
        return measured


class LateChance(Late):
    way = "chance"


class EndAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, step: int) -> None:
        if step == self.step:
            raise EndLoop


@pytest.mark.parametrize(("late", "ends", "resumed_after"), [(Late, 63, 2), (LateChance, 100, 5)])
def test_the_last_sound_state_comes_back_and_a_resumed_run_does_the_same(
    late: type[Late],
    ends: int,
    resumed_after: int,
    digits_model: nn.Module,
    digits_class: tasks.Split,
    same_weights: Same,
) -> None:
    """An epoch has 21 steps: one is resumed before the collapse, the other after it."""

    def run(method: methods.Method, guard: bool = True, **options: Any) -> methods.UnlearnResult:
        return method.unlearn(digits_model, digits_class, device="cpu", guard=guard, **options)

    method = late(epochs=6, batch_size=64)
    interrupt = Interrupt(epoch=resumed_after - 1, step=0)
    done = run(method, callbacks=[interrupt])
    assert done.collapse is not None and (done.collapse.step, done.collapse.good_step) == (ends, 50)
    plain = run(methods.FineTune(epochs=6, batch_size=64), guard=False, callbacks=[EndAfter(50)])
    assert same_weights(done.model, plain.model)
    resumed = run(method, resume=interrupt.read())
    assert resumed.collapse == done.collapse and same_weights(resumed.model, done.model)


def test_a_snapshot_of_a_run_that_was_not_watched_is_refused(
    digits_model: nn.Module, digits_class: tasks.Split
) -> None:
    """As an earlier version wrote it."""
    method, interrupt = methods.MixUnlearn(epochs=2, stop="auto"), Interrupt(epoch=0, step=0)
    method.unlearn(digits_model, digits_class, device="cpu", callbacks=[interrupt])
    with pytest.raises(UserError, match="resume is a snapshot of another run: that one was not watched"):
        method.unlearn(digits_model, digits_class, device="cpu", resume=interrupt.read(), guard=True)


# What counts


def watch(right: list[int], last_stage: int = 0, *, finish: bool = True) -> tuple[Collapse | None, float]:
    """Return what was noticed after looks at which the model was right about so many of 200 images, and its weight."""
    view, model = numbered(200), Scripted()
    model.right.data.fill_(float(right[0]))
    guard = Guard(model, view, lambda: None, None, device=CPU, seed=0)
    guard.last_stage = last_stage
    guard.begin([1000], None)
    for index, hits in enumerate(right[1:], start=1):
        model.right.data.fill_(float(hits))
        if guard.after_step(INTERVAL * index):
            break
    if finish:
        guard.finish(judged=True)
    return guard.collapse, model.right.item()


def test_two_looks_running_at_chance_bring_the_last_sound_state_back() -> None:
    found, weight = watch([200, 190, 90, 80, 70])
    assert found is not None and (found.step, found.good_step, weight) == (75, 25, 190)
    assert found.sentence().startswith("collapsed by step 75 (")
    assert "images of D_r were classified right, no more than by chance) and went back to the model of step 25" in (
        found.sentence()
    )


@pytest.mark.parametrize(
    "right",
    [
        [200, 160, 140, 130],  # worse, and better than chance
        [200, 90, 190, 90, 190],  # never twice running
        [130, 90, 90, 90],  # it was too near to chance to tell
    ],
)
def test_it_does_not_go_back_otherwise(right: list[int]) -> None:
    assert watch(right) == (None, right[-1])


def test_the_result_may_not_be_at_chance() -> None:
    found, weight = watch([200, 190, 90])
    assert found is not None and (found.good_step, weight) == (25, 190)
    assert watch([200, 190, 90], finish=False) == (None, 90)


def test_an_earlier_stage_may_do_harm_that_the_last_one_repairs() -> None:
    assert watch([200, 90, 90, 90, 90, 190], last_stage=50) == (None, 190)
    found, _ = watch([200, 90, 90, 90, 190, 90, 90, 90], last_stage=50)
    assert found is not None and (found.step, found.good_step) == (150, 100)
    found, weight = watch([200, 90, 90, 90, 90], last_stage=50)
    assert found is not None and (found.good_step, weight) == (0, 200)


def test_a_quantity_that_is_not_finite_counts_at_the_end_of_an_epoch_too() -> None:
    view, model = numbered(200), Scripted()
    model.right.data.fill_(200.0)
    name: list[str | None] = [None]
    guard = Guard(model, view, lambda: name[0], None, device=CPU, seed=0)
    guard.begin([10, 10], None)
    name[0] = "loss"
    assert not guard.after_step(9) and guard.after_step(10)
    assert guard.collapse == Collapse(10, 0, "'loss' was not finite")


def test_images_of_every_class_are_looked_at_and_none_is_held_out() -> None:
    view = numbered(200)
    assert isinstance(view.retain, data.ImageSet)
    few = view.retain.subset(torch.tensor([*range(0, 200, 2), 1, 3, 5]))  # three of the second class
    guard = Guard(Scripted(), replace(view, retain=few), lambda: None, None, device=CPU, seed=0)
    assert sorted(guard._targets.bincount().tolist()) == [3, 97]
    assert not guard._judges  # a constant answer is right 97 times


def test_without_labels_the_initial_models_answers_count(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    view = SplitView.of(digits_class, labels=False)
    guard = Guard(digits_model, view, lambda: None, None, device=CPU, seed=0)
    assert guard._hits() == len(guard._targets) == 100 and guard._judges


def test_the_answers_of_a_model_that_knows_few_classes_are_no_measure(digits_class: tasks.Split) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            dark = (images.mean((1, 2, 3)) > images.mean()).long()
            return self.scale * nn.functional.one_hot(dark, 10).float()

    view = SplitView.of(digits_class, labels=False)
    guard = Guard(Two(), view, lambda: None, None, device=CPU, seed=0)
    assert guard._hits() is not None and len(guard._targets) == 100 and not guard._judges


def test_a_loop_says_whether_it_trains_the_model_it_is_given() -> None:
    in_place = {name for name, method in CASES.items() if isinstance(method, Loop) and not method.in_place}
    assert {CASES[name].name for name in in_place} == {"eu-k", "mixunlearn-reset", "prune-reset"}
