"""Shards: which samples train which network of an ensemble, in which order, and what a deletion leaves of that."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn.errors import UserError
from pymixunlearn.seeding import generator


class Shard(NamedTuple):
    """The samples of one network, in slices that are added to its training one after the other.

    Attributes:
        slices: int64 [n] each, sorted indices into the training set; none is in two slices, nor in two shards.
    """

    slices: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        return sum(len(part) for part in self.slices)

    def first(self, count: int) -> Tensor:
        """Return the samples of the first ``count`` slices, sorted."""
        return torch.cat(self.slices[:count]).sort().values

    def untouched(self, gone: Tensor) -> int:
        """Return how many slices come before the first that has a sample in ``gone``, bool [N] over all samples."""
        touched = [bool(gone[part].any()) for part in self.slices]
        return touched.index(True) if True in touched else len(touched)

    def without(self, gone: Tensor) -> Shard:
        """Return what a deletion of ``gone``, bool [N] over all samples, leaves in each slice."""
        return Shard(tuple(part[~gone[part]] for part in self.slices))


def divide(count: int, shards: int, slices: int, seed: int) -> list[Shard]:
    """Divide ``count`` samples at random into shards, and these into slices, all of about the same size.

    The division must not depend on what is going to be forgotten, so it is of the whole training set.

    Raises:
        UserError: There are fewer samples than slices in all.
    """
    if count < shards * slices:
        raise UserError(f"shards x slices is {shards * slices}; expected at most one per training sample, {count}")
    order = torch.randperm(count, generator=generator(seed, "shards"))
    return [
        Shard(tuple(part.sort().values for part in torch.tensor_split(shard, slices)))
        for shard in torch.tensor_split(order, shards)
    ]


def slice_epochs(epochs: int, slices: int) -> list[int]:
    """Return for how many epochs each slice's training goes through all slices up to it.

    They are about the same for each, and together show as many samples as ``epochs`` passes over the whole shard:
    2 epochs / (slices + 1), as Bourtoule et al. have it; at least 1, so that every sample is seen.
    """
    ends = [2 * epochs * done // (slices + 1) for done in range(slices + 1)]
    return [max(1, end - begin) for begin, end in zip(ends, ends[1:], strict=False)]
