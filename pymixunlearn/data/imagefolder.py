"""Data set of image files in one directory per class: a folder, or an archive of one that is never unpacked."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from pymixunlearn.data.archives import read_archive
from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.data.decode import SUFFIXES
from pymixunlearn.data.decoding import Files, decode_files, streams
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.layout import (
    TEST,
    TRAIN,
    VALIDATION,
    check_parts,
    find_parts,
    label_test,
    label_train,
    shared_folders,
)
from pymixunlearn.data.listing import Listing, Member, list_folder, shown
from pymixunlearn.data.preprocess import Preprocess, natural_images
from pymixunlearn.data.registry import Request, register, register_source
from pymixunlearn.data.specification import ARCHIVES
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

_CACHE_FORMAT = "pymixunlearn-images/3"  # changes with what decoding gives


@dataclass(frozen=True)
class _Table:
    """Data table: images, uint8 [M, C, S, S], in memory or in their file, and index and path of each that counts.

    Paths are below the images' root, in ascending order.
    """

    images: Tensor
    streamed: bool
    indices: Tensor
    paths: list[PurePosixPath]

    def below(self, shared: int, top: str) -> _Table:
        """Those whose path goes on with ``top`` after ``shared`` folders."""
        part = [index for index, path in enumerate(self.paths) if path.parts[shared] == top]
        return _Table(
            self.images, self.streamed, self.indices[torch.tensor(part)], [self.paths[index] for index in part]
        )

    def under(self, name: str) -> _Table:
        """The same images, their paths below a folder ``name``."""
        return replace(self, paths=[PurePosixPath(name) / path for path in self.paths])

    def labelled(self, labels: list[int], classes: tuple[str, ...]) -> ImageSet:
        """Return them as a set; ``labels`` are one class index for each."""
        targets = torch.tensor(labels, dtype=torch.int64)
        paths = tuple(map(str, self.paths))
        if self.streamed:
            return StreamedImageSet(self.images, targets, classes, paths, self.indices)
        everything = len(self.indices) == len(self.images)
        return ImageSet(self.images if everything else self.images[self.indices], targets, classes, paths)


@register_source("images")
@register("imagefolder", streams=True)
def load_imagefolder(request: Request) -> Dataset:
    """Load images whose class is the name of the directory that they lie in.

    ``data_dir`` is a folder or an archive with a training part and another (see :mod:`~pymixunlearn.data.layout`)
    inside, or a folder with an archive of each part (train.tar.gz, test.tar.gz), or a single set, a fifth of which then
    becomes the test set. Every image's path is in ``paths``.
    """
    source = request.data_dir
    if source is None:
        raise UserError(
            "the dataset 'imagefolder' needs data_dir: a folder or a .tar, .tar.gz or .zip archive of images"
        )
    if not source.exists():
        raise UserError(f"{_named(source)} does not exist; expected a folder or archive of images as data_dir")
    notes: list[str] = []
    train, test, validation = _parts(source, request, notes)
    for part in (test, validation):
        if part is not None and train.images.shape[1:] != part.images.shape[1:]:
            raise UserError(
                f"the train and test images of {_named(source)} must be of one size and kind, got "
                f"{list(train.images.shape[1:])} and {list(part.images.shape[1:])} (channels, height, width)"
            )
    size = request.resize_from(train.images.shape[-1])
    # Mirroring and cropping suit photographs; grey images are treated like the MNISTs.
    preprocess = natural_images(size) if train.images.shape[1] == 3 else Preprocess(size=size)
    for note in notes:
        warnings.warn(f"{_named(source)}: left out {note}", stacklevel=4)
    return Dataset(request.name, train, test, preprocess, validation, tuple(notes))


def _parts(source: Path, request: Request, notes: list[str]) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """Return training, test and, if there is one, validation set."""
    where = _named(source)
    archives = _archives(source) if source.is_dir() else {}
    parts = find_parts(archives, where)
    if parts is not None:
        tables = {name: _decoded(archives[name], request, notes).under(name) for name in parts if name is not None}
    else:
        everything = _decoded(source, request, notes)
        shared = shared_folders(everything.paths)
        tops = {path.parts[shared] for path in everything.paths if len(path.parts) > shared + 1}
        parts = find_parts(tops, where)
        if parts is None:
            labels, classes = label_train(everything.paths, where)
            return (*hold_out(everything.labelled(labels, classes)), None)
        tables = {name: everything.below(shared, name) for name in parts if name is not None}
        others = {path.parts[shared] for path in everything.paths} - set(tables)
        if others:
            notes.append(f"images beside the parts {shown(tables)}: {shown(others)}")
    labels, classes = label_train(tables[parts.train].paths, where)
    train = tables[parts.train].labelled(labels, classes)
    rest = []
    for kind, name in (("test", parts.test), ("validation", parts.validation)):
        if name is not None:
            labels = label_test(tables[name].paths, tables[parts.train].paths, classes, kind, where)
            rest.append(tables[name].labelled(labels, classes))
    return train, rest[0], rest[1] if len(rest) > 1 else None


def _archives(folder: Path) -> dict[str, Path]:
    """Return the archives in a folder that are named like parts, by the name of the part."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        for suffix in ARCHIVES:
            name = path.name[: -len(suffix)]
            if path.name.lower().endswith(suffix) and name.lower() in (*TRAIN, *TEST, *VALIDATION) and path.is_file():
                found.setdefault(name, path)
    return found


