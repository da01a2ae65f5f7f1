"""Sets of images in memory, with or without labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn._renamed import renamed_method
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

_HASHED_AT_ONCE = 256


class StoredBatch(NamedTuple):
    """Batch of images before preprocessing.

    Attributes:
        images: As stored, ``[B, C, H, W]``; not to be written to.
        targets: int64 ``[B]``; None where the set has no labels, or none were requested.
        indices: int64 ``[B]``, the samples' indices in the image set.
        uniform: Random numbers for :meth:`Preprocess.augmented`; None where nothing is augmented.
    """

    images: Tensor
    targets: Tensor | None
    indices: Tensor
    uniform: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels, as stored (before preprocessing).

    Attributes:
        images: ``[N, C, H, W]``, uint8 in 0..255, or float32 of any range; on any device.
        targets: ``[N]`` int64 class indices, on the same device.
        classes: The name of every class; a target ``k`` means ``classes[k]``.
        paths: For images read from files, the path of each below the root of the data, with "/" between folders.
        sample_ids: A name for each image that stays when the data grow or change their order; None takes the paths, or
            else hashes of the pixels. See :attr:`ids`.
        owner_ids: Whose each image is, in the data's own ids, where several images have one (all of one person); a
            request names them. None where every image has an id of its own.

    Raises:
        UserError: A shape, dtype, device or label that does not fit the above, or an id that is empty, or a sample's
            that is there twice.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        >>> pets = data.ImageSet(images, torch.tensor([0, 1, 1]), classes=("cat", "dog"))
        >>> len(pets), pets.num_classes, len(pets.subset(torch.tensor([0, 2])))
        (3, 2, 2)
    """

    images: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    sample_ids: tuple[str, ...] | None = field(default=None, kw_only=True)
    owner_ids: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check shapes, dtypes, labels and ids."""
        images, targets = self.images, self.targets
        if images.ndim != 4:
            raise UserError(f"images must have shape [N, C, H, W], got {list(images.shape)}")
        if images.dtype not in (torch.uint8, torch.float32):
            raise UserError(f"images must be uint8 or float32, got {images.dtype}")
        if targets.shape != images.shape[:1] or targets.dtype != torch.int64:
            raise UserError(
                f"targets must be int64 of shape [{len(images)}] (one per image), "
                f"got {targets.dtype} of shape {list(targets.shape)}"
            )
        if targets.device != images.device:
            raise UserError(f"targets must be on the images' device {images.device}, got {targets.device}")
        if self.paths is not None and len(self.paths) != len(images):
            raise UserError(f"paths must be one per image, {len(images)}, got {len(self.paths)}")
        check_ids(self.sample_ids, len(images))
        check_ids(self.owner_ids, len(images), shared=True)
        # On an accelerator this would synchronise the device; sets are built on the CPU and moved.
        if len(targets) and targets.device.type == "cpu":
            lowest, highest = (int(bound) for bound in targets.aminmax())
            if lowest < 0 or highest >= self.num_classes:
                raise UserError(
                    f"targets must lie in 0..{self.num_classes - 1} ({self.num_classes} classes), "
                    f"got {lowest if lowest < 0 else highest}"
                )

    def __len__(self) -> int:
        """Return the number of images N."""
        return self.images.shape[0]

    @property
    def num_classes(self) -> int:
        """Number of classes, with or without images."""
        return len(self.classes)

    def subset(self, indices: Tensor) -> ImageSet:
        """Return the images at ``indices`` (int64 ``[M]``, each in 0..N-1), in that order."""
        paths = paths_at(self.paths, indices)
        indices = indices.to(self.images.device)
        images, targets = self.images.index_select(0, indices), self.targets.index_select(0, indices)
        ids, owners = paths_at(self.sample_ids, indices), paths_at(self.owner_ids, indices)
        return ImageSet(images, targets, self.classes, paths, sample_ids=ids, owner_ids=owners)

    def gather(self, indices: Tensor) -> Tensor:
        """Return the stored images at ``indices`` (int64 ``[M]``, each in 0..N-1, on any device), ``[M, C, H, W]``."""
        return self.images.index_select(0, _moved(indices, self.images.device))

    def iterate(self, indices: Tensor | None, batch_size: int, device: torch.device | str) -> Iterator[StoredBatch]:
        """Iterate once over the samples, ``batch_size`` at a time; the last batch may be smaller.

        Args:
            indices: int64 ``[M]`` on the CPU, the samples in the order to take them; None takes all as stored.
            batch_size: Samples per batch, at least 1.
            device: Where the batches are. The whole set is copied there first if it is elsewhere.
        """
        return _iterate(self.images, self.targets, indices, batch_size, device)

    walk = renamed_method("walk", "iterate")

    def to(self, device: torch.device | str) -> ImageSet:
        """Return this set on ``device``; itself when it is there already."""
        images = self.images.to(device)
        if images is self.images:
            return self
        moved = replace(self, images=images, targets=self.targets.to(device))
        if "_digest" in self.__dict__:  # the content is the same, so a hash that was computed is still valid
            moved.__dict__["_digest"] = self._digest
        return moved

    def with_targets(self, targets: Tensor) -> ImageSet:
        """Return the same images under other labels, int64 ``[N]``."""
        return replace(self, targets=targets)

    @property
    def id_kind(self) -> str:
        """What :attr:`ids` are: "given", "path" or "content"."""
        return (
            "content" if self.sample_ids is None and self.paths is None else "path" if not self.sample_ids else "given"
        )

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Name of each image that stays when the data grow or change their order, one of each.

        The given one; or else its path; or else a hash of its pixels, with "-2", "-3", … for further copies.
        """
        return self.sample_ids or self.paths or _content_ids(self)

    @property
    def known_ids(self) -> tuple[str, ...]:
        """The id of each image that a request names it by: its owner's where the data say one, or else its own."""
        return self.owner_ids or self.ids

    def unlabelled(self) -> UnlabelledImages:
        """Return the images alone."""
        return UnlabelledImages(self.images)

    def fingerprint(self) -> str:
        """Return a sha256 (hex) over shape, dtype, pixels and labels; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = _pixel_hash(self)
        digest.update(self.targets.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class UnlabelledImages:
    """Images without labels, for code that must not see any.

    Attributes:
        images: As in :class:`ImageSet`.

    Example:
        >>> from pymixunlearn import data
        >>> images = data.load("digits").train.unlabelled()
        >>> len(images), hasattr(images, "targets")
        (1438, False)
    """

    images: Tensor

    def __len__(self) -> int:
        """Return the number of images N."""
        return self.images.shape[0]

    def gather(self, indices: Tensor) -> Tensor:
        """Return the stored images at ``indices``; see :meth:`ImageSet.gather`."""
        return self.images.index_select(0, _moved(indices, self.images.device))

    def iterate(self, indices: Tensor | None, batch_size: int, device: torch.device | str) -> Iterator[StoredBatch]:
        """Iterate once over the samples; see :meth:`ImageSet.iterate`."""
        return _iterate(self.images, None, indices, batch_size, device)

    walk = renamed_method("walk", "iterate")

    def subset(self, indices: Tensor) -> UnlabelledImages:
        """Return the images at ``indices`` (int64 ``[M]``, each in 0..N-1), in that order."""
        return UnlabelledImages(self.images.index_select(0, indices.to(self.images.device)))

    def to(self, device: torch.device | str) -> UnlabelledImages:
        """Return this set on ``device``; itself when it is there already."""
        images = self.images.to(device)
        return self if images is self.images else UnlabelledImages(images)

    def fingerprint(self) -> str:
        """Return a sha256 (hex) over shape, dtype and pixels."""
        return _pixel_hash(self).hexdigest()


def own_or_owner_ids(ids: tuple[str, ...] | None) -> dict[str, tuple[str, ...]]:
    """Return given ids as an argument of :class:`ImageSet`: ``owner_ids`` where some are there more than once.

    Example:
        >>> own_or_owner_ids(("a", "b")), own_or_owner_ids(("a", "a"))
        ({'sample_ids': ('a', 'b')}, {'owner_ids': ('a', 'a')})
    """
    if not ids:
        return {}
    return {"sample_ids" if len(set(ids)) == len(ids) else "owner_ids": ids}


def check_ids(ids: tuple[str, ...] | None, count: int, *, shared: bool = False) -> None:
    """Check that there is one id for each of ``count`` images, each once unless they are ``shared``.

    Raises:
        UserError: There is not.
    """
    if ids is None:
        return
    if len(ids) != count:
        raise UserError(f"ids must be one per image, {count}, got {len(ids)}")
    seen: set[str] = set()
    for name in ids:
        if not isinstance(name, str) or not name:
            raise UserError(f"an id must be a text that is not empty, got {name!r}")
        if name in seen and not shared:
            raise UserError(f"every image must have an id of its own, got '{printable(name)}' more than once")
        seen.add(name)


def _content_ids(images: ImageSet) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    ids = []
    for digest in image_hashes(images):
        text = digest.hex()
        seen[text] += 1
        ids.append(text if seen[text] == 1 else f"{text}-{seen[text]}")
    return tuple(ids)


def image_hashes(images: ImageSet | UnlabelledImages) -> Iterator[bytes]:
    """Yield a hash of each image's pixels, in order; block by block, as the set may be in a file."""
    for batch in images.iterate(None, _HASHED_AT_ONCE, "cpu"):
        for image in batch.images.detach().contiguous().numpy():
            yield hashlib.blake2b(image.data, digest_size=16).digest()


