"""The acceptance test on many Retrains of a small model: how often it refuses what never saw D_f."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.evaluation.accept import acceptance
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.evaluation.margin_test import alike_by_class, judged_margins, margin_test
from pymixunlearn.evaluation.resurfacing import Resurfacing, resurface
from tests.evaluation.test_acceptance import CPU, World

RETRAINS = 60
RATE = Resurfacing(lr=1e-2)
"""That at which these models are trained."""


@pytest.fixture(scope="module")
def alarms() -> dict[str, int]:
    """How many of the Retrains, each of its own data and its own D_f, each form of the test refuses."""
    counted = {"outputs": 0, "resurfaced": 0, "no labels": 0, "initial's answer": 0}
    for seed in range(RETRAINS):
        world = World(seed=100 + 10 * seed)
        model, initial = world.retrain(4 + seed), world.initial()
        forget, unseen = world.split.forget, world.unseen
        drawn = unseen.subset(alike_by_class(unseen.targets, forget.targets, seed))

        def logits(network: nn.Module, images: data.ImageSet, split: tasks.Split = world.split) -> Tensor:
            return predict_logits(network, images, split.preprocess, device=CPU)

        before = [logits(model, images) for images in (forget, drawn, unseen)]
        answers = [logits(initial, images).argmax(1) for images in (forget, unseen)]
        resurface(model, world.split, Resurfacing(), device=CPU, seed=seed)
        after = [logits(model, images) for images in (forget, drawn)]
        sides = {
            "outputs": (before[0], forget.targets, before[1], drawn.targets),
            "resurfaced": (after[0], forget.targets, after[1], drawn.targets),
            "no labels": (before[0], before[0].argmax(1), before[2], before[2].argmax(1)),
            "initial's answer": (before[0], answers[0], before[2], answers[1]),
        }
        for name, compared in sides.items():
            counted[name] += margin_test(*judged_margins(*compared)).refused
    return counted


@pytest.mark.parametrize("part", ["outputs", "resurfaced", "no labels"])
def test_false_alarms_on_retrains_are_at_most_five_percent(alarms: dict[str, int], part: str) -> None:
    """Of sixty, three are five percent."""
    assert alarms[part] <= 3


@pytest.fixture(scope="module")
def class_alarms() -> dict[str, int]:
    """How many Retrains of class tasks each part refuses, with images of the class shown in (b); where (a) passes."""
    counted = {"outputs": 0, "resurfaced": 0}
    for seed in range(RETRAINS):
        world = World(seed=1000 + 10 * seed)
        split = tasks.class_split(world.data, [seed % 3])
        model = world.trained(split.retain.images, split.retain.targets, 4 + seed)
        validation, shown = data.halves(world.unseen)
        options = {"validation": validation, "shown": shown, "resurfacing": RATE, "decision_only": True}
        judged = acceptance(model, split, device=CPU, **options)
        assert judged.shown_samples > 50 and judged.ks is not None and judged.bound is not None
        counted["outputs"] += judged.ks > judged.bound
        counted["resurfaced"] += (judged.ks_resurfaced or 0) > judged.bound
    return counted


@pytest.mark.parametrize("part", ["outputs", "resurfaced"])
def test_false_alarms_on_retrains_of_class_tasks_are_at_most_five_percent(
    class_alarms: dict[str, int], part: str
) -> None:
    assert class_alarms[part] <= 3


def test_the_initial_models_answer_is_no_stand_in_for_a_label(alarms: dict[str, int]) -> None:
    """It is right on D_f, which that model learnt, and often wrong on V: a Retrain then looks as if it remembered."""
    assert alarms["initial's answer"] > 0.5 * RETRAINS


def test_a_trace_in_unlabelled_images_is_seen() -> None:
    world = World()
    unlabelled = world.unseen.unlabelled()
    initial = world.initial()
    refused = acceptance(initial, world.split, validation=unlabelled, initial=initial, device=CPU)
    accepted = acceptance(world.retrain(), world.split, validation=unlabelled, initial=initial, device=CPU)
    assert (refused.decision, accepted.decision) == ("refused", "accepted")
    assert accepted.unseen_samples == len(unlabelled) and accepted.eps is None and accepted.shown_again is None
    assert accepted.auc_interval is not None and accepted.auc_interval[0] < 0.5 < accepted.auc_interval[1]
    assert refused.auc is not None and refused.auc > 0.6
    assert torch.equal(unlabelled.images, world.unseen.images)
