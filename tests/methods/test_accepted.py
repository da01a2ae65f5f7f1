"""Stopping when the acceptance test accepts: when it looks, what it says, what it costs, and that it resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import methods, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import Acceptance, acceptance
from pymixunlearn.methods import UnlearnResult
from pymixunlearn.methods.accepted import AcceptedStop, AcceptedStopping
from pymixunlearn.methods.choosing import Chooser
from tests.evaluation.test_acceptance import World
from tests.methods.interrupting import Interrupt, without_time

Same = Callable[[nn.Module, nn.Module], bool]
ON_V = "accepted on the choosing half of the validation set"


class Decisions:
    """A chooser that refuses so many models, and accepts the next; or one that cannot tell."""

    def __init__(self, refused: int, tells: bool = True) -> None:
        self.refused, self.tests, self._tells = refused, 0, tells

    def tells(self) -> bool:
        return self._tells

    def __call__(self, model: nn.Module) -> Acceptance:
        self.tests += 1
        decision = "refused" if self.tests <= self.refused else "accepted"
        return Acceptance(decision, "because", ks=0.2, bound=0.1)  # type: ignore[arg-type]


def stop_after(chooser: Any, lengths: list[int], last_stage: int = 0) -> AcceptedStop:
    stop = AcceptedStop(nn.Linear(2, 2), chooser)
    stop.last_stage = last_stage
    assert not stop.begin(lengths, None)
    any(stop.after_step(step) for step in range(1, sum(lengths) + 1))
    return stop


@pytest.mark.parametrize(
    ("lengths", "last_stage", "expected"),
    [
        ([20] * 20, 0, [32, 48, 72, 108, 162, 243, 365, 400]),
        ([50] * 3, 0, [50, 75, 113, 150]),  # not before every forget image has been dealt with
        ([250] * 10, 0, [250, 375, 563, 845, 1268, 1902, 2500]),  # and rarer from there on
        ([5, 5], 0, [10]),
        ([30, 30, 40, 40], 60, [100, 120, 140]),  # the earlier stages may do harm on purpose
    ],
)
def test_looks_get_rarer_and_the_last_step_has_one(lengths: list[int], last_stage: int, expected: list[int]) -> None:
    result = stop_after(Decisions(99), lengths, last_stage).result()
    assert [look["step"] for look in result.looks] == expected
    assert not result.met and result.step == result.budget == sum(lengths)
    looks = f"{len(expected)} look" + "s" * (len(expected) > 1)
    assert result.sentence() == f"the budget of {sum(lengths)} steps is spent, not accepted in {looks}"


def test_it_ends_at_the_first_model_that_is_accepted() -> None:
    result = stop_after(Decisions(1), [20] * 5).result()
    assert (result.met, result.step, len(result.looks)) == (True, 48, 2)
    assert result.sentence() == f"{ON_V} after 48 of 100 steps, at the last of 2 looks"
    record = result.to_dict()
    assert record["rule"] == "accepted" and record["seconds"] == sum(look["seconds"] for look in result.looks)
    assert [look["decision"] for look in record["looks"]] == ["refused", "accepted"]
    assert result.checks[0].keys() == {"epoch", "step", "seconds", "ks", "bound"}


def test_where_the_test_cannot_tell_it_never_looks_and_says_so() -> None:
    chooser = Decisions(0, tells=False)
    result = stop_after(chooser, [20] * 5).result()
    assert chooser.tests == 0 and not result.met
    assert result.sentence() == "all 100 steps, untested: the acceptance test cannot tell here"


def test_what_was_seen_goes_on_from_a_snapshot() -> None:
    first = stop_after(Decisions(9), [20] * 3)
    second = AcceptedStop(nn.Linear(2, 2), Decisions(0, tells=False))  # type: ignore[arg-type]
    assert not second.begin([20] * 5, first.state())
    assert second.result().looks == first.result().looks and second.result().untested is None


def with_validation(split: tasks.Split) -> tasks.Split:
    dataset = replace(split.dataset, validation=split.train)
    return tasks.index_split(dataset, split.forget_indices)


@pytest.mark.parametrize("name", ["mixunlearn", "randlabel", "neggrad", "scrub", "salun", "fine-tune", "laf", "ts"])
def test_every_method_that_trains_in_place_can_end_so(name: str, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = []

    def accept(chooser: Chooser, model: nn.Module) -> Acceptance:
        tests.append({key: value.clone() for key, value in model.state_dict().items()})
        return Acceptance("accepted", "because", ks=0.0, bound=0.1)

    monkeypatch.setattr(Chooser, "tells", lambda chooser: True)
    monkeypatch.setattr(Chooser, "__call__", accept)
    fields = {"retain_batch_size": 4} if name == "scrub" else {}
    method = methods.get(name)(stop="accepted", epochs=30, batch_size=4, **fields)
    result = method.unlearn(tiny.model(), with_validation(tiny.split(10, 30)), device="cpu")
    assert result.stopping is not None and result.stopping.met and len(tests) == 1
    assert result.stopping.step < result.stopping.budget
    assert result.stopping.sentence().endswith(
        f"after {result.stopping.step} of {result.stopping.budget} steps, at the first look"
    )
    assert all(torch.equal(tests[0][key], value) for key, value in result.model.state_dict().items())
    assert result.seconds >= result.stopping.to_dict()["seconds"]


def test_without_a_validation_set_it_is_refused_before_any_work(tiny: Any) -> None:
    with pytest.raises(UserError, match="stop is accepted, but the data set .* has no validation set; expected one"):
        methods.get("neggrad")(stop="accepted").unlearn(tiny.model(), tiny.split(), device="cpu")


@pytest.mark.parametrize(("name", "fields"), [("scrub", {"rewind": True}), ("gli", {"stop_by": "score"})])
def test_a_method_that_chooses_among_its_states_does_so_alone(name: str, fields: dict[str, Any]) -> None:
    for own, said in (({"stop": "accepted"}, "stop is accepted"), ({"rollback": True}, "rollback is true")):
        with pytest.raises(UserError, match=f"{said}, but .* chooses a state itself"):
            methods.get(name)(**own, **fields)
    assert not methods.get(name)(**fields).config.may_roll_back  # type: ignore[attr-defined]


# Real tests: a network that has learnt its samples by heart, and fine-tuning that makes it lose them, or does not

STEPS_AN_EPOCH = 6


class Learnt:
    """A split with unseen images, and a network that knows its forget samples by heart."""

    def __init__(self) -> None:
        world = World()
        dataset = replace(world.data, validation=world.unseen)
        self.split = tasks.index_split(dataset, world.split.forget_indices)
        self.initial = world.initial()

    def fine_tuned(self, epochs: int, lr: float, **given: Any) -> UnlearnResult:
        method = methods.get("fine-tune")(stop="accepted", epochs=epochs, batch_size=30, lr=lr)
        return method.unlearn(self.initial, self.split, device="cpu", **given)


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    return Learnt()


@pytest.fixture(scope="module")
def forgot(learnt: Learnt) -> UnlearnResult:
    return learnt.fine_tuned(epochs=200, lr=0.3)


def ending(result: UnlearnResult) -> AcceptedStopping:
    assert isinstance(result.stopping, AcceptedStopping)
    return result.stopping


def test_a_network_that_forgets_is_accepted_before_the_budget_is_spent(learnt: Learnt, forgot: UnlearnResult) -> None:
    stopping = ending(forgot)
    *before, last = stopping.looks
    assert stopping.met and 32 < stopping.step == last["step"] < stopping.budget == 200 * STEPS_AN_EPOCH
    assert len(before) > 3 and all(look["decision"] == "refused" and look["ks"] > look["bound"] for look in before)
    assert last["decision"] == "accepted" and max(last["ks"], last["ks_resurfaced"]) <= last["bound"]
    looks = f"the last of {len(stopping.looks)} looks"
    assert stopping.sentence() == f"{ON_V} after {stopping.step} of 1200 steps, at {looks}"
    assert len(forgot.history) == -(-stopping.step // STEPS_AN_EPOCH)
    judged, untouched = (acceptance(model, learnt.split, device="cpu") for model in (forgot.model, learnt.initial))
    assert judged.ks is not None and untouched.ks is not None and judged.ks < untouched.ks / 3


def test_a_network_that_does_not_forget_spends_its_budget(learnt: Learnt) -> None:
    stopping = ending(learnt.fine_tuned(epochs=40, lr=0.03))
    assert not stopping.met and stopping.step == stopping.budget == 40 * STEPS_AN_EPOCH
    assert {look["decision"] for look in stopping.looks} == {"refused"}
    assert stopping.sentence() == "the budget of 240 steps is spent, not accepted in 6 looks"


def test_a_run_that_is_killed_at_a_look_resumes_bit_for_bit(
    learnt: Learnt, forgot: UnlearnResult, same_weights: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = ending(forgot).looks
    call, tested = Chooser.__call__, []

    def killed(chooser: Chooser, model: nn.Module) -> Acceptance:
        tested.append(model)
        if len(tested) == len(looks):
            raise KeyboardInterrupt
        return call(chooser, model)

    keeper = Interrupt(epoch=(looks[-1]["step"] - 1) // STEPS_AN_EPOCH - 1, step=-1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Chooser, "__call__", killed)
        learnt.fine_tuned(epochs=200, lr=0.3, callbacks=[keeper])
    snapshot = keeper.read()
    assert without_time(snapshot["stop"]["stop"]["looks"]) == without_time(looks[:-1])
    resumed = learnt.fine_tuned(epochs=200, lr=0.3, resume=snapshot)
    assert same_weights(forgot.model, resumed.model)
    assert without_time(ending(resumed).looks) == without_time(looks)
    assert without_time(resumed.history) == without_time(forgot.history)