def paths_at(paths: tuple[str, ...] | None, indices: Tensor) -> tuple[str, ...] | None:
    """Return the paths at ``indices``, if there are any."""
    return None if paths is None else tuple(paths[index] for index in indices.tolist())


def _pixel_hash(images: ImageSet | UnlabelledImages) -> hashlib._Hash:
    """Return a sha256 over shape, dtype and pixels; block by block, so that a set in a file need not fit in memory."""
    digest = hashlib.sha256(f"{(len(images), *images.images.shape[1:])} {images.images.dtype} ".encode())
    for batch in images.iterate(None, _HASHED_AT_ONCE, "cpu"):
        digest.update(batch.images.detach().contiguous().numpy().data)
    return digest


def _iterate(
    images: Tensor, targets: Tensor | None, indices: Tensor | None, batch_size: int, device: torch.device | str
) -> Iterator[StoredBatch]:
    images, targets = images.to(device), None if targets is None else targets.to(device)
    moved = torch.arange(len(images), device=device) if indices is None else _moved(indices, device)
    for start in range(0, len(moved), batch_size):
        stop = start + batch_size
        part = moved[start:stop]
        if indices is None:  # consecutive samples need no gathering
            yield StoredBatch(images[start:stop], None if targets is None else targets[start:stop], part)
        else:
            labels = None if targets is None else targets.index_select(0, part)
            yield StoredBatch(images.index_select(0, part), labels, part)


def _moved(indices: Tensor, device: torch.device | str) -> Tensor:
    """Return indices on ``device``. Only copies towards the CPU must be waited for."""
    return indices.to(device, non_blocking=indices.device.type == "cpu")
