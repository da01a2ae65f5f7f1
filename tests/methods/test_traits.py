"""The table of what methods ask for: it is complete, and it is true of what they read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import methods
from pymixunlearn.methods.traits import TRAITS
from tests.methods.test_all_methods import CASES, ENSEMBLES

Same = Callable[[nn.Module, nn.Module], bool]
SHORT = {name: CASES[name] for name in TRAITS if name in CASES and name not in ENSEMBLES}


def test_every_method_is_in_the_table() -> None:
    assert set(TRAITS) == set(methods.available())
    for name, traits in TRAITS.items():
        method = methods.get(name)
        either = "label_aware" in method.config_class.kinds()
        assert traits.labels.endswith(" or none") is either, name
        if not either:
            assert method().needs_labels is (traits.labels != "none"), name


@pytest.mark.parametrize("side", ["forget", "retain"])
@pytest.mark.parametrize("name", SHORT)
def test_what_a_method_is_not_given_changes_nothing(name: str, side: str, tiny: Any, same_weights: Same) -> None:
    """And what it is given does."""
    ends = _ends(SHORT[name], side, tiny)
    traits = TRAITS[name]
    reads = traits.forget in ("trains on", "reads") if side == "forget" else traits.retain
    if (name, side) == ("unroll", "retain"):
        reads = False  # it reads how many there are, and one batch for a number in its record
    assert same_weights(*ends) is not reads


def test_a_setting_decides_whether_prune_reset_reads_the_forget_set(tiny: Any, same_weights: Same) -> None:
    assert TRAITS["prune-reset"].forget == "no or reads"
    by = {select: methods.PruneReset(epochs=1, share=0.5, select=select) for select in ("magnitude", "fisher")}
    assert same_weights(*_ends(by["magnitude"], "forget", tiny))
    assert not same_weights(*_ends(by["fisher"], "forget", tiny))


def _ends(method: methods.Method, side: str, tiny: Any) -> list[nn.Module]:
    """Unlearn with the method twice, the second time with other images in one of the sets."""
    split = tiny.split()
    images = split.train.images.clone()
    changed = split.forget_indices if side == "forget" else split.retain_indices
    images[changed] = torch.rand(images[changed].shape, generator=torch.Generator().manual_seed(7)) * 3
    dataset = replace(split.dataset, train=type(split.train)(images, split.train.targets, split.train.classes))
    other = replace(split, dataset=dataset)
    return [method.unlearn(tiny.model(), part, device="cpu").model for part in (split, other)]
