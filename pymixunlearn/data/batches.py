"""Batches of network inputs from images that lie whole on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn import seeding
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.errors import UserError


class Batch(NamedTuple):
    """One step's samples.

    Attributes:
        images: Network inputs, float32 ``[B, C, H, W]``; not to be written to.
        targets: int64 ``[B]``, or None where labels were not asked for.
        indices: int64 ``[B]``, the samples' places in the image set.
    """

    images: Tensor
    targets: Tensor | None
    indices: Tensor


def batches(
    images: ImageSet | UnlabelledImages,
    preprocess: Preprocess,
    *,
    batch_size: int,
    device: torch.device | str,
    seed: int | None = None,
    augment: bool = False,
    labels: bool = True,
) -> Iterator[Batch]:
    """Go once through ``images``; the last batch may be smaller.

    Args:
        images: The samples. A set that is not on ``device`` is copied there first, so move it once with
            :meth:`ImageSet.to` before going through it many times.
        preprocess: What turns stored images into network inputs.
        batch_size: Samples per batch, at least 1.
        device: Where the batches are.
        seed: None for the stored order; a number shuffles by it, and the augmentation is drawn from it as well.
        augment: Apply ``preprocess``'s random augmentation; needs a seed.
        labels: False leaves ``targets`` None, so that a label-agnostic method cannot see them.

    Raises:
        UserError: ``batch_size`` below 1, ``augment`` without a seed, or ``labels`` of images that have none.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if augment and seed is None:
        raise UserError("augment=True needs a seed to draw the augmentation from, got seed=None")
    if labels and not isinstance(images, ImageSet):
        raise UserError("labels=True needs an ImageSet, got images without labels")
    # Checked here and not in the generator below, whose body only runs once the first batch is taken.
    return _batches(images.to(device), preprocess, batch_size, seed, augment, labels)


def _batches(
    images: ImageSet | UnlabelledImages,
    preprocess: Preprocess,
    batch_size: int,
    seed: int | None,
    augment: bool,
    labels: bool,
) -> Iterator[Batch]:
    device = images.images.device
    labelled = images.targets if labels and isinstance(images, ImageSet) else None
    noise = None
    if seed is None:
        order = torch.arange(len(images), device=device)
    else:
        order = torch.randperm(len(images), generator=seeding.generator(seed, "order")).to(device)
        if augment:
            noise = seeding.generator(seed, "augmentation", device=device)

    for start in range(0, len(images), batch_size):
        stop = start + batch_size
        indices = order[start:stop]
        if seed is None:  # consecutive samples need no gathering
            stored = images.images[start:stop]
            targets = None if labelled is None else labelled[start:stop]
        else:
            stored = images.images.index_select(0, indices)
            targets = None if labelled is None else labelled.index_select(0, indices)
        inputs = preprocess.evaluation(stored) if noise is None else preprocess.training(stored, noise)
        yield Batch(inputs, targets, indices)
