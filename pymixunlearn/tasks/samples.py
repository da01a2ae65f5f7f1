"""Samples and classes that a request names, found in a data set."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.tasks.deletion_list import DeletionList

_INTEGER = re.compile(r"-?[0-9]{1,9}")
_SHOWN = 20


def class_index(name: int | str, dataset: Dataset) -> int:
    """Return the index of a class that is given by index or by name.

    A text is first a class's name and otherwise an index; ``"name:1"`` and ``"index:1"`` say which.

    Raises:
        UserError: There is no such class, or the text is one class's name and another one's index; the "1" of a class
            "01" is its name, too.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> from pymixunlearn.tasks.samples import class_index
        >>> images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
        >>> shoes = data.from_tensors(images, labels, images, labels, classes=("38", "39", "40"))
        >>> class_index("39", shoes), class_index("index:0", shoes), class_index(2, shoes)
        (1, 0, 2)
    """
    classes = dataset.train.classes
    if not isinstance(name, str):
        return _checked(name, dataset)
    if name in classes:
        label = classes.index(name)
        if _INTEGER.fullmatch(name) and int(name) != label and 0 <= int(name) < len(classes):
            other = printable(classes[int(name)])
            raise UserError(
                f"'{name}' is the name of class {label} and the index of class {int(name)}, '{other}'; expected "
                f"'name:{name}' or 'index:{name}'"
            )
        return label
    kind, colon, rest = name.partition(":")
    if colon and kind == "name" and rest in classes:
        return classes.index(rest)
    if colon and kind == "index":
        name = rest
    elif _INTEGER.fullmatch(name):
        _check_same_number(int(name), dataset)
    if _INTEGER.fullmatch(name):
        return _checked(int(name), dataset)
    raise unknown_name(f"class of '{dataset.name}'", printable(name), map(printable, classes))


def _check_same_number(index: int, dataset: Dataset) -> None:
    """Refuse an index that is another class's name but for leading zeros: "1" beside a folder "01".

    Raises:
        UserError: There is such a class.
    """
    classes = dataset.train.classes
    for label, name in enumerate(classes):
        if label != index and _INTEGER.fullmatch(name) and int(name) == index < len(classes):
            raise UserError(
                f"'{index}' may mean class {label}, '{name}', or the index of class {index}, "
                f"'{printable(classes[index])}'; expected 'name:{name}' or 'index:{index}'"
            )


def _checked(label: int, dataset: Dataset) -> int:
    try:
        index = operator.index(label)
    except TypeError:
        raise UserError(f"a class must be an index or a name, got {label!r}") from None
    if isinstance(label, bool) or not 0 <= index < dataset.num_classes:
        raise UserError(f"class {label} does not exist: '{dataset.name}' has classes 0..{dataset.num_classes - 1}")
    return index


@dataclass(frozen=True)
class Sample:
    """Training sample: its index, the name of its class, and the path of its file, "" where it has none.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> next(iter(tasks.list_samples(data.load("digits")))).index
        0
    """

    index: int
    class_name: str
    file: str


def list_samples(dataset: Dataset, classes: Iterable[int | str] = ()) -> Iterator[Sample]:
    """Yield the training samples in the order of their indices, those that a list of samples to forget can name.

    Args:
        dataset: The data.
        classes: Names or indices of the classes to list; all if there are none.

    Raises:
        UserError: There is no such class, or it is not clear which is meant (:func:`class_index`).

    Example:
        >>> from pymixunlearn import data, tasks
        >>> next(tasks.list_samples(data.load("digits"), ["7"]))
        Sample(index=7, class_name='7', file='')
    """
    wanted = {class_index(name, dataset) for name in classes}
    images = dataset.train

    def samples() -> Iterator[Sample]:
        for index, label in enumerate(images.targets.tolist()):
            if not wanted or label in wanted:
                yield Sample(index, images.classes[label], "" if images.paths is None else images.paths[index])

    return samples()


def find_samples(dataset: Dataset, request: DeletionList) -> dict[str, Tensor]:
    """Find the samples of a list: int64 indices into "train", "test" and "validation", sorted, each once.

    A file is named by its path below the root of the data, as it is or as it is shown (:func:`printable`); by the end
    of it, such as its base name, where only one file has it; or by a path that leads to it from elsewhere. A list of
    ids alone means every sample that has one of them in the data.

    Raises:
        UserError: A file or an id is not in the data, or a file is not the only one of its name, all such being listed;
            an index and a file of one row differ; or a sample is listed twice without ids.
    """
    places: list[_Place] = []
    if request.by_id:
        return _found_ids(dataset, request.ids)
    if not request.files:
        listed = {"train": list(request.indices)}
    else:
        places = _found_files(dataset, request.files)
        for row, (place, index) in enumerate(zip(places, request.indices, strict=False), start=1):
            if place[:2] != ("train", index):
                raise UserError(
                    f"row {row} of the list names '{printable(request.files[row - 1])}', which is {place.part} image "
                    f"{place.number}, and the index {index}; expected one sample"
                )
        listed = defaultdict(list)
        for place in places:
            listed[place.part].append(place.number)
    for part, indices in listed.items():
        repeated = [index for index, count in Counter(indices).items() if count > 1]
        if repeated and request.id_column is None:
            paths = {place.number: place.path for place in places if place.part == part}
            what = f"'{printable(paths[min(repeated)])}'" if paths else f"the index {min(repeated)}"
            raise UserError(
                f"every sample must be listed once, got {what} more than once; with an id column, rows for one sample "
                "are one sample with several ids"
            )
    return {part: torch.tensor(sorted(set(listed.get(part, ()))), dtype=torch.int64) for part in _PARTS}


_PARTS = ("train", "test", "validation")


class _Place(NamedTuple):
    part: str
    number: int
    path: str


def _found_ids(dataset: Dataset, ids: Iterable[str]) -> dict[str, Tensor]:
    wanted, found = set(ids), {}
    seen: set[str] = set()
    for part, images in zip(_PARTS, (dataset.train, dataset.test, dataset.validation), strict=True):
        known = () if images is None else images.known_ids
        found[part] = torch.tensor([index for index, name in enumerate(known) if name in wanted], dtype=torch.int64)
        seen |= wanted.intersection(known)
    missing = sorted(wanted - seen)
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        listed = ", ".join(f"'{printable(name)}'" for name in missing[:_SHOWN])
        kind = {"given": "given by the data", "path": "the paths of the files", "content": "hashes of the pixels"}
        raise UserError(
            f"{len(missing)} of the listed ids are not in the data '{dataset.name}': {listed}{more}; its ids are "
            f"{'given by the data' if dataset.train.owner_ids else kind[dataset.train.id_kind]}, such as "
            f"'{printable(dataset.train.known_ids[0])}'"
        )
    return found


def known_rows(dataset: Dataset, request: DeletionList) -> tuple[DeletionList, tuple[str, ...]]:
    """Divide a list into the rows whose samples are in the data, and the names of the others' samples.

    Raises:
        UserError: The images are no files and the list names files, or a file is not the only one of its name.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> from pymixunlearn.tasks.samples import known_rows
        >>> known, unknown = known_rows(data.load("digits"), tasks.DeletionList((3, 5000)))
        >>> known.indices, unknown
        ((3,), ('5000',))
    """
    names: tuple[str, ...]
    if request.by_id:
        known_ids = {
            name for images in (dataset.train, dataset.test, dataset.validation) if images for name in images.known_ids
        }
        names = request.ids
        places = [_Place("", 0, "") if name in known_ids else None for name in names]
    elif request.files:
        places, names = _looked_up(dataset, request.files), request.files
    else:
        count, names = len(dataset.train), tuple(map(str, request.indices))
        places = [_Place("train", index, "") if 0 <= index < count else None for index in request.indices]
    rows = [row for row, place in enumerate(places) if place is not None]
    known = DeletionList(
        *(tuple(request.indices[row] for row in rows) if request.indices else (), request.id_column),
        ids=tuple(request.ids[row] for row in rows) if request.ids else (),
        files=tuple(request.files[row] for row in rows) if request.files else (),
    )
    return known, tuple(name for name, place in zip(names, places, strict=True) if place is None)


def _found_files(dataset: Dataset, names: Iterable[str]) -> list[_Place]:
    names = list(names)
    places = _looked_up(dataset, names)
    missing = [f"'{printable(name)}'" for name, place in zip(names, places, strict=True) if place is None]
    if missing:
        raise _wrong_files(dataset, missing, "are not in")
    return [place for place in places if place is not None]


def _looked_up(dataset: Dataset, names: Iterable[str]) -> list[_Place | None]:
    """Return where each file is, None where it is not in the data."""
    places = list(_places(dataset))
    if not places:
        raise UserError(f"the images of '{dataset.name}' are no files; expected a list of indices")
    exact: dict[str, list[_Place]] = defaultdict(list)
    ends: dict[str, list[_Place]] = defaultdict(list)
    for place in places:
        exact[place.path].append(place)
        if (shown := printable(place.path)) != place.path:  # as `list samples` and messages write it
            exact[shown].append(place)
        ends[_comparable(place.path).rpartition("/")[2]].append(place)
    # With the folder of the data before it, so that a path that leads there from elsewhere ends alike.
    source = _comparable(dataset.source or "").rstrip("/")
    root = source if source.startswith("/") else "."
    found: list[_Place | None] = []
    ambiguous = []
    for name in names:
        even = _comparable(name.strip())
        candidates = exact.get(name) or [
            place
            for place in ends[even.rpartition("/")[2]]
            if (path := f"{root}/{_comparable(place.path)}") == even or path.endswith(f"/{even}")
        ]
        found.append(candidates[0] if len(candidates) == 1 else None)
        if len(candidates) > 1:
            either = " or ".join(f"'{printable(place.path)}' ({place.part})" for place in candidates[:3])
            ambiguous.append(f"'{printable(name)}' ({either})")
    if ambiguous:
        raise _wrong_files(dataset, ambiguous, "are each the end of several paths in", "; expected whole paths")
    return found


def _wrong_files(dataset: Dataset, wrong: list[str], what: str, expected: str = "") -> UserError:
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    listed = f"{', '.join(wrong[:_SHOWN])}{more}"
    return UserError(f"{len(wrong)} of the listed files {what} the data '{dataset.name}': {listed}{expected}")


def _places(dataset: Dataset) -> Iterator[_Place]:
    for part, images in zip(_PARTS, (dataset.train, dataset.test, dataset.validation), strict=True):
        for index, path in enumerate((images.paths if images is not None else None) or ()):
            yield _Place(part, index, path)


def _comparable(path: str) -> str:
    """Path with the separators of Windows, a leading ``./`` and the composition of accents evened out."""
    even = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return even[2:] if even.startswith("./") else even
