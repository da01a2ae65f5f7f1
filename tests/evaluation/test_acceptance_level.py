"""The acceptance test on many Retrains of a small model: how often it refuses what never saw D_f."""

from __future__ import annotations

import pytest
import torch

from pymixunlearn.evaluation.accept import acceptance
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.evaluation.margin_test import judged_margins, margin_test
from tests.evaluation.test_acceptance import CPU, World

RETRAINS = 60


@pytest.fixture(scope="module")
def alarms() -> dict[str, int]:
    """How many of the Retrains, each of its own data and its own D_f, each form of the test refuses."""
    counted = {"outputs": 0, "resurfaced": 0, "no labels": 0, "initial's answer": 0}
    for seed in range(RETRAINS):
        world = World(seed=100 + 10 * seed)
        model, initial = world.retrain(seed), world.initial()
        labelled = acceptance(model, world.split, validation=world.unseen, device=CPU, seed=seed)
        assert labelled.ks is not None and labelled.ks_resurfaced is not None and labelled.bound is not None
        counted["outputs"] += labelled.ks > labelled.bound
        counted["resurfaced"] += labelled.ks_resurfaced > labelled.bound
        sides = [
            [predict_logits(network, images, world.split.preprocess, device=CPU) for network in (model, initial)]
            for images in (world.split.forget, world.unseen)
        ]
        for name, answers in (("no labels", 0), ("initial's answer", 1)):
            (forget, unseen) = ((logits[0], logits[answers].argmax(1)) for logits in sides)
            counted[name] += margin_test(*judged_margins(*forget, *unseen)).refused
    return counted


@pytest.mark.parametrize("part", ["outputs", "resurfaced", "no labels"])
def test_false_alarms_on_retrains_are_at_most_five_percent(alarms: dict[str, int], part: str) -> None:
    assert alarms[part] <= 0.05 * RETRAINS


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
