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
from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with the preprocessing that both share.

    Attributes:
        name: Name of the data set in reports and manifests.
        train: The training images, on the CPU as loaded.
        test: The test images, of the same shape, dtype and classes.
        preprocess: Preprocessing from stored images to network inputs.
        validation: Validation set V, which no model is trained or tested on; None where the data have none.
        notes: What was left out when the files were read, one sentence part each.
        source: Where the data were read from: a registered name, a path, or what else names the place; None for data
            that were made in memory.

    Raises:
        UserError: The parts differ in image shape, dtype or classes, or one of them is empty.

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
    validation: ImageSet | None = None
    notes: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        """Check that one network can be trained on ``train`` and evaluated on the other parts."""
        parts = {"train": self.train, "test": self.test}
        if self.validation is not None:
            parts["validation"] = self.validation
        train = self.train.images
        for name, part in parts.items():
            if not len(part):
                raise UserError(f"the {name} set of '{self.name}' must have at least one image, got none")
            if train.shape[1:] != part.images.shape[1:] or train.dtype != part.images.dtype:
                raise UserError(
                    f"{name} images must be like the train images, {train.dtype} of shape {list(train.shape[1:])}, "
                    f"got {part.images.dtype} of shape {list(part.images.shape[1:])}"
                )
            if self.train.classes != part.classes:
                raise UserError(
                    f"train and {name} must have the same classes, got {self.train.classes} and {part.classes}"
                )
        mean = self.preprocess.mean
        stored = train.shape[1]
        if mean is not None and len(mean) != stored and stored != 1:
            raise UserError(f"preprocess.mean must have {stored} values (one per channel), got {len(mean)}")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.train.num_classes

    @property
    def in_channels(self) -> int:
        """Number of channels of a network input: the images', or those that grey images are repeated for."""
        stored = self.train.images.shape[1]
        return len(self.preprocess.mean) if stored == 1 and self.preprocess.mean is not None else stored

    @property
    def image_size(self) -> int:
        """Height of a network input, in pixels."""
        return self.preprocess.size if self.preprocess.size is not None else self.train.images.shape[2]

    @property
    def place(self) -> str:
        """Where the data came from: ``source``, and for data that were made in memory their name and hash."""
        return self.source or f"in memory: {self.name}, {self.fingerprint()[:12]}"

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
    given = {
        "train_images": train_images,
        "train_targets": train_targets,
        "test_images": test_images,
        "test_targets": test_targets,
    }
    for part, value in given.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{part} is {a_type(value)}; expected a tensor")
    if classes is None:
        labels = [targets.max() for targets in (train_targets, test_targets) if targets.numel()]
        classes = [str(label) for label in range(int(max(labels, default=torch.tensor(-1))) + 1)]
    train = ImageSet(train_images, train_targets, tuple(classes))
    test = ImageSet(test_images, test_targets, tuple(classes))
    return Dataset(name, train, test, Preprocess() if preprocess is None else preprocess)


MOST_VALIDATION = 20_000
"""Images that a part of a data set leaves out and that become its validation set, at most."""


def part_of(dataset: Dataset, count: int) -> Dataset:
    """Return ``dataset`` with ``count`` of its training images, always the same ones; its name says so: ``NAME@COUNT``.

    Images with paths are chosen by a hash of their path, so that a few files more or less change the part little. Up to
    :data:`MOST_VALIDATION` of the other training images are its validation set, unless it has one of its own.

    Raises:
        UserError: ``count`` below 1 or above the number of training images.
    """
    if not 1 <= count <= len(dataset.train):
        raise UserError(
            f"'{dataset.name}@{count}' asks for {count} training images; expected 1 to {len(dataset.train)}"
        )
    if dataset.train.paths is None:
        indices = torch.randperm(len(dataset.train), generator=seeding.generator(0, "part"))
    else:
        names = (dataset.train.classes[label] for label in dataset.train.targets.tolist())
        hashes = [_path_hash(path, name, "part") for path, name in zip(dataset.train.paths, names, strict=True)]
        indices = torch.tensor(hashes, dtype=torch.float64).argsort(stable=True)
    train, others = (part.sort().values for part in (indices[:count], indices[count : count + MOST_VALIDATION]))
    validation = dataset.validation
    if validation is None and len(others):
        validation = dataset.train.subset(others)
    name = f"{dataset.name}@{count}"
    return replace(dataset, name=name, train=dataset.train.subset(train), validation=validation)


def hold_out(images: ImageSet, *, fraction: float = 0.2, purpose: str = "test") -> tuple[ImageSet, ImageSet]:
    """Divide one set into a training and a held-out part, class by class, always in the same way.

    The division is part of what the data set *is*: it depends on no run's seed. Images with paths are held out by a
    hash of their path below a threshold, so that adding or deleting a file moves no other one. Only where a class of
    two or more would be missing in a part, its lowest hash is held out or its highest is not. Of images without paths,
    ``fraction`` of every class with two or more (rounded, at least one) is drawn by the labels alone.

    Args:
        images: The set to divide.
        fraction: Share to hold out: exact for images without paths, expected for those with.
        purpose: Name of the part that is held out; by paths, each purpose holds out other images.

    Returns:
        The training part and the held-out part, each in the set's order.

    Example:
        >>> from pymixunlearn import data
        >>> train, test = data.hold_out(data.load("digits").train, fraction=0.1)
        >>> len(train), len(test)
        (1295, 143)
    """
    held_out = torch.zeros(len(images), dtype=torch.bool)
    for label in range(images.num_classes):
        members = (images.targets == label).nonzero().squeeze(1).cpu()
        if len(members) < 2:
            continue
        if images.paths is None:
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            shuffled = torch.randperm(len(members), generator=seeding.generator(0, "hold-out", label))
            held_out[members[shuffled[:count]]] = True
        else:
            name = images.classes[label]
            hashes = torch.tensor([_path_hash(images.paths[index], name, purpose) for index in members.tolist()])
            low = hashes < fraction
            # Neither part may lack the class.
            low[hashes.argmin()], low[hashes.argmax()] = True, False
            held_out[members[low]] = True
    return images.subset((~held_out).nonzero().squeeze(1)), images.subset(held_out.nonzero().squeeze(1))


def _path_hash(path: str, class_name: str, purpose: str) -> float:
    """Return a number in [0, 1) that depends on ``purpose`` and on ``path`` from its class folder on.

    What is around the class folder does not count, so that an archive of a folder is held out like the folder.
    """
    folders = path.split("/")
    start = folders.index(class_name) if class_name in folders[:-1] else 0
    return seeding.derive_seed(0, "hold-out", purpose, *folders[start:]) / 2**63
