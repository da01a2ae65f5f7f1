"""The two halves of a validation set: one to choose by, one to judge by."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pymixunlearn.data.image_set import ImageSet, image_hashes


class Halves(NamedTuple):
    """A validation set in two parts.

    Attributes:
        choosing: What a depth, a share, a number of steps or a rollback may be chosen by.
        judging: What the acceptance test judges by; nothing may be chosen by it.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.class_split(data.load("digits@1000"))
        >>> len(split.validation_halves.judging)
        206
    """

    choosing: ImageSet
    judging: ImageSet


def halves(images: ImageSet) -> Halves:
    """Divide a validation set by a hash of each image's pixels: no other image matters, and copies stay together.

    Args:
        images: The set, in memory or streamed.

    Example:
        >>> from pymixunlearn import data
        >>> part = data.load("digits@1000").validation
        >>> [len(half) for half in halves(part)]
        [232, 206]
    """
    judges = torch.tensor([digest[0] >= 128 for digest in image_hashes(images)], dtype=torch.bool)
    return Halves(*(images.subset(side.nonzero().squeeze(1)) for side in (~judges, judges)))
