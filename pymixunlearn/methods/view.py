"""View of a split: what a method may see of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.streamed import StreamedImages, StreamedImageSet
from pymixunlearn.tasks import Split

Images: TypeAlias = ImageSet | UnlabelledImages


@dataclass(frozen=True)
class SplitView:
    """The training samples of a split: never the test samples, and labels only for a method that needs them.

    Attributes:
        forget: D_f.
        retain: D_r.
        preprocess: What turns the stored images into network inputs.
        num_classes: The number of classes, forgotten ones included.
        forget_classes: Classes that are to be forgotten as a whole.
        unlabelled: The images of D_r without labels, where the task is "semi" and the method needs labels; ``retain``
            are the others then.
        indices: int64 [N_f + N_r], of the samples of D_f and then of D_r in the whole training set; None without
            labels, since an index into a sorted set gives the class away.
    """

    forget: Images
    retain: Images
    preprocess: Preprocess
    num_classes: int
    indices: Tensor | None = None
    unlabelled: UnlabelledImages | None = None
    forget_classes: tuple[int, ...] = ()

    @classmethod
    def of(cls, split: Split, *, labels: bool) -> SplitView:
        """Return the view of ``split`` with or without ``labels``."""
        preprocess, count, forgotten = split.preprocess, split.num_classes, tuple(split.forget_classes)
        if not labels:
            forget, retain = split.forget.unlabelled(), split.retain.unlabelled()
            return cls(forget, retain, preprocess, count, forget_classes=forgotten)
        training_set = split.retained_training_set
        indices = torch.cat([split.forget_indices, split.labelled_retain_indices])
        parts = split.forget, training_set.labelled, preprocess, count, indices, training_set.unlabelled
        return cls(*parts, forget_classes=forgotten)

    def without(self, held_out: Tensor) -> SplitView:
        """Return the same without the retain samples at ``held_out``, int64 [M] into ``retain``."""
        remains = torch.ones(len(self.retain), dtype=torch.bool)
        remains[held_out] = False
        left = remains.nonzero().squeeze(1)
        indices = self.indices
        if indices is not None:
            indices = torch.cat([indices[: len(self.forget)], indices[len(self.forget) :][left]])
        return replace(self, retain=self.retain.subset(left), indices=indices)


def labelled(images: Images) -> ImageSet:
    """Return ``images`` as a set with labels, for a method whose ``needs_labels`` is true.

    Raises:
        TypeError: The labels were withheld: the method declares that it needs none.
    """
    if not isinstance(images, ImageSet):
        raise TypeError("these images have no labels: the method's needs_labels is false")
    return images


def together(forget: Images, retain: Images) -> Images:
    """Return D_f followed by D_r as one set: the sample at index i is to be forgotten if i < len(forget)."""
    if isinstance(forget, StreamedImageSet | StreamedImages):
        return _together_in_file(forget, retain)
    images = torch.cat([forget.images, retain.images])
    if isinstance(forget, ImageSet) and isinstance(retain, ImageSet):
        return ImageSet(images, torch.cat([forget.targets, retain.targets]), forget.classes)
    return UnlabelledImages(images)


def _together_in_file(forget: StreamedImageSet | StreamedImages, retain: Images) -> Images:
    """Both sides of a split of one file: only their indices into it are joined."""
    assert isinstance(retain, StreamedImageSet | StreamedImages) and retain.images is forget.images
    assert forget.rows is not None and retain.rows is not None  # neither side of a split is everything
    rows = torch.cat([forget.rows, retain.rows])
    if isinstance(forget, StreamedImageSet) and isinstance(retain, StreamedImageSet):
        return StreamedImageSet(forget.images, torch.cat([forget.targets, retain.targets]), forget.classes, rows=rows)
    return StreamedImages(forget.images, rows)
