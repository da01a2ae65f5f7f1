"""Data set of image files in one directory per class: a folder, or a tar archive of one that is never unpacked."""

from __future__ import annotations

import hashlib
import math
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.data.cache import cache_dir
from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.data.decode import SUFFIXES, SquareDecoder
from pymixunlearn.data.image_file import MappedImages, map_images, write_images
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
from pymixunlearn.data.listing import FILE_LIMIT, Listing, Member, list_folder, read_archive, shown
from pymixunlearn.data.preprocess import Preprocess, natural_images
from pymixunlearn.data.registry import Request, register, register_source
from pymixunlearn.data.specification import ARCHIVES
from pymixunlearn.data.streamed import IN_MEMORY_LIMIT, StreamedImageSet
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

_CACHE_FORMAT = "pymixunlearn-images/2"  # changes with what decoding gives
_NAMED = 20


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


@dataclass
class _Decoded:
    """Images of a folder or archive in ascending order of their paths, and what was left out.

    Attributes:
        decoder: The images as they were found.
        order: Index there of each image.
        names: Path of each image.
        listing: All that was found.
        unreadable: What is wrong with each image that could not be read.
    """

    decoder: SquareDecoder
    order: list[int]
    names: list[str]
    listing: Listing
    unreadable: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What a reader should know of what was left out."""
        skipped = f"{len(self.unreadable)} images that cannot be read: {'; '.join(self.unreadable[:_NAMED])}"
        return [*self.listing.notes(), *([skipped] if self.unreadable else [])]


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
        raise UserError("the dataset 'imagefolder' needs data_dir: a folder or a .tar or .tar.gz archive of images")
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
            labels = label_test(tables[name].paths, classes, kind, where)
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
        listing = list_folder(source, follow_links=request.follow_links) if source.is_dir() else None
        cached = cache_dir() / "images" / f"{_cache_key(source, listing, request)}.safetensors"
        found = map_images(cached)
        if found is None:
            if cached.exists():
                warnings.warn(f"the cached images of {_named(source)} are damaged and are decoded again", stacklevel=6)
            decoded = _decode(source, listing, request)
            found = _stored(decoded, cached, request)
            if found is None:
                images = torch.from_numpy(np.stack(list(decoded.decoder.images(decoded.order))))
                found = MappedImages(images, decoded.names, decoded.notes)
    except OSError as error:
        raise UserError(f"{_named(source)} cannot be read ({error})") from error
    notes += found.details
    streamed = _streams(request, found.images.nbytes)
    paths = [PurePosixPath(name) for name in found.names]
    return _Table(found.images if streamed else found.images.clone(), streamed, torch.arange(len(paths)), paths)


def _stored(decoded: _Decoded, cached: Path, request: Request) -> MappedImages | None:
    """Write decoded images to the cache and map them; without a cache, map a temporary file, or none if memory can do.

    Raises:
        OSError: Images that are to be streamed can be written nowhere.
    """
    shape = (len(decoded.order), *decoded.decoder.shape)

    def write(path: Path) -> MappedImages | None:
        write_images(path, decoded.decoder.images(decoded.order), shape, decoded.names, decoded.notes)
        return map_images(path)

    try:
        return write(cached)
    except OSError as error:
        # A disk that is full or read-only costs time later but is no reason to fail now.
        warnings.warn(f"the decoded images could not be cached in '{cached.parent}' ({error})", stacklevel=7)
    if not _streams(request, math.prod(shape)):
        return None
    # Once mapped, the file needs no name; where it cannot be removed, the system's cleaning does.
    with tempfile.TemporaryDirectory(prefix="pymixunlearn-", ignore_cleanup_errors=True) as folder:
        return write(Path(folder) / cached.name)


def _streams(request: Request, size: int) -> bool:
    return size > IN_MEMORY_LIMIT if request.stream is None else request.stream


def _decode(source: Path, listing: Listing | None, request: Request) -> _Decoded:
    """Decode the images one by one.

    Raises:
        UserError: There are none, or some cannot be read and may not be skipped; all of these are named.
    """
    total = None if listing is None else len(listing.images)
    listing = Listing() if listing is None else listing
    members = _folder_members(source, listing) if total is not None else read_archive(source, listing)
    decoder = SquareDecoder(request.image_size, IN_MEMORY_LIMIT)
    paths: list[PurePosixPath] = []
    known: dict[PurePosixPath, int] = {}
    unreadable: list[str] = []
    for done, member in enumerate(members, start=1):
        try:
            _add(decoder, member, known)
        except (UserError, OSError) as error:
            unreadable.append(f"{_named(source / member.path)} {error}")
        else:
            known[member.path] = len(paths)
            paths.append(member.path)
        if request.progress is not None:
            request.progress(done, total)
    if unreadable and not request.skip_unreadable:
        more = f"; and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        raise UserError(
            f"{'; '.join(unreadable[:_NAMED])}{more} ({len(unreadable)} of {len(paths) + len(unreadable)} images; "
            "skip_unreadable, or --skip-unreadable, leaves them out)"
        )
    listing.images = list(paths)
    if not paths:
        also = "".join(f"; left out {note}" for note in listing.notes())
        raise UserError(
            f"{_named(source)} holds no images; expected one directory per class of {', '.join(sorted(SUFFIXES))}{also}"
        )
    check_parts(listing, _named(source))
    # By name, so that a folder and an archive of it, in whatever order it was packed, are the same data.
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return _Decoded(decoder, order, [str(paths[index]) for index in order], listing, unreadable)


def _folder_members(source: Path, listing: Listing) -> Iterator[Member]:
    for path in sorted(listing.images):
        yield Member(path, (source / path).stat().st_size, (source / path).read_bytes)


def _add(decoder: SquareDecoder, member: Member, known: dict[PurePosixPath, int]) -> None:
    """Decode one image.

    Raises:
        UserError: It cannot be decoded, or is too large to be read.
        OSError: The file cannot be read.
    """
    if member.link is not None:
        if member.link not in known:
            raise UserError(f"is a link to '{printable(str(member.link))}', which is no image before it in the archive")
        decoder.repeat(known[member.link])
    elif member.size > FILE_LIMIT:
        raise UserError(f"has {member.size} bytes; expected at most {FILE_LIMIT}")
    else:
        decoder.add(member.read())


def _named(source: Path) -> str:
    return f"'{printable(str(source))}'"


def _cache_key(source: Path, listing: Listing | None, request: Request) -> str:
    """Changes whenever the decoded images might: with path, sizes, times of change, and what was asked for."""
    options = f"{request.image_size} {request.skip_unreadable}"
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {source.resolve()} {options}".encode("utf-8", "surrogateescape"))
    if listing is not None:
        digest.update(repr(sorted((str(path), sorted(kinds)) for path, kinds in listing.folders.items())).encode())
        digest.update(repr(sorted(listing.left_out.items())).encode())
    for path in [source] if listing is None else sorted(source / file for file in listing.images):
        status = path.stat()
        text = f"\n{path} {status.st_size} {status.st_mtime_ns}"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
