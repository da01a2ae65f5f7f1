"""Sets of images that stay in a file; only the next batches are in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.data.image_set import ImageSet, StoredBatch, UnlabelledImages, paths_at
from pymixunlearn.errors import UserError

IN_MEMORY_LIMIT = 4 * 2**30
"""Bytes of images up to which a set is held in memory, and on the device that computes, unless asked otherwise."""

AHEAD = 4
"""Batches that are read ahead."""


@dataclass(frozen=True, eq=False)
class StreamedImageSet(ImageSet):
    """:class:`ImageSet` whose images are read from a memory-mapped file when they are needed, bit for bit the same.

    Moving it to a device moves nothing: a background thread gathers its batches, in pinned memory where they go to a
    GPU, and copies them there one by one.

    Attributes:
        images: ``[M, C, H, W]`` uint8, the whole mapped file; more images than the set's where ``rows`` is given.
        targets: ``[N]`` int64 class indices, on the CPU.
        classes: The name of every class.
        paths: As in :class:`ImageSet`.
        sample_ids: As in :class:`ImageSet`.
        owner_ids: As in :class:`ImageSet`.
        rows: int64 ``[N]``, the index in the file of each image of the set; None for all of them, in file order.

    Raises:
        UserError: As :class:`ImageSet`; or images that are not uint8 on the CPU.
    """

    rows: Tensor | None = None

    def __post_init__(self) -> None:
        """Check shapes, dtypes and labels."""
        _check_stored(self.images)
        # The checks of ImageSet on a view with as many images as this set has, so that no image is read.
        view = self.images[:1].expand(len(self), -1, -1, -1)
        ids = {"sample_ids": self.sample_ids, "owner_ids": self.owner_ids}
        ImageSet(view, self.targets, self.classes, self.paths, **ids)

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.images) if self.rows is None else len(self.rows)

    def subset(self, indices: Tensor) -> StreamedImageSet:
        """Return the images at ``indices`` (int64 ``[M]``, each in 0..N-1), in that order, still in the file."""
        indices = indices.cpu()
        paths, rows = paths_at(self.paths, indices), _in_file(self.rows, indices)
        ids = {"sample_ids": paths_at(self.sample_ids, indices), "owner_ids": paths_at(self.owner_ids, indices)}
        return StreamedImageSet(self.images, self.targets[indices], self.classes, paths, rows, **ids)

    def gather(self, indices: Tensor) -> Tensor:
        """Read the images at ``indices`` (int64 ``[M]``, each in 0..N-1), ``[M, C, H, W]`` on the CPU."""
        return _read(self.images, _in_file(self.rows, indices.cpu()))

    def iterate(self, indices: Tensor | None, batch_size: int, device: torch.device | str) -> Iterator[StoredBatch]:
        """Iterate once over the samples, reading a few batches ahead; see :meth:`ImageSet.iterate`."""
        indices = torch.arange(len(self)) if indices is None else indices
        return _iterate(self.images, self.rows, self.targets, indices, batch_size, torch.device(device))

    def to(self, device: torch.device | str) -> StreamedImageSet:
        """Return this set: its images stay in the file, and its batches are copied to the device."""
        return self

    def with_targets(self, targets: Tensor) -> StreamedImageSet:
        """Return the same images under other labels, int64 ``[N]``."""
        return replace(self, targets=targets)

    def unlabelled(self) -> StreamedImages:
        """Return the images alone."""
        return StreamedImages(self.images, self.rows)


@dataclass(frozen=True, eq=False)
class StreamedImages(UnlabelledImages):
    """:class:`UnlabelledImages` in a file; see :class:`StreamedImageSet`.

    Attributes:
        images: ``[M, C, H, W]`` uint8, the whole mapped file.
        rows: int64 ``[N]``, the index in the file of each image of the set; None for all of them, in file order.

    Raises:
        UserError: Images that are not uint8 on the CPU.
    """

    rows: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the images."""
        _check_stored(self.images)

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.images) if self.rows is None else len(self.rows)

    def subset(self, indices: Tensor) -> StreamedImages:
        """Return the images at ``indices`` (int64 ``[M]``, each in 0..N-1), in that order, still in the file."""
        return StreamedImages(self.images, _in_file(self.rows, indices.cpu()))

    def gather(self, indices: Tensor) -> Tensor:
        """Read the images at ``indices`` (int64 ``[M]``, each in 0..N-1), ``[M, C, H, W]`` on the CPU."""
        return _read(self.images, _in_file(self.rows, indices.cpu()))

    def iterate(self, indices: Tensor | None, batch_size: int, device: torch.device | str) -> Iterator[StoredBatch]:
        """Iterate once over the samples, reading a few batches ahead; see :meth:`ImageSet.iterate`."""
        indices = torch.arange(len(self)) if indices is None else indices
        return _iterate(self.images, self.rows, None, indices, batch_size, torch.device(device))

    def to(self, device: torch.device | str) -> StreamedImages:
        """Return this set: its images stay in the file, and its batches are copied to the device."""
        return self


def _check_stored(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.device.type != "cpu":
        raise UserError(f"streamed images must be uint8 on cpu, got {images.dtype} on {images.device}")


def _in_file(rows: Tensor | None, indices: Tensor) -> Tensor:
    return indices if rows is None else rows[indices]


def _read(images: Tensor, rows: Tensor, *, pinned: bool = False) -> Tensor:
    batch = torch.empty(len(rows), *images.shape[1:], dtype=torch.uint8, pin_memory=pinned)
    # NumPy's take runs in the calling thread alone; PyTorch's would take threads from the training.
    np.take(images.numpy(), rows.numpy(), axis=0, out=batch.numpy(), mode="clip")
    return batch


def _iterate(
    images: Tensor,
    rows: Tensor | None,
    targets: Tensor | None,
    indices: Tensor,
    batch_size: int,
    device: torch.device,
) -> Iterator[StoredBatch]:
    if not len(indices):
        return

    def fetch(part: Tensor) -> StoredBatch:
        batch = _read(images, _in_file(rows, part), pinned=device.type == "cuda")
        return StoredBatch(batch, None if targets is None else targets[part], part)

    chunks = iter(torch.split(indices, batch_size))
    # One thread keeps the order; it spends its time in the file system and in memcpy, outside Python's lock.
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        coming: deque[Future[StoredBatch]] = deque()
        coming.extend(pool.submit(fetch, chunk) for chunk in islice(chunks, AHEAD))
        while coming:
            batch = coming.popleft().result()
            coming.extend(pool.submit(fetch, chunk) for chunk in islice(chunks, 1))
            yield StoredBatch(*(None if part is None else part.to(device, non_blocking=True) for part in batch))  # type: ignore[arg-type]
    finally:
        pool.shutdown(cancel_futures=True)
