"""SCRUB+R: which epoch it goes back to, and that it learns from no sample that it compares with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, methods, tasks
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods.scrub import Rewind


def _set(targets: list[int]) -> ImageSet:
    return ImageSet(torch.zeros(len(targets), 1, 1, 1), torch.tensor(targets), ("a", "b", "c"))


def test_goes_back_to_the_epoch_whose_error_is_nearest_to_that_on_unseen_samples() -> None:
    # Class b has no held-out sample, so it is left out; a weighs 3/4 and c 1/4.
    rewind = Rewind(_set([0, 0, 0, 2, 1, 1]), _set([0, 0, 2, 2]))
    assert rewind.forget.targets.tolist() == [0, 0, 0, 2]
    student = nn.Linear(1, 1)
    for epoch, wrong in enumerate([0, 1, 2, 4]):
        with torch.no_grad():
            student.bias.fill_(epoch)
        rewind.record(student, torch.tensor([1] * wrong + [0, 0, 0, 2][wrong:]))
    assert rewind.errors == [0, 0.25, 0.5, 1]
    # Held-out errors: a 1/2, c 0 of 2, so 3/8 as D_f is mixed; with c wrong once, 1/2.
    assert rewind.choose(torch.tensor([1, 0, 1, 2]))["bias"].item() == 2
    assert rewind.choose(torch.tensor([0, 0, 2, 2]))["bias"].item() == 0
    assert rewind.choose(torch.tensor([1, 1, 1, 1]))["bias"].item() == 3


def test_the_held_out_samples_are_not_learnt_from(digits: data.Dataset, digits_model: nn.Module) -> None:
    split = tasks.data_split(digits, seed=1)
    method = methods.Scrub(rewind=True, validation=0.2)
    view_job = methods.base.UnlearnJob(digits_model, methods.view.SplitView.of(split, labels=True), _CPU, 0, (), None)
    loop = method.begin(view_job)
    held_out = loop.rewind.held_out
    assert len(held_out) + len(loop.retain_set) == len(split.retain)
    assert len(held_out) == pytest.approx(0.2 * len(split.retain), rel=0.05)
    pixels = {image.numpy().tobytes() for image in held_out.images}
    assert not any(image.numpy().tobytes() in pixels for image in loop.retain_set.images) or _has_twins(split)


_CPU = torch.device("cpu")


def _has_twins(split: tasks.Split) -> bool:
    images = [image.numpy().tobytes() for image in split.retain.images]
    return len(set(images)) < len(images)


def test_decay_epochs_are_numbers() -> None:
    assert methods.ScrubConfig(decay_epochs="2, 4").decays() == [2, 4]
    with pytest.raises(UserError, match="decay_epochs is 'soon'; expected whole numbers"):
        methods.Scrub(decay_epochs="soon")


def test_a_setting_wins_over_the_variant(tiny: Any) -> None:
    settings = methods.Scrub(variant="large", T=1.0).resolve(tiny.model())
    assert (settings.T, settings.epochs, settings.optimizer, settings.gamma) == (1.0, 3, "sgd", 0.99)
