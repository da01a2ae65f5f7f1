"""Sets of images that stay in a file: only the batches that are coming up are in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.data.image_set import ImageSet, Taken, UnlabelledImages
from pymixunlearn.errors import UserError

IN_MEMORY_LIMIT = 4 * 2**30
"""Bytes of images up to which a set is held in memory, and on the device that computes, unless asked otherwise."""

AHEAD = 4
"""Batches that are fetched before they are asked for."""


@dataclass(frozen=True, eq=False)
class StreamedImageSet(ImageSet):
    """Like :class:`ImageSet`, bit for bit, with images that are read from a memory-mapped file when they are needed.

    Moving it to a device moves nothing: its batches are gathered by a thread in the background, in pinned memory where
    they go to a GPU, and copied there one by one.

    Attributes:
        images: ``[M, C, H, W]`` uint8, the whole of the mapped file; more than this set's where ``rows`` is given.
        targets: ``[N]`` int64 class indices, on the CPU.
        classes: The name of every class.
        rows: int64 ``[N]``, the place of each of the set's images in the file; None where they are all of it, in order.

    Raises:
        UserError: As :class:`ImageSet`; or images that are not uint8 on the CPU.
    """

    rows: Tensor | None = None

    def __post_init__(self) -> None:
        """Check shapes, dtypes and labels."""
        _check_stored(self.images)
        # The checks of any set, on as many images as this one has; a view, so that none of them is read.
        ImageSet(self.images[:1].expand(len(self), -1, -1, -1), self.targets, self.classes)

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.images) if self.rows is None else len(self.rows)

    def subset(self, indices: Tensor) -> StreamedImageSet:
        """Return the images at ``indices`` (int64 ``[M]``, each in 0..N-1), in that order, still in the file."""
        indices = indices.cpu()
        return StreamedImageSet(self.images, self.targets[indices], self.classes, _places(self.rows, indices))

    def gather(self, indices: Tensor) -> Tensor:
        """Read the images at ``indices`` (int64 ``[M]``, each in 0..N-1), ``[M, C, H, W]`` on the CPU."""
        return _read(self.images, _places(self.rows, indices.cpu()))

    def walk(self, order: Tensor | None, batch_size: int, device: torch.device | str) -> Iterator[Taken]:
        """Go through the samples once, reading a few batches ahead; see :meth:`ImageSet.walk`."""
        indices = torch.arange(len(self)) if order is None else order
        return _walk(self.images, self.rows, self.targets, indices, batch_size, torch.device(device))

    def to(self, device: torch.device | str) -> StreamedImageSet:
        """Return this set: its images stay in the file, and its batches come to the device that they are asked for."""
        return self

    def with_targets(self, targets: Tensor) -> StreamedImageSet:
        """Return the same images under other labels, int64 ``[N]``."""
        return StreamedImageSet(self.images, targets, self.classes, self.rows)

    def unlabelled(self) -> StreamedImages:
        """Return the images alone."""
        return StreamedImages(self.images, self.rows)


@dataclass(frozen=True, eq=False)
class StreamedImages(UnlabelledImages):
    """Like :class:`UnlabelledImages`, in a file; see :class:`StreamedImageSet`.

    Attributes:
        images: ``[M, C, H, W]`` uint8, the whole of the mapped file.
        rows: int64 ``[N]``, the place of each of the set's images in the file; None where they are all of it, in order.

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
        return StreamedImages(self.images, _places(self.rows, indices.cpu()))

    def gather(self, indices: Tensor) -> Tensor:
        """Read the images at ``indices`` (int64 ``[M]``, each in 0..N-1), ``[M, C, H, W]`` on the CPU."""
        return _read(self.images, _places(self.rows, indices.cpu()))

    def walk(self, order: Tensor | None, batch_size: int, device: torch.device | str) -> Iterator[Taken]:
        """Go through the samples once, reading a few batches ahead; see :meth:`ImageSet.walk`."""
        indices = torch.arange(len(self)) if order is None else order
        return _walk(self.images, self.rows, None, indices, batch_size, torch.device(device))

    def to(self, device: torch.device | str) -> StreamedImages:
        """Return this set: its images stay in the file, and its batches come to the device that they are asked for."""
        return self


def _check_stored(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.device.type != "cpu":
        raise UserError(f"streamed images must be uint8 on cpu, got {images.dtype} on {images.device}")


def _places(rows: Tensor | None, indices: Tensor) -> Tensor:
    return indices if rows is None else rows[indices]


def _read(images: Tensor, places: Tensor, *, pinned: bool = False) -> Tensor:
    found = torch.empty(len(places), *images.shape[1:], dtype=torch.uint8, pin_memory=pinned)
    # NumPy's: it runs in the calling thread alone, where PyTorch's would take threads from the training.
    np.take(images.numpy(), places.numpy(), axis=0, out=found.numpy(), mode="clip")
    return found


def _walk(
    images: Tensor,
    rows: Tensor | None,
    targets: Tensor | None,
    indices: Tensor,
    batch_size: int,
    device: torch.device,
) -> Iterator[Taken]:
    if not len(indices):
        return

    def fetch(chosen: Tensor) -> Taken:
        found = _read(images, _places(rows, chosen), pinned=device.type == "cuda")
        return Taken(found, None if targets is None else targets[chosen], chosen)

    chunks = iter(torch.split(indices, batch_size))
    # One thread keeps the order; it spends its time in the file system and in memcpy, outside Python's lock.
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        coming: deque[Future[Taken]] = deque()
        coming.extend(pool.submit(fetch, chunk) for chunk in islice(chunks, AHEAD))
        while coming:
            batch = coming.popleft().result()
            coming.extend(pool.submit(fetch, chunk) for chunk in islice(chunks, 1))
            yield Taken(*(None if part is None else part.to(device, non_blocking=True) for part in batch))  # type: ignore[arg-type]
    finally:
        pool.shutdown(cancel_futures=True)
