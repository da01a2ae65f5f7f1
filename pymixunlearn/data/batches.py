"""Batches of stored images, and of the network inputs that they become, on the device that computes."""

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


class StoredBatch(NamedTuple):
    """One step's samples before preprocessing, with all that chance has to say about them.

    Attributes:
        images: As stored, ``[B, C, H, W]``; not to be written to.
        targets: int64 ``[B]``, or None where labels were not asked for.
        indices: int64 ``[B]``, the samples' places in the image set.
        uniform: The numbers for :meth:`Preprocess.augmented`; None where nothing is augmented.
    """

    images: Tensor
    targets: Tensor | None
    indices: Tensor
    uniform: Tensor | None


def shuffled(count: int, seed: int) -> Tensor:
    """Return the order, int64 ``[count]`` on the CPU, in which batches with ``seed`` go through ``count`` samples."""
    return torch.randperm(count, generator=seeding.generator(seed, "order"))


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
        images: The samples. A set in memory that is not on ``device`` is copied there first, so move it once with
            :meth:`ImageSet.to` before going through it many times; a streamed set stays in its file.
        preprocess: What turns stored images into network inputs.
        batch_size: Samples per batch, at least 1.
        device: Where the batches are.
        seed: None for the stored order; a number shuffles by it, and the augmentation is drawn from it as well.
        augment: Apply ``preprocess``'s random augmentation; needs a seed.
        labels: False leaves ``targets`` None, so that a label-agnostic method cannot see them.

    Raises:
        UserError: ``batch_size`` below 1, ``augment`` without a seed, or ``labels`` of images that have none.
    """
    stored = stored_batches(
        images, preprocess, batch_size=batch_size, device=device, seed=seed, augment=augment, labels=labels
    )
    return (Batch(preprocess.augmented(batch.images, batch.uniform), batch.targets, batch.indices) for batch in stored)


def stored_batches(
    images: ImageSet | UnlabelledImages,
    preprocess: Preprocess,
    *,
    batch_size: int,
    device: torch.device | str,
    seed: int | None = None,
    augment: bool = False,
    labels: bool = True,
) -> Iterator[StoredBatch]:
    """Like :func:`batches`, with the preprocessing left to the caller.

    ``preprocess.augmented(batch.images, batch.uniform)`` are the images of :func:`batches`; errors are its too.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if augment and seed is None:
        raise UserError("augment=True needs a seed to draw the augmentation from, got seed=None")
    if labels and not isinstance(images, ImageSet):
        raise UserError("labels=True needs an ImageSet, got images without labels")
    # Checked here and not in the generator below, whose body only runs once the first batch is taken.
    return _stored_batches(images, preprocess, batch_size, device, seed, augment, labels)


def _stored_batches(
    images: ImageSet | UnlabelledImages,
    preprocess: Preprocess,
    batch_size: int,
    device: torch.device | str,
    seed: int | None,
    augment: bool,
    labels: bool,
) -> Iterator[StoredBatch]:
    order, chance = None, None
    if seed is not None:
        order = shuffled(len(images), seed)
        if augment:
            chance = seeding.generator(seed, "augmentation", device=device)
    for stored, targets, indices in images.walk(order, batch_size, device):
        uniform = None if chance is None else preprocess.draw(len(stored), chance)
        yield StoredBatch(stored, targets if labels else None, indices, uniform)
