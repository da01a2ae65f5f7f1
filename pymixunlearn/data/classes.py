"""Fixed list of classes: a class keeps its place though its last image is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.listing import shown
from pymixunlearn.data.text_table import read_text
from pymixunlearn.errors import UserError, reason_of


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Return ``dataset`` with the classes in a given order; classes without images may be among them.

    Raises:
        UserError: A class of the data is not in the list, or one is there twice.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> from pymixunlearn.data.classes import with_classes
        >>> images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
        >>> pets = data.from_tensors(images, labels, images, labels, classes=("cat", "dog"))
        >>> with_classes(pets, ("dog", "horse", "cat")).train.targets.tolist()
        [2, 0, 2, 0]
    """
    listed = tuple(classes)
    if len(set(listed)) < len(listed):
        twice = [name for name in set(listed) if listed.count(name) > 1]
        raise UserError(f"the list of classes has {shown(twice)} more than once; expected each class once")
    known = dataset.train.classes
    if listed == known:
        return dataset
    used = {known[label] for part in _parts(dataset) for label in set(part.targets.tolist())}
    missing = used - set(listed)
    if missing:
        raise UserError(
            f"'{dataset.name}' has images of {shown(missing)}, which the list of {len(listed)} classes lacks"
        )
    place = torch.tensor([listed.index(name) if name in listed else -1 for name in known], dtype=torch.int64)

    def moved(images: ImageSet) -> ImageSet:
        return replace(images, targets=place[images.targets], classes=listed)

    validation = None if dataset.validation is None else moved(dataset.validation)
    return replace(dataset, train=moved(dataset.train), test=moved(dataset.test), validation=validation)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read a list of classes: a text with one name a line.

    Raises:
        UserError: It cannot be read, or names no class.
    """
    try:
        names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as a list of classes: {reason_of(error)}") from error
    if not names:
        raise UserError(f"'{path}' names no class; expected one name a line")
    return names


def _parts(dataset: Dataset) -> list[ImageSet]:
    return [part for part in (dataset.train, dataset.test, dataset.validation) if part is not None]
