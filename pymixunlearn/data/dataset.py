"""Data set of training images, test images and their preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pymixunlearn import seeding
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.errors import UserError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with the preprocessing that both share.

    Attributes:
        name: Name of the data set in reports and manifests.
        train: The training images, on the CPU as loaded.
        test: The test images, of the same shape, dtype and classes.
        preprocess: Preprocessing from stored images to network inputs.

    Raises:
        UserError: Train and test differ in image shape, dtype or classes, or one of them is empty.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> part = data.ImageSet(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), classes=("cat", "dog"))
        >>> dataset = data.Dataset("pets", train=part, test=part, preprocess=data.Preprocess(size=32))
        >>> dataset.image_size, dataset.in_channels
        (32, 1)
    """

    name: str
    train: ImageSet
    test: ImageSet
    preprocess: Preprocess

    def __post_init__(self) -> None:
        """Check that one network can be trained on ``train`` and tested on ``test``."""
        for part, images in (("train", self.train), ("test", self.test)):
            if not len(images):
                raise UserError(f"the {part} set of '{self.name}' must have at least one image, got none")
        train, test = self.train.images, self.test.images
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise UserError(
                f"test images must be like the train images, {train.dtype} of shape {list(train.shape[1:])}, "
                f"got {test.dtype} of shape {list(test.shape[1:])}"
            )
        if self.train.classes != self.test.classes:
            raise UserError(
                f"train and test must have the same classes, got {self.train.classes} and {self.test.classes}"
            )
        mean = self.preprocess.mean
        if mean is not None and len(mean) != self.in_channels:
            raise UserError(f"preprocess.mean must have {self.in_channels} values (one per channel), got {len(mean)}")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.train.num_classes

    @property
    def in_channels(self) -> int:
        """Number of channels of a network input."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height of a network input, in pixels."""
        return self.preprocess.size if self.preprocess.size is not None else self.train.images.shape[2]

    def fingerprint(self) -> str:
        """Return a sha256 (hex) over the content of train and test."""
        return hashlib.sha256(f"{self.train.fingerprint()} {self.test.fingerprint()}".encode()).hexdigest()


def from_tensors(
    train_images: Tensor,
    train_targets: Tensor,
    test_images: Tensor,
    test_targets: Tensor,
    *,
    classes: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    name: str = "custom",
) -> Dataset:
    """Make a data set of tensors.

    Args:
        train_images: ``[N, C, H, W]``, uint8 in 0..255 or float32.
        train_targets: ``[N]`` int64 class indices.
        test_images: ``[M, C, H, W]``, of the same dtype.
        test_targets: ``[M]`` int64.
        classes: Names of the classes; "0", "1", … up to the largest label if not given.
        preprocess: Preprocessing to network inputs; if not given, only uint8 is scaled to [0, 1].
        name: Name in reports.

    Raises:
        UserError: Anything that :class:`ImageSet` or :class:`Dataset` refuses.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> images, labels = torch.rand(20, 3, 8, 8), torch.arange(20) % 2
        >>> data.from_tensors(images, labels, images, labels, classes=("cat", "dog")).in_channels
        3
    """
    if classes is None:
        labels = [targets.max() for targets in (train_targets, test_targets) if targets.numel()]
        classes = [str(label) for label in range(int(max(labels, default=torch.tensor(-1))) + 1)]
    train = ImageSet(train_images, train_targets, tuple(classes))
    test = ImageSet(test_images, test_targets, tuple(classes))
    return Dataset(name, train, test, Preprocess() if preprocess is None else preprocess)


def part_of(dataset: Dataset, count: int) -> Dataset:
    """Return ``dataset`` with ``count`` of its training images, always the same ones; its name says so: ``NAME@COUNT``.

    Raises:
        UserError: ``count`` below 1 or above the number of training images.
    """
    if not 1 <= count <= len(dataset.train):
        raise UserError(
            f"'{dataset.name}@{count}' asks for {count} training images; expected 1 to {len(dataset.train)}"
        )
    indices = torch.randperm(len(dataset.train), generator=seeding.generator(0, "part"))[:count].sort().values
    return replace(dataset, name=f"{dataset.name}@{count}", train=dataset.train.subset(indices))


def hold_out(images: ImageSet, *, fraction: float = 0.2) -> tuple[ImageSet, ImageSet]:
    """Split one set into train and test, class by class, always in the same way.

    The split is part of what the data set *is*: it depends on nothing but the labels, and on no run's seed. Of every
    class with at least two images, ``fraction`` (rounded, at least one) goes to the test set.

    Example:
        >>> from pymixunlearn import data
        >>> train, test = data.hold_out(data.load("digits").train, fraction=0.1)
        >>> len(train), len(test)
        (1295, 143)
    """
    in_test = torch.zeros(len(images), dtype=torch.bool)
    for label in range(images.num_classes):
        members = (images.targets == label).nonzero().squeeze(1)
        if len(members) < 2:
            continue
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        shuffled = torch.randperm(len(members), generator=seeding.generator(0, "hold-out", label))
        in_test[members[shuffled[:count]]] = True
    return images.subset((~in_test).nonzero().squeeze(1)), images.subset(in_test.nonzero().squeeze(1))
