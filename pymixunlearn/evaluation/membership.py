"""Membership inference: can an attacker tell forgotten samples from unseen ones?

The attack of Shokri et al. (2017) as Shen et al. (2024) run it on an unlearned model: a gradient-boosted tree
classifier looks at the sorted softmax vector of the model under attack. It learns from remaining samples (members) and
test samples (non-members), and then classifies the forget set and test samples it has not seen.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split

ATTACKERS = ("hist-gradient-boosting", "xgboost")
"""The classifiers that can attack: scikit-learn's (the default), and XGBoost's, which is the original."""

MAX_MEMBERS = 5000
TREES = 100

DRAWS = 5
"""How many attacks the success is the mean of. One alone moves by more than a point with the samples it draws."""

FORMS = ("default", "paper")
"""The mean of :data:`DRAWS` attacks; or the one attack of the code that MixUnlearn's paper takes its ASR from."""


def attack_success_rate(
    predictions: Predictions,
    *,
    seed: int = 0,
    attacker: str = "hist-gradient-boosting",
    draws: int = DRAWS,
    form: str = "default",
) -> float:
    """Return how often the attacker is right about forgotten and unseen samples, in percent: the mean of some attacks.

    Each learns from ``m = min(5000, |D_r|, |test| // 2)`` remaining samples and as many test samples, and is scored on
    all of D_f (as members) plus at most as many of the test samples that are left (as non-members). Which samples these
    are depends on ``seed`` and the split alone, so that two models are attacked with the same ones.

    With ``form="paper"`` it is one attack, as in Shen et al.'s code: members and D_f are looked at under the training
    augmentation where there is one, test images are not; the first ``min(5000, |test| // 2)`` test images are learnt
    from and the following ones scored, in the order of the file; members are as many as D_f has samples, at most 5000.

    Args:
        predictions: What the model under attack says.
        seed: Fixes the samples and the attackers.
        attacker: One of :data:`ATTACKERS`.
        draws: How many attacks, each with other samples, at least 1. The first is the same for every number.
        form: One of :data:`FORMS`; "paper" needs predictions with ``augmented`` where images are augmented.

    Raises:
        UserError: The attacker or the form is unknown, or the attacker not installed; the test set is too small to
            attack with, or the predictions lack what the form looks at.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> predictions = evaluation.predict(model, split, device="cpu")
        >>> 0 <= evaluation.attack_success_rate(predictions, seed=0) <= 100
        True
    """
    return mean(attacks(predictions, seed=seed, attacker=attacker, draws=draws, form=form))


def attacks(
    predictions: Predictions, *, seed: int, attacker: str, draws: int = DRAWS, form: str = "default"
) -> list[float]:
    """Return the success of each of the attacks that :func:`attack_success_rate` is the mean of.

    Args:
        predictions: As there, like all that follows.
        seed: As there.
        attacker: As there.
        draws: As there.
        form: As there.

    Raises:
        UserError: As there, or ``draws`` is below 1.
    """
    if draws < 1:
        raise UserError(f"draws is {draws}; expected at least 1")
    if form not in FORMS:
        raise unknown_name("form of the attack", form, FORMS)
    if form == "paper":
        return [_attack(_seen_in_training(predictions), _choose_in_file_order(predictions.split, seed), seed, attacker)]
    seeds = [seed, *(derive_seed(seed, "asr", "draw", number) for number in range(1, draws))]
    return [_attack(predictions, _choose_samples(predictions.split, stream), stream, attacker) for stream in seeds]


class Chosen(NamedTuple):
    """Samples of one attack, int64 indices: members to learn from, test samples to learn from and to be scored on."""

    members: Tensor
    learn_unseen: Tensor
    score_unseen: Tensor