def _decoded(source: Path, request: Request, notes: list[str]) -> _Table:
    """Decode every image of ``source`` into a file, or find the file of an earlier call; add to ``notes``."""
    try:
        found = decode_files(_files(source, request), request)
    except OSError as error:
        raise UserError(f"{_named(source)} cannot be read ({error})") from error
    notes += found.details
    streamed = streams(request, found.images.nbytes)
    paths = [PurePosixPath(name) for name in found.names]
    return _Table(found.images if streamed else found.images.clone(), streamed, torch.arange(len(paths)), paths)


def _files(source: Path, request: Request) -> Files:
    """Return the image files of a folder or an archive.

    Raises:
        OSError: A folder cannot be read.
        UserError: A link leads out of the folder, or something that is named like an image is no file.
    """
    folder = source.is_dir()
    listing = list_folder(source, follow_links=request.follow_links) if folder else Listing()

    def finished(names: list[str]) -> list[str]:
        listing.images = [PurePosixPath(name) for name in names]
        if not names:
            also = "".join(f"; left out {note}" for note in listing.notes())
            raise UserError(
                f"{_named(source)} holds no images; expected one directory per class of {', '.join(sorted(SUFFIXES))}"
                f"{also}"
            )
        check_parts(listing, _named(source))
        return list(listing.notes())

    images = sorted(listing.images)
    return Files(
        where=_named(source),
        key=_cache_key(source, listing if folder else None, images),
        members=lambda: file_members(source, images) if folder else read_archive(source, listing),
        total=len(images) if folder else None,
        shown=lambda name: _named(source / name),
        finished=finished,
    )


def file_members(folder: Path, paths: Iterable[PurePosixPath]) -> Iterator[Member]:
    """Yield files of a folder, which are read when they are decoded."""
    for path in paths:
        file = folder / path
        yield Member(path, file.stat().st_size, file.read_bytes)


def _named(source: Path) -> str:
    return f"'{printable(str(source))}'"


def _cache_key(source: Path, listing: Listing | None, images: Iterable[PurePosixPath]) -> str:
    """Changes whenever the decoded images might: with path, sizes and times of change."""
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {source.resolve()}".encode("utf-8", "surrogateescape"))
    if listing is not None:
        digest.update(
            repr(sorted((str(path), sorted(kinds.items())) for path, kinds in listing.folders.items())).encode()
        )
        digest.update(repr(sorted(listing.left_out.items())).encode())
    for path in [source] if listing is None else (source / image for image in images):
        status = path.stat()
        text = f"\n{path} {status.st_size} {status.st_mtime_ns}"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
