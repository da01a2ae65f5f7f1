"""The acceptance test: its level, its power, and the three models that deceive a test of outputs alone."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import accept
from pymixunlearn.evaluation.accept import Acceptance, acceptance
from pymixunlearn.evaluation.margin_test import (
    alike_by_class,
    judged_margins,
    ks_bound,
    margin_test,
    smallest_visible,
)
from pymixunlearn.evaluation.resurfacing import Resurfacing, to_show

CPU = torch.device("cpu")
CLASSES = tuple("abc")
DIMENSIONS = 24


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of three classes that overlap, so that single samples can only be learnt by heart."""
    stream = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    images = torch.randn(count, 1, 4, DIMENSIONS // 4, generator=stream)
    images[:, 0, 0, 0] += targets - 1.0
    return images, targets


class World:
    """A data set, a request, unseen images, and networks trained on parts of it."""

    def __init__(self, seed: int = 0, train: int = 240, forget: int = 60) -> None:
        self.data = data.from_tensors(*drawn(train, seed), *drawn(30, seed + 1), classes=CLASSES)
        self.split = tasks.index_split(self.data, list(range(forget)))
        self.unseen = data.ImageSet(*drawn(600, seed + 2), CLASSES)

    def trained(self, images: Tensor, targets: Tensor, seed: int, epochs: int = 60) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Flatten(), nn.Linear(DIMENSIONS, 64), nn.ReLU(), nn.Linear(64, 3))
        return self.fitted(model, images, targets, epochs)

    def fitted(self, model: nn.Module, images: Tensor, targets: Tensor, epochs: int) -> nn.Module:
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-2)
        for _ in range(epochs):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
        return model

    def initial(self) -> nn.Module:
        return self.trained(self.split.train.images, self.split.train.targets, 3)

    def retrain(self, seed: int = 4) -> nn.Module:
        return self.trained(self.split.retain.images, self.split.retain.targets, seed)

    def judge(self, model: nn.Module, initial: nn.Module | None) -> Acceptance:
        return acceptance(model, self.split, validation=self.unseen, initial=initial, device=CPU)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def initial(world: World) -> nn.Module:
    return world.initial()


def test_retrain_is_accepted_and_the_untouched_model_refused(world: World, initial: nn.Module) -> None:
    accepted = world.judge(world.retrain(), initial)
    assert accepted.decision == "accepted", accepted.reason
    assert accepted.ks is not None and accepted.bound is not None and accepted.ks <= accepted.bound
    assert accepted.initial_ks is not None and accepted.initial_ks > accepted.bound
    assert world.judge(initial, initial).decision == "refused"


