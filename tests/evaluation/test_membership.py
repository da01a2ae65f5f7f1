from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import DRAWS, Predictions, attack_success_rate, predict
from pymixunlearn.evaluation.membership import _choose_samples, attacks


def attack(model: nn.Module, split: tasks.Split, **options: Any) -> float:
    return attack_success_rate(predict(model, split, device="cpu"), **options)


class Mute(nn.Module):
    """Says the same of every image: there is nothing to attack."""

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 4)


def test_a_model_that_betrays_its_training_is_found_out(model: nn.Module, class_task: tasks.Split) -> None:
    assert attack(model, class_task) == 100.0


def test_a_model_that_says_nothing_leaves_a_constant_guess(class_task: tasks.Split) -> None:
    # 60 forgotten and 60 unseen samples are all called the same.
    assert attack(Mute(), class_task) == 50.0


def test_sample_counts_follow_the_protocol(class_task: tasks.Split) -> None:
    members, learn_unseen, score_unseen = _choose_samples(class_task, seed=0)
    assert len(members) == len(learn_unseen) == 80  # half of the test set
    assert len(score_unseen) == 60  # as many as are forgotten
    assert not set(learn_unseen.tolist()) & set(score_unseen.tolist())
    assert set(members.tolist()) <= set(class_task.retain_indices.tolist())


def test_a_large_forget_set_is_scored_against_what_test_offers(leaky: data.Dataset) -> None:
    split = tasks.class_split(leaky, (0, 1, 2))
    members, learn_unseen, score_unseen = _choose_samples(split, seed=0)
    assert len(members) == len(learn_unseen) == 60  # all of D_r
    assert len(score_unseen) == 100


def test_the_seed_chooses_the_samples(class_task: tasks.Split) -> None:
    first, again, other = (_choose_samples(class_task, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


def test_the_same_seed_gives_the_same_rate(sample_task: tasks.Split) -> None:
    torch.manual_seed(0)
    noisy = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    first, again = (attack(noisy, sample_task, seed=5) for _ in range(2))
    assert first == again


def test_an_unknown_attacker_is_named_with_the_nearest(model: nn.Module, class_task: tasks.Split) -> None:
    with pytest.raises(UserError, match="unknown attacker 'xgbost'.*Did you mean 'xgboost'"):
        attack(model, class_task, attacker="xgbost")


def test_xgboost_attacks_or_says_that_it_is_missing(model: nn.Module, class_task: tasks.Split) -> None:
    if find_spec("xgboost") is None:
        with pytest.raises(UserError, match="'xgboost' is not installed"):
            attack(model, class_task, attacker="xgboost")
    else:
        # Its trees are not grown to the last sample: how many it tells apart depends on its version.
        assert attack(model, class_task, attacker="xgboost") > 95.0


def test_a_single_test_sample_is_too_few(model: nn.Module, leaky: data.Dataset) -> None:
    small = replace(leaky, test=leaky.test.subset(torch.tensor([0])))
    with pytest.raises(UserError, match="at least 2 test samples, but the test set has 1"):
        attack(model, tasks.class_split(small))


def test_the_rate_is_the_mean_of_five_attacks_with_other_samples(sample_task: tasks.Split) -> None:
    random = torch.Generator().manual_seed(0)
    sides = (torch.randn(len(images), 4, generator=random) for images in (sample_task.train, sample_task.test))
    noisy = Predictions(sample_task, *sides, augmented=None)
    found = attacks(noisy, seed=5, attacker="hist-gradient-boosting")
    assert len(found) == DRAWS == 5 and len(set(found)) > 1
    assert attack_success_rate(noisy, seed=5) == pytest.approx(sum(found) / 5)
    assert attack_success_rate(noisy, seed=5, draws=1) == found[0]  # as versions before 0.2.0 had it


def test_no_attack_is_no_mean(model: nn.Module, class_task: tasks.Split) -> None:
    with pytest.raises(UserError, match="draws is 0; expected at least 1"):
        attack(model, class_task, draws=0)
