from __future__ import annotations

import pytest
import torch

from pymixunlearn.errors import UserError
from pymixunlearn.methods.sisa.dsmixup import mixes
from pymixunlearn.methods.sisa.shards import Shard, divide, slice_epochs


def test_every_sample_is_in_one_slice_of_one_shard() -> None:
    shards = divide(103, 4, 3, seed=1)
    assert len(shards) == 4 and all(len(shard.slices) == 3 for shard in shards)
    places = torch.cat([part for shard in shards for part in shard.slices])
    assert torch.equal(places.sort().values, torch.arange(103))
    assert {len(shard) for shard in shards} == {25, 26}
    assert {len(part) for shard in shards for part in shard.slices} <= {8, 9}
    assert all(torch.equal(part, part.sort().values) for shard in shards for part in shard.slices)


def test_the_division_is_random_and_fixed_by_its_seed() -> None:
    first, again, other = (divide(60, 2, 2, seed) for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(first[0].slices, again[0].slices, strict=True))
    assert not torch.equal(first[0].slices[0], other[0].slices[0])
    assert first[0].first(2).tolist() != list(range(30))


def test_a_deletion_leaves_the_slices_before_it_untouched() -> None:
    shard = Shard((torch.tensor([1, 5]), torch.tensor([0, 7]), torch.tensor([3])))
    gone = torch.zeros(8, dtype=torch.bool)
    assert shard.untouched(gone) == 3
    gone[7] = True
    assert shard.untouched(gone) == 1
    left = shard.without(gone)
    assert [part.tolist() for part in left.slices] == [[1, 5], [0], [3]]
    assert left.first(2).tolist() == [0, 1, 5] and left.first(3).tolist() == [0, 1, 3, 5]
    assert len(left) == 4 and len(shard) == 5
    gone[1] = True
    assert shard.untouched(gone) == 0


def test_more_slices_than_samples_are_refused() -> None:
    with pytest.raises(UserError, match="shards x slices is 12; expected at most one per training sample, 11"):
        divide(11, 4, 3, seed=0)


@pytest.mark.parametrize(("epochs", "slices"), [(20, 5), (20, 1), (10, 4), (7, 3), (30, 20)])
def test_slices_show_as_many_samples_as_the_epochs_over_a_whole_shard(epochs: int, slices: int) -> None:
    each = slice_epochs(epochs, slices)
    assert len(each) == slices and max(each) - min(each) <= 1
    shown = sum(count * (place + 1) / slices for place, count in enumerate(each))
    assert shown == pytest.approx(epochs, rel=0.05)


def test_every_slice_is_seen_however_few_the_epochs() -> None:
    assert slice_epochs(1, 5) == [1, 1, 1, 1, 1]


def test_each_sample_of_the_larger_shard_is_mixed_once() -> None:
    small, large = torch.tensor([3, 4, 8]), torch.tensor([0, 1, 2, 5, 6, 7, 9])
    samples, mix = mixes(small, large, 0.75, seed=2)
    assert torch.equal(samples, large) and len(mix.partners) == len(mix.lam) == 7
    counts = torch.bincount(mix.partners, minlength=10)
    assert counts[small].tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3]) and counts.sum() == 7
    assert mix.lam.min() >= 0 and mix.lam.max() <= 1 and len(mix.lam.unique()) == 7
    other = mixes(small, large, 0.75, seed=3)[1]
    assert not torch.equal(mix.lam, other.lam) and not torch.equal(mix.partners, other.partners)