def _attack(predictions: Predictions, chosen: Chosen, seed: int, attacker: str) -> float:
    members, learn_unseen, score_unseen = chosen
    classifier = _build_attacker(attacker, derive_seed(seed, "asr", "attacker") % 2**31)
    learn = _features(predictions.train[members], predictions.test[learn_unseen])
    learn_labels = _labels(len(members), len(learn_unseen))
    score = _features(predictions.forget, predictions.test[score_unseen])
    score_labels = _labels(len(predictions.forget), len(score_unseen))
    from threadpoolctl import threadpool_limits

    # One thread: sums over threads come in any order, and one seed has to fix the last bit.
    with threadpool_limits(limits=1, user_api="openmp"):
        classifier.fit(learn.numpy(), learn_labels.numpy())
        called = torch.as_tensor(classifier.predict(score.numpy()))
    return 100.0 * int((called == score_labels).sum()) / len(score_labels)


def scored_samples(split: Split, form: str = "default") -> int:
    """Return how many samples each attack of :func:`attack_success_rate` is counted on."""
    learnt = min(MAX_MEMBERS, len(split.test) // 2) if form == "paper" else _learnt_unseen(split)
    left = len(split.test) - learnt
    return len(split.forget_indices) + min(left, len(split.forget_indices))


def _features(*logits: Tensor) -> Tensor:
    return torch.cat(logits).double().softmax(dim=1).sort(dim=1).values


def _seen_in_training(predictions: Predictions) -> Predictions:
    """Return predictions whose training images are those that training shows: augmented where it augments."""
    if not predictions.split.preprocess.augments:
        return predictions
    if predictions.augmented is None:
        raise UserError(
            "the attack in the paper's form looks at augmented images; expected predict(..., augmented=True)"
        )
    return replace(predictions, train=predictions.augmented)


def _choose_in_file_order(split: Split, seed: int) -> Chosen:
    """Choose as Shen et al.'s code does: members at random, as many as D_f has, and test images in order."""
    learnt, forget = min(MAX_MEMBERS, len(split.test) // 2), len(split.forget_indices)
    if learnt < 1:
        raise UserError(f"the membership attack needs at least 2 test samples, but the test set has {len(split.test)}")
    members = torch.randperm(len(split.retain_indices), generator=generator(seed, "asr", "members"))
    order = torch.arange(len(split.test))
    chosen = split.retain_indices.cpu()[members[: min(MAX_MEMBERS, forget)]]
    return Chosen(chosen, order[:learnt], order[learnt : learnt + forget])


def _choose_samples(split: Split, seed: int) -> Chosen:
    """Choose at random on both sides, as many members as test samples."""
    unseen, count = len(split.test), _learnt_unseen(split)
    if count < 1:
        raise UserError(f"the membership attack needs at least 2 test samples, but the test set has {unseen}")
    retained = torch.randperm(len(split.retain_indices), generator=generator(seed, "asr", "members"))
    members = split.retain_indices.cpu()[retained[:count]]
    order = torch.randperm(unseen, generator=generator(seed, "asr", "non-members"))
    left = order[count:]
    return Chosen(members, order[:count], left[: len(split.forget_indices)])


def _learnt_unseen(split: Split) -> int:
    return min(MAX_MEMBERS, len(split.retain_indices), len(split.test) // 2)


def _labels(members: int, non_members: int) -> Tensor:
    return torch.cat([torch.ones(members, dtype=torch.int64), torch.zeros(non_members, dtype=torch.int64)])


def _build_attacker(name: str, random_state: int) -> Any:
    if name == "hist-gradient-boosting":
        # Imported here, since it takes longer than everything else that the command line imports besides torch.
        from sklearn.ensemble import HistGradientBoostingClassifier

        # Early stopping would hold samples out at some sizes and not at others.
        return HistGradientBoostingClassifier(max_iter=TREES, early_stopping=False, random_state=random_state)
    if name == "xgboost":
        if find_spec("xgboost") is None:
            raise UserError("attacker 'xgboost' is not installed; install the package xgboost or use the default")
        return import_module("xgboost").XGBClassifier(n_estimators=TREES, random_state=random_state, n_jobs=1)
    raise unknown_name("attacker", name, ATTACKERS)
