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
from pymixunlearn.evaluation import Acceptance
from pymixunlearn.methods.accepted import AcceptedStop
from pymixunlearn.methods.choosing import Chooser

Same = Callable[[nn.Module, nn.Module], bool]


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
        ([20] * 20, 0, [32, 48, 72, 108, 162, 243, 364, 400]),
        ([50] * 3, 0, [50, 51, 72, 108, 150]),  # not before every forget image has been dealt with
        ([5, 5], 0, [10]),
        ([30, 30, 40, 40], 60, [100, 108, 132, 140]),  # the earlier stages may do harm on purpose
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
    assert result.sentence() == "accepted after 48 of 100 steps, at the last of 2 looks"
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
