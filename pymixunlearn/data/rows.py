"""Data set of rows: an image, a label and perhaps a part and an id each, as tables and other libraries have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.data.decoding import streams
from pymixunlearn.data.image_file import MappedImages
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.layout import find_parts
from pymixunlearn.data.listing import shown
from pymixunlearn.data.preprocess import Preprocess, natural_images
from pymixunlearn.data.registry import Request
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError


@dataclass(frozen=True)
class Row:
    """Row of a data set.

    Attributes:
        name: Name that its image was decoded by.
        label: Name of its class.
        part: The part that it belongs to, as it is spelt there; None where the data have no parts.
        id: Its id, if it has one; several rows may share one.
        path: The path of its file, if it has one.
    """

    name: str
    label: str
    part: str | None = None
    id: str | None = None
    path: str | None = None


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the different labels in ascending order, that of numbers if all are numbers.

    Example:
        >>> from pymixunlearn.data.rows import class_names
        >>> class_names(["10", "9", "10"]), class_names(["b", "a"])
        (('9', '10'), ('a', 'b'))
    """
    names = set(labels)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def dataset_of_rows(
    rows: Sequence[Row],
    found: MappedImages,
    request: Request,
    where: str,
    *,
    classes: tuple[str, ...] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Return a data set of rows, in their order, whose images were decoded.

    Args:
        rows: The rows; one whose image was left out as unreadable is left out too.
        found: The images by name.
        request: The name, the size and whether the images stay in their file.
        where: What the rows are of, for messages.
        classes: Names of the classes; if not given, those of the training rows.
        notes: What was left out.

    Raises:
        UserError: A part has no rows or an unknown name, a label is of no class, or there is only one class.
    """
    places = {name: index for index, name in enumerate(found.names)}
    rows = [row for row in rows if row.name in places]
    parts = _parts(rows, where)
    if classes is None:
        classes = class_names(row.label for row in parts[0])
    if len(classes) < 2:
        raise UserError(f"{where} has one class, {shown(classes)}; expected at least two in its training part")
    # Ids that several images share in one part are not their own in the others either. Images without a path would be
    # known by a column's ids where that column is named, and by their pixels elsewhere: they are known by their pixels.
    shared = any(row.path is None for row in rows) or any(
        len({row.id for row in part}) < len([row for row in part if row.id]) for part in parts if part
    )
    make = partial(_image_set, found=found, places=places, classes=classes, request=request, where=where, shared=shared)
    made = [None if part is None else make(part) for part in parts]
    train, test, validation = made
    assert train is not None
    if test is None:
        train, test = hold_out(train)
    size = request.resize_from(train.images.shape[-1])
    # Mirroring and cropping suit photographs; grey images are treated like the MNISTs.
    preprocess = natural_images(size) if train.images.shape[1] == 3 else Preprocess(size=size)
    return Dataset(request.name, train, test, preprocess, validation, tuple(notes))


def _parts(rows: Sequence[Row], where: str) -> tuple[list[Row], list[Row] | None, list[Row] | None]:
    """Return the training rows, and the test and validation rows where there are some."""
    named = {row.part for row in rows if row.part is not None}
    if not named:
        return list(rows), None, None
    if len(named) == 1:
        (only,) = named
        raise UserError(
            f"all rows of {where} belong to one part, {shown([only])}; expected a training and a test part, or none"
        )
    parts = find_parts(named, where)
    if parts is None or len(named) != 2 + (parts.validation is not None):
        raise UserError(
            f"{where} has the parts {shown(named)}; expected train and test, and perhaps validation, in each row"
        )
    by_part: dict[str | None, list[Row]] = {name: [row for row in rows if row.part == name] for name in parts}
    validation = None if parts.validation is None else by_part[parts.validation]
    return by_part[parts.train], by_part[parts.test], validation


def _image_set(
    rows: Sequence[Row],
    found: MappedImages,
    places: dict[str, int],
    classes: tuple[str, ...],
    request: Request,
    where: str,
    shared: bool,
) -> ImageSet:
    number = {name: label for label, name in enumerate(classes)}
    foreign = {row.label for row in rows} - set(classes)
    if foreign:
        raise UserError(f"{where} has the labels {shown(foreign)}, which are none of the classes: {shown(classes)}")
    targets = torch.tensor([number[row.label] for row in rows], dtype=torch.int64)
    indices = torch.tensor([places[row.name] for row in rows], dtype=torch.int64)
    paths = tuple(row.path for row in rows if row.path is not None)
    ids = tuple(row.id for row in rows if row.id is not None)
    if ids and len(ids) != len(rows):
        raise UserError(f"{len(rows) - len(ids)} rows of {where} have no id; expected one in each, or no such column")
    known = paths if len(paths) == len(rows) else None
    given = {"owner_ids" if shared else "sample_ids": ids or None}
    if streams(request, found.images.nbytes):
        return StreamedImageSet(found.images, targets, classes, known, indices, **given)
    return ImageSet(found.images[indices], targets, classes, known, **given)