class NotFinite(nn.Module):
    """A model whose outputs are no numbers, always or once it was trained on."""

    def __init__(self, model: nn.Module, *, later: bool) -> None:
        super().__init__()
        self.model, self.later = model, later
        self.register_buffer("trained", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.trained += 1
            return self.model(images)
        return self.model(images) * float("nan") if self.trained or not self.later else self.model(images)


@pytest.mark.parametrize("later", [False, True])
def test_outputs_that_are_no_numbers_are_refused(later: bool, world: World, initial: nn.Module) -> None:
    found = world.judge(NotFinite(world.retrain(), later=later), initial)
    assert found.decision == "refused"
    when = "after a few steps of training" if later else "at once"
    assert found.reason.startswith(f"The model's outputs are no numbers {when}: nothing can be compared (60 forgotten")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_few_images_in_a_batch_end_too(batch_size: int, world: World) -> None:
    options = {"validation": world.unseen, "shown": world.unseen, "device": CPU}
    split = tasks.index_split(world.data, range(0, 240, 3))  # all of a class
    few = Resurfacing(steps=2, batch_size=batch_size)
    assert acceptance(world.retrain(), split, resurfacing=few, **options).ks_resurfaced is not None


@pytest.mark.parametrize("name", ["steps", "samples", "batch_size", "lr"])
def test_resurfacing_has_ranges(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 0; expected"):
        Resurfacing(**{name: 0})


def test_what_is_told_beside_it_shows_the_trace(world: World, initial: nn.Module) -> None:
    remembers, forgot = world.judge(initial, initial), world.judge(world.retrain(), initial)
    for test in (remembers, forgot):
        assert test.eps is not None and test.eps_interval is not None
        assert test.eps_interval[0] < test.eps < test.eps_interval[1]
        assert test.shown_again is not None and test.shown_again_unseen is not None
    assert remembers.eps_interval is not None and remembers.eps_interval[0] > 0
    assert forgot.eps_interval is not None and forgot.eps_interval[0] < 0 < forgot.eps_interval[1]
    assert remembers.auc_interval is not None and remembers.auc_interval[0] > 0.5
    assert forgot.auc_interval is not None and forgot.auc_interval[1] < remembers.auc_interval[0]
    assert forgot.probe_interval is not None and forgot.probe_interval[0] < (forgot.probe_auc or 0)
    assert (remembers.shown_again or 0) > (remembers.shown_again_unseen or 0) + 15
    assert (forgot.shown_again or 0) < (forgot.shown_again_unseen or 0) + 10
    assert json.loads(json.dumps(forgot.to_dict()))["auc_interval"] == list(forgot.auc_interval)


def test_a_decision_alone_is_the_same_decision(world: World, initial: nn.Module) -> None:
    options: dict[str, Any] = {"validation": world.unseen, "initial": initial, "device": "cpu"}
    fresh = world.retrain()
    whole, alone = (acceptance(fresh, world.split, **options, decision_only=only) for only in (False, True))
    decided = ("decision", "reason", "ks", "ks_resurfaced", "bound", "smallest_ks", "unseen_samples", "shown_samples")
    assert [getattr(alone, name) for name in decided] == [getattr(whole, name) for name in decided]
    beside = set(alone.to_dict()) - {*decided, "initial_ks", "forget_samples"}
    assert all(getattr(alone, name) is None for name in beside) and whole.probe_auc is not None


def test_part_b_is_not_made_for_a_decision_that_part_a_makes(
    world: World, initial: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = acceptance(initial, world.split, validation=world.unseen, initial=initial, device="cpu")
    monkeypatch.setattr(accept, "resurface", None)
    alone = acceptance(initial, world.split, validation=world.unseen, device="cpu", decision_only=True)
    assert (alone.decision, alone.reason, alone.ks) == (whole.decision, whole.reason, whole.ks)
    assert alone.ks_resurfaced is None and whole.ks_resurfaced is not None


def test_what_the_test_said_of_the_initial_model_serves_in_its_place(world: World, initial: nn.Module) -> None:
    options: dict[str, Any] = {"validation": world.unseen, "device": "cpu", "decision_only": True}
    fresh = world.retrain()
    for before, decision in ((initial, "accepted"), (fresh, "cannot tell")):  # the second passes the test
        for said in (acceptance(before, world.split, **options), world.judge(before, before)):
            found = acceptance(fresh, world.split, **options, initial=said)
            assert found.decision == decision
            expected = acceptance(fresh, world.split, **options, initial=before)
            if said.ks_resurfaced is not None:  # otherwise the larger distance is not known
                assert found == expected
    nothing = accept.Acceptance("cannot tell", "There were too few samples.")
    assert acceptance(fresh, world.split, **options, initial=nothing).decision == "cannot tell"


def test_without_the_initial_model_nothing_is_accepted(world: World, initial: nn.Module) -> None:
    assert world.judge(world.retrain(), None).decision == "cannot tell"
    assert world.judge(initial, None).decision == "refused"


def test_where_the_untouched_model_passes_nothing_is_accepted(world: World) -> None:
    ignorant = world.retrain()  # an initial model that never saw D_f: this test has nothing to find
    judged = world.judge(ignorant, ignorant)
    assert judged.decision == "cannot tell" and "passes this test too" in judged.reason


def test_an_untouched_model_that_is_refused_only_just_proves_little() -> None:
    """Its distance lies above the bound, but so little that it would often be missed."""
    world = World(seed=10, train=480)
    split = tasks.class_split(world.data, [0])
    hasty = world.trained(split.train.images, split.train.targets, 3, epochs=15)
    models = {"hasty": hasty, "fresh": world.trained(split.retain.images, split.retain.targets, 5, epochs=15)}
    for only in (False, True):
        options: dict[str, Any] = {"validation": world.unseen, "initial": hasty, "device": CPU, "decision_only": only}
        judged = accept.acceptances(models, split, **options)
        assert (judged["hasty"].decision, judged["fresh"].decision) == ("refused", "cannot tell")
        assert "refused, but only just" in judged["fresh"].reason
        known, smallest, bound = (getattr(judged["fresh"], name) for name in ("initial_ks", "smallest_ks", "bound"))
        assert bound < known < smallest


@pytest.mark.parametrize(("forget", "pool"), [(9, 600), (60, 9)])
def test_too_few_samples_cannot_tell(forget: int, pool: int) -> None:
    world = World(forget=forget)
    world.unseen = world.unseen.subset(torch.arange(pool))
    judged = world.judge(world.retrain(), world.initial())
    assert judged.decision == "cannot tell" and judged.ks is None and "at least 10" in judged.reason


def test_matched_margins_are_refused_by_resurfacing(world: World, initial: nn.Module) -> None:
    """A last bias that is tuned to D_f hides it, and is gone after a few steps: outputs matched, the memory stays."""

    class Hidden(nn.Module):
        """Gives D_f the logits of unseen images, as long as its weights are what they were."""

        def __init__(self) -> None:
            super().__init__()
            self.network = copy.deepcopy(initial)
            self.before = [parameter.detach().clone() for parameter in self.network.parameters()]

        def forward(self, images: Tensor) -> Tensor:
            logits = self.network(images)
            same = all(map(torch.equal, self.network.parameters(), self.before))
            known = (images.flatten(1)[:, None] == world.split.forget.images.flatten(1)).all(2)
            if not same or not known.any():
                return logits
            stand_in = initial(world.unseen.images[: len(world.split.forget)]).detach()
            return torch.where(known.any(1, keepdim=True), stand_in[known.int().argmax(1)], logits)

    judged = world.judge(Hidden(), initial)
    assert judged.decision == "refused" and "resurface" in judged.reason
    assert judged.ks is not None and judged.bound is not None and judged.ks <= judged.bound


def test_a_refitted_head_is_refused(initial: nn.Module, world: World) -> None:
    model = copy.deepcopy(initial)
    assert isinstance(model, nn.Sequential)
    model[1].requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model[3] = nn.Linear(64, 3)
    world.fitted(model, world.split.retain.images, world.split.retain.targets, 200)
    assert world.judge(model, initial).decision == "refused"


@pytest.mark.parametrize("seed", [20, 30])
def test_a_refitted_head_of_a_class_task_needs_the_class_to_be_shown(seed: int) -> None:
    """The new head never learnt the class, so that its margins hide what the other layers hold of the samples."""
    world = World(seed=seed, train=480)
    split = tasks.class_split(world.data, [0])
    validation, shown = data.halves(data.ImageSet(*drawn(2400, seed + 2), CLASSES))
    initial = world.trained(split.train.images, split.train.targets, 3)
    fresh = world.trained(split.retain.images, split.retain.targets, 5)
    hidden = copy.deepcopy(initial)
    assert isinstance(hidden, nn.Sequential)
    hidden[1].requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        hidden[3] = nn.Linear(64, 3)
    world.fitted(hidden, split.retain.images, split.retain.targets, 200)
    answers = {}
    for name, beside in (("D_r alone", None), ("shown", shown)):
        found = accept.acceptances(
            {"hidden": hidden, "fresh": fresh},
            split,
            validation=validation,
            shown=beside,
            initial=initial,
            device=CPU,
            resurfacing=Resurfacing(lr=1e-2),
        )
        answers[name] = {model: test.decision for model, test in found.items()}
        assert found["hidden"].unseen_samples == int((validation.targets == 0).sum())
        assert found["hidden"].shown_samples == (0 if beside is None else int((shown.targets == 0).sum()))
    assert answers["D_r alone"] == {"hidden": "accepted", "fresh": "accepted"}
    assert answers["shown"] == {"hidden": "refused", "fresh": "accepted"}


def test_what_is_shown_are_unseen_images_of_the_classes_that_d_r_lacks(world: World) -> None:
    classes = data.ImageSet(*drawn(90, 5), CLASSES)
    for split, expected in ((world.split, None), (tasks.class_split(world.data, [0, 2]), [0, 2])):
        shown = to_show(classes, split.forget, split, 500, seed=0)
        assert (shown is None) if expected is None else shown is not None
        if shown is not None:
            assert shown.targets.unique().tolist() == expected and len(shown) == 60
    fewer = to_show(classes, split.forget, split, 20, seed=0)
    assert fewer is not None and len(fewer) == 20 and fewer.targets.unique().tolist() == [0, 2]
    assert to_show(classes.subset((classes.targets == 1).nonzero().squeeze(1)), split.forget, split, 20, seed=0) is None


def test_a_masked_logit_is_judged_on_the_others(world: World) -> None:
    class Masked(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            logits = self.network(images)
            return torch.cat([torch.full_like(logits[:, :1], -torch.inf), logits[:, 1:]], 1)

    split = tasks.class_split(world.data, [0])
    network = world.trained(split.train.images, split.train.targets, 3, epochs=150)
    judged = acceptance(Masked(network), split, validation=world.unseen, initial=network, device=CPU)
    assert judged.ks is not None and np.isfinite(judged.ks) and judged.ks > 0


def test_margins_of_other_logits_need_more_than_ties_to_come_in() -> None:
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(40, dtype=torch.int64)
    plain = judged_margins(logits, targets, logits, targets)[0]
    masked = logits.clone()
    masked[:, 0] = -torch.inf
    others = judged_margins(masked, targets, masked, targets)[0]
    np.testing.assert_allclose(plain, (logits[:, 0] - logits[:, 1:].logsumexp(1)).double(), rtol=1e-5)
    np.testing.assert_allclose(others, -logits[:, 1:].double().logsumexp(1), rtol=1e-12)
    masked[:, 0] = -1e4  # any constant: the order of the margins is that of the other logits
    constant = judged_margins(masked, targets, masked, targets)[0]
    np.testing.assert_array_equal(np.argsort(constant), np.argsort(others))


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    chance = np.random.default_rng(0)
    alarms = sum(margin_test(chance.normal(size=80), chance.normal(size=300)).refused for _ in range(1000))
    assert alarms <= 65  # 50 expected at the level of 5 %; 65 is two standard deviations above


def test_the_smallest_visible_distance_is_seen_nine_times_in_ten() -> None:
    chance = np.random.default_rng(1)
    distance = smallest_visible(80, 300)
    moved = 0
    for _ in range(500):
        forget = np.where(chance.random(80) < distance, 2 + chance.random(80), chance.random(80))
        moved += margin_test(forget, chance.random(300)).refused
    assert moved >= 450
    assert ks_bound(80, 300) < distance


def test_bound_is_smirnovs() -> None:
    assert ks_bound(500, 4000) == pytest.approx(1.358 * np.sqrt(4500 / 2e6), abs=1e-4)


def test_unseen_images_are_drawn_to_the_class_shares() -> None:
    pool = torch.tensor([0] * 30 + [1] * 10 + [2] * 50)
    chosen = alike_by_class(pool, torch.tensor([0, 0, 1]), seed=0)
    assert pool[chosen].bincount(minlength=3).tolist() == [20, 10, 0]
    assert len(alike_by_class(pool, torch.tensor([0, 3]), seed=0)) == 0


def test_models_are_left_as_they_are_and_the_seed_fixes_the_answer(world: World, initial: nn.Module) -> None:
    before = copy.deepcopy(initial.state_dict())
    assert world.judge(initial, initial) == world.judge(initial, initial)
    assert all(torch.equal(value, before[name]) for name, value in initial.state_dict().items())


def test_the_validation_set_of_the_data_serves(initial: nn.Module, world: World) -> None:
    with pytest.raises(UserError, match="has no validation set; give validation"):
        acceptance(initial, world.split, device=CPU)
    split = replace(world.split, dataset=replace(world.data, validation=world.unseen))
    judging, choosing = data.halves(world.unseen).judging, data.halves(world.unseen).choosing
    assert acceptance(initial, split, initial=initial, device=CPU) == acceptance(
        initial, split, validation=judging, initial=initial, device=CPU
    )
    split = tasks.class_split(split.dataset, [0])
    assert acceptance(initial, split, initial=initial, device=CPU) == acceptance(
        initial, split, validation=judging, shown=choosing, initial=initial, device=CPU
    )


def test_halves_share_no_image_and_depend_on_no_other() -> None:
    images = data.ImageSet(*drawn(400, 7), CLASSES)
    doubled = data.ImageSet(
        torch.cat([images.images, images.images]), torch.cat([images.targets, images.targets]), CLASSES
    )
    once, twice = data.halves(images), data.halves(doubled)
    assert 150 < len(once.judging) < 250 and len(once.choosing) + len(once.judging) == 400
    for half, whole in zip(once, twice, strict=True):
        assert torch.equal(torch.cat([half.images, half.images]), whole.images)  # copies lie in one half
    fewer = data.halves(images.subset(torch.arange(100)))
    assert torch.equal(fewer.judging.images, once.judging.images[: len(fewer.judging)])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 0.0}, "alpha is 0.0"), ({"validation": data.ImageSet(*drawn(3, 0), tuple("xyz"))}, "classes")],
)
def test_bad_arguments_are_named(world: World, options: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"validation": world.unseen, "device": CPU, **options}
    with pytest.raises(UserError, match=message):
        acceptance(nn.Identity(), world.split, **arguments)  # type: ignore[arg-type]
