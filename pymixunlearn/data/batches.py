"""Batches of stored images and of network inputs, on the computing device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn import seeding
from pymixunlearn.data.image_set import ImageSet, StoredBatch, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.errors import UserError


class Batch(NamedTuple):
    """Batch of network inputs.

    Attributes:
        images: Network inputs, float32 ``[B, C, H, W]``; not to be written to.
        targets: int64 ``[B]``; None where labels were not requested.
        indices: int64 ``[B]``, the samples' indices in the image set.

    Example:
        >>> from pymixunlearn import data
        >>> digits = data.load("digits")
        >>> batch = next(data.batches(digits.train, digits.preprocess, batch_size=64, device="cpu", seed=0))
        >>> batch.images.shape, batch.targets.dtype, batch.indices.shape
        (torch.Size([64, 1, 8, 8]), torch.int64, torch.Size([64]))
    """

    images: Tensor
    targets: Tensor | None
    indices: Tensor


def shuffled(count: int, seed: int) -> Tensor:
    """Return the indices 0..count-1, int64 on the CPU, in the order of batches with ``seed``."""
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
    """Iterate once over ``images``; the last batch may be smaller.

    Args:
        images: The samples. A set in memory that is not on ``device`` is copied there first, so move it once with
            :meth:`ImageSet.to` before iterating many times; a streamed set stays in its file.
        preprocess: Preprocessing from stored images to network inputs.
        batch_size: Samples per batch, at least 1.
        device: Device of the batches.
        seed: None for the stored order; a number shuffles, and the augmentation is drawn from it as well.
        augment: Apply ``preprocess``'s random augmentation; needs a seed.
        labels: False leaves ``targets`` None, so that a label-agnostic method cannot see them.

    Raises:
        UserError: ``batch_size`` below 1, ``augment`` without a seed, or ``labels`` of images that have none.

    Example:
        >>> from pymixunlearn import data
        >>> digits = data.load("digits")
        >>> [len(batch.images) for batch in data.batches(digits.test, digits.preprocess, batch_size=256, device="cpu")]
        [256, 103]
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
    indices, stream = None, None
    if seed is not None:
        indices = shuffled(len(images), seed)
        if augment:
            stream = seeding.generator(seed, "augmentation", device=device)
    for batch in images.iterate(indices, batch_size, device):
        uniform = None if stream is None else preprocess.draw(len(batch.images), stream)
        yield batch._replace(targets=batch.targets if labels else None, uniform=uniform)
