"""Layout of a folder of images: which of its folders are the parts of the data, and which the classes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from pymixunlearn.data.listing import Listing, shown
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

TRAIN = ("train", "training")
VALIDATION = ("valid", "validation", "val", "dev")
TEST = ("test", "testing", "eval")

_PARTS = frozenset({*TRAIN, *VALIDATION, *TEST})
_WORD = re.compile(r"[^a-z]")
"""What ends the first word of a name: "train_data", "test-2"."""


class Parts(NamedTuple):
    """Names of the parts of a data set, as they are spelt there."""

    train: str
    test: str
    validation: str | None


def find_parts(names: Iterable[str], where: str) -> Parts | None:
    """Tell the parts from each other by their names, in any case; None where there is no training part beside another.

    A single part beside the training part is the test set, whatever its name. Where there are a test and a validation
    part, each is what its name says.

    Args:
        names: Names of folders or archives that lie side by side.
        where: Names the data in errors.

    Raises:
        UserError: Two names mean the same part.
    """
    found: dict[tuple[str, ...], list[str]] = {kind: [] for kind in (TRAIN, TEST, VALIDATION)}
    for name in sorted(set(names)):
        for kind, same in found.items():
            if name.lower() in kind:
                same.append(name)
    train, test, validation = found[TRAIN], found[TEST], found[VALIDATION]
    if not train or not (test or validation):
        return None
    for same in (train, test, validation):
        if len(same) > 1:
            raise UserError(f"{where} holds {shown(same)}, which mean the same part of the data; expected one of them")
    if test and validation:
        return Parts(train[0], test[0], validation[0])
    return Parts(train[0], (test or validation)[0], None)


def shared_folders(paths: Sequence[PurePosixPath]) -> int:
    """Return how many folders all paths begin with; the next one down tells images apart."""
    return len(PurePosixPath(posixpath.commonpath([path.parent for path in paths])).parts)


def check_parts(listing: Listing, where: str) -> None:
    """Refuse a test or validation part without an image beside a training part: its images must not come from there.

    Raises:
        UserError: There is such a part.
    """
    barren = listing.barren()
    for folder in barren:
        beside = {path.name.lower() for path in listing.folders if path.parent == folder.parent and path not in barren}
        if folder.name.lower() in (*TEST, *VALIDATION) and beside & set(TRAIN):
            raise UserError(
                f"{where} holds {shown([folder])} without an image that can be read beside a training part; "
                "expected images in it, or no such folder"
            )


def label_train(paths: Sequence[PurePosixPath], where: str) -> tuple[list[int], tuple[str, ...]]:
    """Label each path by the first folder below those that all share; return the labels and the classes, by name.

    Raises:
        UserError: Fewer than two classes, images beside the class folders, or classes that look like parts of the data.
    """
    shared = shared_folders(paths)
    if any(len(path.parts) < shared + 2 for path in paths):
        raise UserError(f"{where} must hold at least two directories of images, one per class, and no loose images")
    names = [path.parts[shared] for path in paths]
    classes = tuple(sorted(set(names)))
    below: dict[str, set[str]] = {name: set() for name in classes}
    for path in paths:
        below[path.parts[shared]].add(path.parts[shared + 1] if len(path.parts) > shared + 2 else "")
    _check_classes(below, where)
    number = {name: label for label, name in enumerate(classes)}
    return [number[name] for name in names], classes


def _check_classes(below: Mapping[str, set[str]], where: str) -> None:
    """Refuse classes that look like parts of the data, or that hold parts.

    Args:
        below: The classes' subfolders that hold images; "" stands for images that lie in a class itself.
        where: Names the data in errors.

    Raises:
        UserError: There are some.
    """
    remedy = "name the parts of the data train, validation and test, or give one part alone"
    kinds = [subfolders for subfolders in below.values() if len(subfolders) > 1 and "" not in subfolders]
    if len(kinds) == len(below) and all(same == kinds[0] for same in kinds):
        raise UserError(
            f"{where} cannot be read as one folder per class: {shown(below)} all hold the same folders "
            f"{shown(kinds[0])}; {remedy}"
        )
    for name, subfolders in below.items():
        beside = shown(other for other in below if other != name)
        if len(subfolders) > 1 and "" not in subfolders and _WORD.split(name.lower().strip())[0] in _PARTS:
            raise UserError(
                f"{where} cannot be read as one folder per class: '{printable(name)}', which holds the folders "
                f"{shown(subfolders)}, looks like a part of the data, and {beside} like no other part; {remedy}"
            )
        lower = {subfolder.lower() for subfolder in subfolders}
        if lower & {*TRAIN} and lower & {*TEST, *VALIDATION}:
            raise UserError(
                f"{where} cannot be read as one folder per class: '{printable(name)}' holds the parts "
                f"{shown(subfolders)} of the data; expected the parts outside and the classes in each"
            )


def label_test(
    paths: Sequence[PurePosixPath], train: Sequence[PurePosixPath], classes: tuple[str, ...], part: str, where: str
) -> list[int]:
    """Label each path by the folder around it that is one of ``classes``.

    Where folders of several classes are around it, that counts which is in the place of the training part's classes.

    Args:
        paths: The images to label.
        train: The training images.
        classes: Their classes.
        part: Names the part in errors.
        where: Names the data in errors.

    Raises:
        UserError: An image lies in none of them, or it is not clear which of several is its class.
    """
    number = {name: label for label, name in enumerate(classes)}
    place = shared_folders(train)
    labels = []
    for path in paths:
        around = path.parts[:-1]
        found = {name for name in around if name in number}
        if not found:
            raise UserError(
                f"{shown([path])} in the {part} set of {where} lies in none of the train set's class directories"
            )
        if len(found) > 1:
            # Only the name of the part may differ in front of the class.
            unlike = sum(mine != theirs for mine, theirs in zip(around, train[0].parts[:place], strict=False))
            if unlike > 1 or around[place : place + 1] == () or around[place] not in number:
                raise UserError(
                    f"{shown([path])} in the {part} set of {where} lies in the directories of several classes: "
                    f"{shown(found)}; expected the {part} set's classes where the train set has them"
                )
            found = {around[place]}
        labels.append(number[found.pop()])
    return labels
