"""Stopping by itself: the statistics on numbers, the samples and their isolation, and whole runs that end early."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.methods import MixUnlearn
from pymixunlearn.methods.randlabel import RandLabel
from pymixunlearn.methods.stopping import (
    FIRST_CHECK,
    AutoStop,
    Criterion,
    StoppingConfig,
    check_step,
    drop,
    least_fall,
    share_bound,
)
from pymixunlearn.methods.view import SplitView
from tests.methods.interrupting import Interrupt, without_time

Same = Callable[[nn.Module, nn.Module], bool]
CPU = torch.device("cpu")


# The statistics


@pytest.mark.parametrize("count", [1, 20, 1000, 100_000])
def test_the_bound_of_no_hits_has_a_closed_form(count: int) -> None:
    assert share_bound(0, count, 0.95) == pytest.approx(1 - 0.05 ** (1 / count), rel=1e-9)
    assert share_bound(count, count, 0.95) == 1.0


@pytest.mark.parametrize("share", [0.003, 0.01, 0.2, 0.9])
def test_the_bound_covers_the_true_share(share: float) -> None:
    count = 200
    missed = sum(
        math.comb(count, hits) * share**hits * (1 - share) ** (count - hits)
        for hits in range(count + 1)
        if share_bound(hits, count, 0.95) < share
    )
    assert missed <= 0.05


def test_more_hits_and_fewer_samples_raise_the_bound() -> None:
    assert share_bound(2, 500, 0.95) < share_bound(3, 500, 0.95) < share_bound(3, 400, 0.95) < share_bound(3, 400, 0.99)


def test_drop_is_in_points_and_a_small_sample_proves_little() -> None:
    before, after = torch.ones(200), torch.ones(200)
    assert drop(before, after) == (0.0, pytest.approx(100 / 200))
    assert least_fall(before - after, before - after, 0.999) == 0.0
    after[:20] = 0
    fallen = drop(before, after)
    assert fallen.mean == pytest.approx(10)
    assert fallen.error == pytest.approx(100 * math.sqrt(200 * 0.1 * 0.9 + 1) / 200)
    assert least_fall((before - after)[:1], before - after, 0.999) == -100.0


def test_the_least_fall_is_that_of_a_t_test_paired_or_of_two_samples() -> None:
    from scipy.stats import ttest_ind, ttest_rel

    stream = torch.Generator().manual_seed(3)
    before = torch.rand(30, generator=stream, dtype=torch.float64)
    lost = 0.1 * torch.rand(30, generator=stream, dtype=torch.float64)
    beside = 0.03 * torch.rand(50, generator=stream, dtype=torch.float64)
    paired = ttest_rel(before, before - lost, alternative="greater")
    assert least_fall(lost, beside, 0.999) == pytest.approx(100 * paired.confidence_interval(0.999).low)
    # The held-out scores have risen: what stayed where it was has been left behind.
    welch = ttest_ind(lost, -beside, equal_var=False, alternative="greater")
    assert least_fall(lost, -beside, 0.999) == pytest.approx(100 * welch.confidence_interval(0.999).low)
    # A rise that is all noise takes nothing from a fall that shows without it.
    noise = torch.rand(50, generator=stream, dtype=torch.float64)
    beside = noise.mean() - noise - 1e-9
    assert least_fall(lost, beside, 0.999) == pytest.approx(100 * paired.confidence_interval(0.999).low)


def test_checks_get_rarer() -> None:
    steps = [check_step(index) for index in range(30)]
    assert steps[0] == FIRST_CHECK
    gaps = [later - earlier for earlier, later in zip(steps, steps[1:], strict=False)]
    assert gaps == sorted(gaps) and gaps[0] >= 1
    # What bounds the chance of a false alarm, and the cost: some 25 checks in all epochs of a usual run.
    assert sum(step <= 7500 for step in steps) <= 25


def _answers(right: float, count: int, stream: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=stream) < right).double()


def test_a_class_is_done_when_it_is_gone_and_the_rest_has_recovered() -> None:
    stream = torch.Generator().manual_seed(0)
    start = torch.ones(1000, dtype=torch.float64)
    criterion = Criterion(start, start, tolerance=1.0)
    # The share still recognised, and the share of the retain sample answered right: it dips, recovers, and stays.
    remembered = [1000, 600, 20, 2, 0, 0, 0, 0]
    right = [1.0, 0.99, 0.95, 0.94, 0.96, 0.985, 0.985, 0.985]
    order = torch.randperm(1000, generator=stream)
    done = []
    for left, share in zip(remembered, right, strict=True):
        retain = start.clone()
        retain[order[round(1000 * share) :]] = 0
        done.append(criterion.judge(torch.zeros(1000), retain, left)[0])
    assert done == [False] * 7 + [True]


def test_a_small_class_is_gone_when_none_of_it_is_recognised() -> None:
    start = torch.ones(400, dtype=torch.float64)
    for left, expected in ((0, True), (1, False)):
        criterion = Criterion(start[:50], start, tolerance=1.0)
        done = [criterion.judge(start[:50], start, left)[0] for _ in range(3)]
        assert done == [False, False, expected]


def test_without_forgetting_a_run_rarely_ends() -> None:
    """Scores that only jitter about their start: chance must not end more than 2.5 % of the runs."""
    stream = torch.Generator().manual_seed(1)

    def jittered(answers: Tensor) -> Tensor:
        # Three in a thousand flip to and fro, in a state of balance.
        flip = torch.rand(1000, generator=stream) < torch.where(answers == 1, 0.003, 0.003 * 19)
        return torch.where(flip, 1 - answers, answers)

    ended = 0
    for _ in range(200):
        forget, retain = (_answers(0.95, 1000, stream) for _ in range(2))
        criterion = Criterion(forget, retain, tolerance=100.0)
        for _ in range(25):
            forget, retain = jittered(forget), jittered(retain)
            if criterion.judge(forget, retain)[0]:
                ended += 1
                break
    assert ended <= 5


def test_samples_are_done_when_they_fell_and_stay_there() -> None:
    stream = torch.Generator().manual_seed(2)
    start = torch.ones(1000, dtype=torch.float64)
    order = torch.randperm(1000, generator=stream)
    criterion = Criterion(start, start, tolerance=1.0)
    done = []
    for lost in (0, 5, 20, 40, 42, 43, 43):
        forget = start.clone()
        forget[order[:lost]] = 0
        done.append(criterion.judge(forget, start)[0])
    assert done == [False] * 5 + [True, True]


def test_forgetting_has_to_last() -> None:
    """The retain sample is compared with a check at which the class was gone already, not with one on the way there."""
    start = torch.ones(1000, dtype=torch.float64)
    criterion = Criterion(start, start, tolerance=1.0)
    done = [criterion.judge(start, start, left)[0] for left in (0, 30, 0, 0, 0)]
    assert done == [False] * 4 + [True]


@pytest.mark.parametrize("moving", ["forget", "retain"])
def test_a_run_goes_on_while_either_sample_moves(moving: str) -> None:
    start = torch.ones(1000, dtype=torch.float64)
    criterion = Criterion(start, start, tolerance=1.0)
    for check in range(1, 20):
        moved = start.clone()
        moved[: 20 * check] = 0
        fallen = torch.cat([torch.zeros(300), torch.ones(700)]).double()
        forget, retain = (moved, start) if moving == "forget" else (fallen, moved)
        assert not criterion.judge(forget, retain)[0]


# The samples


def _tiny_stop(tiny: Any, split: tasks.Split, *, labels: bool = False, seed: int = 0, **fields: Any) -> AutoStop:
    config = StoppingConfig(stop="auto", **fields)
    view = SplitView.of(split, labels=labels)
    return AutoStop(tiny.model(), view, split.forget_classes, config, device=CPU, seed=seed)


def test_what_is_judged_by_is_not_trained_on(tiny: Any) -> None:
    split = tiny.split(10, 50)
    stop = _tiny_stop(tiny, split, stop_samples=6)
    assert stop.result().samples == {"forget": 6, "retain": 6}
    kept = {image.numpy().tobytes() for image in stop.split.retain.images}
    assert len(kept) == 44
    assert kept < {image.numpy().tobytes() for image in split.retain.images}
    assert len(_tiny_stop(tiny, split, stop_samples=500).split.retain) == 40
    other = _tiny_stop(tiny, split, stop_samples=6, seed=1)
    assert not torch.equal(other.split.retain.images, stop.split.retain.images)
    with pytest.raises(UserError, match="stop is auto, but only 4 samples remain"):
        _tiny_stop(tiny, tiny.split(10, 4))


@pytest.mark.parametrize("forget", [1, 3, 200])
def test_the_retain_sample_is_drawn_from_all_of_d_r_whatever_the_size_of_d_f(forget: int, tiny: Any) -> None:
    split = tiny.split(forget, 100)
    stop = _tiny_stop(tiny, split, stop_samples=20)
    assert stop.result().samples == {"forget": min(forget, 20), "retain": 20}
    left = {image.numpy().tobytes() for image in stop.split.retain.images}
    held_out = [at for at, image in enumerate(split.retain.images) if image.numpy().tobytes() not in left]
    assert len(held_out) == 20
    assert held_out[0] < 30 and held_out[-1] >= 70


def _relabelled(split: tasks.Split) -> tasks.Split:
    train = split.train
    targets = (train.targets + 1) % 4
    other = data.from_tensors(train.images, targets, split.test.images, split.test.targets, classes=tuple("abcd"))
    return tasks.index_split(other, split.forget_indices)


@pytest.mark.parametrize("labels", [False, True])
def test_labels_are_looked_at_only_where_they_may_be(labels: bool, tiny: Any) -> None:
    split = tiny.split(40, 100)

    def checks(given: tasks.Split) -> list[dict[str, float]]:
        stop = _tiny_stop(tiny, given, labels=labels)
        stop.begin([10] * 20, None)
        with torch.no_grad():
            stop._model.head.bias += torch.tensor([3.0, 0, 0, 0])  # the private model, as training would change it
        assert not stop.after_step(FIRST_CHECK - 1) and stop.result().checks == []
        stop.after_step(FIRST_CHECK)
        return [{key: value for key, value in check.items() if key != "seconds"} for check in stop.result().checks]

    true, wrong = checks(split), checks(_relabelled(split))
    assert len(true) == 1 and true[0]["step"] == FIRST_CHECK and true[0]["epoch"] == FIRST_CHECK / 10
    assert (true == wrong) is not labels
    assert true[0]["forget_drop"] != 0


def test_single_samples_are_judged_by_probabilities_and_classes_by_answers(tiny: Any) -> None:
    split = tiny.split(40, 100)
    by_samples = _tiny_stop(tiny, split, labels=True)
    by_answers = AutoStop(
        tiny.model(), SplitView.of(split, labels=True), (0,), StoppingConfig(stop="auto"), device=CPU, seed=0
    )
    for stop in (by_samples, by_answers):
        stop.begin([10] * 20, None)
        with torch.no_grad():
            stop._model.head.weight *= 0.9  # less sure of the same answers
            stop._model.head.bias *= 0.9
        stop.after_step(FIRST_CHECK)
    assert by_samples.result().checks[0]["retain_drop"] != 0
    assert by_answers.result().checks[0]["retain_drop"] == 0


def test_no_run_ends_before_every_sample_has_had_its_turn(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Criterion, "judge", lambda *_: (True, {}))
    stop = _tiny_stop(tiny, tiny.split(40, 100))
    stop.begin([60] * 5, None)
    met = [step for step in range(1, 100) if stop.after_step(step)]
    assert met[0] == min(check_step(index) for index in range(9) if check_step(index) >= 60)


# Whole runs


def _method(**fields: Any) -> MixUnlearn:
    settings = {"epochs": 60, "lr": 2e-4, "omega": 30, "tau_real": 2, "stop": "auto", "stop_tolerance": 2.0}
    return MixUnlearn(**{**settings, **fields})


@pytest.mark.parametrize("label_aware", [False, True])
def test_a_class_of_digits_is_forgotten_before_the_epochs_end(
    label_aware: bool, digits_model: nn.Module, digits_class: tasks.Split, same_weights: Same
) -> None:
    method = _method(label_aware=label_aware)
    result = method.unlearn(digits_model, digits_class, device="cpu")
    stopping = result.stopping
    assert stopping is not None and stopping.met and stopping.task == "class"
    assert stopping.step == stopping.checks[-1]["step"] < stopping.budget == 300
    assert len(result.history) == -(-stopping.step // 5)
    last = stopping.checks[-1]
    assert last["forget_share"] == 0 and abs(last["retain_change"]) + last["retain_margin"] <= 2
    test = digits_class.test
    with torch.no_grad():
        answers = result.model(digits_class.preprocess.evaluation(test.images)).argmax(1)
    forgotten = test.targets == 0
    assert (answers[forgotten] == 0).double().mean() <= 0.05
    assert (answers == test.targets)[~forgotten].double().mean() >= 0.93
    assert "stopped by itself after" in stopping.sentence()

    interrupt = Interrupt(epoch=9, step=52)
    with pytest.raises(KeyboardInterrupt):
        method.unlearn(digits_model, digits_class, device="cpu", callbacks=[interrupt])
    resumed = method.unlearn(digits_model, digits_class, device="cpu", resume=interrupt.read())
    assert same_weights(result.model, resumed.model)
    assert resumed.stopping is not None and resumed.stopping.met
    assert without_time(resumed.stopping.checks) == without_time(stopping.checks)


def test_a_run_that_is_never_done_ends_with_its_epochs_and_says_so(
    digits_model: nn.Module, digits_class: tasks.Split
) -> None:
    result = _method(lr=1e-9, epochs=8).unlearn(digits_model, digits_class, device="cpu")
    stopping = result.stopping
    assert stopping is not None and not stopping.met
    assert stopping.step == stopping.budget == 40 and len(result.history) == 8
    assert stopping.sentence() == "not done forgetting by its own measure after all 40 steps"
    record = stopping.to_dict()
    assert record["last_check"]["forget_share"] > 90 and record["seconds"] > 0 and "checks" not in record


def test_any_method_on_the_common_loop_can_stop_by_itself(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def third(criterion: Criterion, forget: Tensor, retain: Tensor, remembered: int | None = None) -> Any:
        judged.append(len(forget))
        return len(judged) == 3, {"forget_drop": 2.0, "forget_bound": 1.0, "retain_drop": 0.5}

    monkeypatch.setattr(Criterion, "judge", third)
    result = RandLabel(stop="auto", epochs=30, batch_size=4).unlearn(tiny.model(), tiny.split(10, 30), device="cpu")
    assert judged == [10, 10, 10]
    assert result.stopping is not None and result.stopping.met
    assert result.stopping.step == check_step(2) < result.stopping.budget == 90
    assert len(result.history) == -(-check_step(2) // 3)
    assert result.stopping.sentence() == (
        "stopped by itself after 50 of 90 steps: forget sample -2.0 points, forgotten by at least 1.0, "
        "held-out sample -0.5"
    )


def test_all_epochs_are_run_unless_asked_otherwise(tiny: Any) -> None:
    result = MixUnlearn(epochs=2, batch_size=4).unlearn(tiny.model(), tiny.split(), device="cpu")
    assert result.stopping is None and len(result.history) == 2


def test_a_run_that_stops_by_itself_goes_on_only_from_its_own_snapshot(tiny: Any) -> None:
    interrupt = Interrupt(epoch=0, step=5)
    with pytest.raises(KeyboardInterrupt):
        MixUnlearn(epochs=3, batch_size=4).unlearn(tiny.model(), tiny.split(), device="cpu", callbacks=[interrupt])
    with pytest.raises(UserError, match="only one of the two can end"):
        MixUnlearn(epochs=3, batch_size=4, stop="auto").unlearn(
            tiny.model(), tiny.split(), device="cpu", resume=interrupt.read()
        )


def test_a_run_goes_on_only_from_a_snapshot_of_a_run_that_ends_by_the_same_rules(tiny: Any) -> None:
    interrupt, split = Interrupt(epoch=0, step=8), tiny.split(20, 60)
    method = RandLabel(epochs=3, batch_size=4, stop="auto", rollback=False)
    with pytest.raises(KeyboardInterrupt):
        method.unlearn(tiny.model(), split, device="cpu", callbacks=[interrupt], guard=True)
    with pytest.raises(UserError, match="resume is a snapshot of another run: that one was to end, or was watched"):
        method.unlearn(tiny.model(), split, device="cpu", resume=interrupt.read())
