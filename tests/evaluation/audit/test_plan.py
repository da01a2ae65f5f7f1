from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pymixunlearn import data, tasks
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit import plan_shadows


@pytest.fixture(scope="module")
def split() -> tasks.Split:
    return tasks.data_split(data.load("digits"), fraction=0.4)


def test_candidates_are_forgotten_and_unseen_samples_of_the_same_classes(split: tasks.Split) -> None:
    plan = plan_shadows(split, 4)
    assert torch.isin(plan.members, split.forget_indices).all()
    of_members, of_unseen = split.train.targets[plan.members], split.test.targets[plan.unseen]
    assert of_members.equal(of_unseen) and set(of_members.tolist()) == {5, 6, 7, 8, 9}
    for side in (plan.members, plan.unseen, plan.population, plan.retained):
        assert len(side) == len(side.unique()) > 0
    assert not torch.isin(plan.population, plan.unseen).any()
    assert torch.isin(plan.retained, split.retain_indices).all()
    # Of every forgotten class the population keeps some samples.
    assert set(split.test.targets[plan.population].tolist()) == set(range(10))
    assert len(plan.audited()) == plan.candidates + len(plan.population) + len(plan.retained)


def test_every_candidate_is_seen_by_half_of_the_models(split: tasks.Split) -> None:
    plan = plan_shadows(split, 6)
    assert (plan.seen.sum(0) == 3).all() and (plan.seen.sum(1) == len(plan.members)).all()
    assert (plan.seen[0::2] == ~plan.seen[1::2]).all()
    assert not (plan.seen[0] == plan.seen[2]).all()


def test_more_models_leave_the_first_as_they_are(split: tasks.Split) -> None:
    few, many = plan_shadows(split, 4, seed=2), plan_shadows(split, 8, seed=2)
    assert few.members.equal(many.members) and (few.seen == many.seen[:4]).all()
    assert not plan_shadows(split, 4, seed=3).members.equal(few.members)


def test_a_shadow_model_sees_as_much_as_the_audited_one(split: tasks.Split) -> None:
    plan = plan_shadows(split, 2)
    shadow = plan.shadow_split(0)
    assert len(shadow.train) == len(split.train) and len(shadow.forget) == len(split.forget)
    assert shadow.retain.fingerprint() == split.retain.fingerprint()
    assert shadow.task == split.task and shadow.params == split.params

    def images(subset: data.ImageSet) -> set[bytes]:
        return {image.numpy().tobytes() for image in subset.images}

    forgotten, audited = images(shadow.forget), plan.audited()
    candidates = audited.images[: plan.candidates]
    inside = np.array([image.numpy().tobytes() in forgotten for image in candidates])
    # Two digits of the data set may be equal pixel by pixel, but no more than that.
    assert (inside != plan.seen[0]).sum() <= 2
    assert not forgotten & images(audited.subset(torch.arange(plan.candidates, len(audited))))


def test_a_forgotten_class_has_no_sample_in_what_remains() -> None:
    split = tasks.class_split(data.load("digits"), (3,))
    shadow = plan_shadows(split, 2).shadow_split(1)
    assert shadow.forget_classes == (3,)
    assert 3 not in shadow.retain.targets and set(shadow.forget.targets.tolist()) == {3}


def test_too_few_samples_to_compare_is_one_sentence() -> None:
    split = tasks.index_split(data.load("digits"), [1, 2, 3])
    with pytest.raises(UserError, match="compares at least 10 samples to forget .* got 3 to forget"):
        plan_shadows(split, 4)


def test_streamed_images_are_refused(split: tasks.Split) -> None:
    train = split.train
    streamed = StreamedImageSet(train.images, train.targets, train.classes)
    dataset = dataclasses.replace(split.dataset, train=streamed)
    with pytest.raises(UserError, match="streamed from a file"):
        plan_shadows(tasks.class_split(dataset), 4)


def test_mislabelled_samples_have_nothing_to_be_compared_with() -> None:
    with pytest.raises(UserError, match="have no wrong labels like theirs"):
        plan_shadows(tasks.noisy_split(data.load("digits")), 4)
