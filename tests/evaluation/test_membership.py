from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import DRAWS, FORMS, Predictions, attack_success_rate, evaluate, membership, predict
from pymixunlearn.evaluation.membership import _choose_samples, attacks
from pymixunlearn.experiments.common.inputs import ASR_FORMS


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


def test_in_the_papers_form_members_are_augmented_and_test_images_in_file_order(leaky: data.Dataset) -> None:
    """Against the protocol of Shen et al.'s code, written out."""
    split = tasks.class_split(replace(leaky, preprocess=replace(leaky.preprocess, flip=True)), (0,))
    random = torch.Generator().manual_seed(0)
    train, test, augmented = (torch.randn(count, 4, generator=random) for count in (240, 160, 240))
    predictions = Predictions(split, train, test, augmented)

    forget = split.forget_indices
    learnt = set()
    found = []

    class Attacker:
        def fit(self, features: Any, labels: Any) -> None:
            unseen = _sorted(test[:80])  # the first half, in order
            assert torch.equal(torch.as_tensor(features[60:]), unseen)
            assert labels.tolist() == [1] * 60 + [0] * 80  # as many members as D_f has samples
            rows = {tuple(row): index for index, row in enumerate(_sorted(augmented).tolist())}
            learnt.update(rows[tuple(row)] for row in features[:60].tolist())

        def predict(self, features: Any) -> Any:
            assert torch.equal(torch.as_tensor(features), _sorted(augmented[forget], test[80:140]))
            found.append(len(features))
            return [1] * 60 + [1] * 15 + [0] * 45

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "_build_attacker", lambda name, state: Attacker())
        rate = attack_success_rate(predictions, seed=3, form="paper")
        assert membership.attacks(predictions, seed=3, attacker="", form="paper") == [rate]
    assert rate == 100 * 105 / 120 and found == [120, 120] and membership.scored_samples(split, "paper") == 120
    assert len(learnt) == 60 and learnt <= set(split.retain_indices.tolist())


def _sorted(*logits: Tensor) -> Tensor:
    return torch.cat(logits).double().softmax(1).sort(1).values


def test_the_papers_form_needs_augmented_predictions(leaky: data.Dataset, model: nn.Module) -> None:
    split = tasks.class_split(replace(leaky, preprocess=replace(leaky.preprocess, flip=True)), (0,))
    with pytest.raises(UserError, match=r"looks at augmented images; expected predict\(\.\.\., augmented=True\)"):
        attack(model, split, form="paper")
    assert predict(model, split, device="cpu").augmented is None
    looked = predict(model, split, device="cpu", augmented=True)
    assert looked.augmented is not None and not torch.equal(looked.augmented, looked.train)
    evaluated = evaluate(model, split, device="cpu", asr="paper")
    assert evaluated["asr"] == attack_success_rate(looked, form="paper") and evaluated["asr_spread"] is None
    assert evaluate(model, split, device="cpu")["asr_spread"] is not None


def test_an_unknown_form_is_named_with_the_nearest(model: nn.Module, class_task: tasks.Split) -> None:
    with pytest.raises(UserError, match="unknown form of the attack 'papre'.*Did you mean 'paper'"):
        attack(model, class_task, form="papre")
    assert FORMS == ASR_FORMS
