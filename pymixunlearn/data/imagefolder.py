"""Any images in one directory per class: a folder, or a tar archive of one that is never unpacked."""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.data.cache import cache_dir
from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.data.decode import SUFFIXES, SquareDecoder
from pymixunlearn.data.image_file import map_images, write_images
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import Preprocess, natural_images
from pymixunlearn.data.registry import Request, register
from pymixunlearn.data.streamed import IN_MEMORY_LIMIT, StreamedImageSet
from pymixunlearn.errors import UserError

_CACHE_FORMAT = "pymixunlearn-images/1"
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_TRAIN = "train"
_TEST_NAMES = ("test", "val")  # the first of them that is there


@dataclass(frozen=True)
class _Decoded:
    """Images, uint8 [M, C, S, S], in memory or in their file; the rows of those that count, and the path of each.

    Paths are below the images' root, in ascending order.
    """

    images: Tensor
    streamed: bool
    rows: Tensor
    paths: list[PurePosixPath]

    def below(self, shared: int, top: str) -> _Decoded:
        """Those whose path goes on with ``top`` after ``shared`` folders."""
        chosen = [index for index, path in enumerate(self.paths) if path.parts[shared] == top]
        paths = [self.paths[index] for index in chosen]
        return _Decoded(self.images, self.streamed, self.rows[torch.tensor(chosen)], paths)

    def labelled(self, labels: list[int], classes: tuple[str, ...]) -> ImageSet:
        """Return them as a set; ``labels`` are one class index for each."""
        targets = torch.tensor(labels, dtype=torch.int64)
        if self.streamed:
            return StreamedImageSet(self.images, targets, classes, self.rows)
        everything = len(self.rows) == len(self.images)
        return ImageSet(self.images if everything else self.images[self.rows], targets, classes)

    def shared_folders(self) -> int:
        """How many folders all paths begin with; the next one down tells images apart."""
        return len(PurePosixPath(posixpath.commonpath([path.parent for path in self.paths])).parts)


@register("imagefolder", streams=True)
def load_imagefolder(request: Request) -> Dataset:
    """Load images whose class is the name of the directory that they lie in.

    ``data_dir`` is a folder or an archive with train/ and test/ (or val/) inside, or a folder with train.tar.gz and
    test.tar.gz (or val; .tar and .tgz too), or a single set, a fifth of which then becomes the test set.
    """
    source = request.data_dir
    if source is None:
        raise UserError("the dataset 'imagefolder' needs data_dir: a folder or a .tar or .tar.gz archive of images")
    if not source.exists():
        raise UserError(f"'{source}' does not exist; expected a folder or archive of images as data_dir")
    train, test = _train_and_test(source, request)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"the train and test images of '{source}' must be of one size and kind, got "
            f"{list(train.images.shape[1:])} and {list(test.images.shape[1:])} (channels, height, width)"
        )
    size = request.resize_from(train.images.shape[-1])
    # Mirroring and cropping suit photographs; grey images are treated like the MNISTs.
    preprocess = natural_images(size) if train.images.shape[1] == 3 else Preprocess(size=size)
    return Dataset(request.name, train, test, preprocess)


def _train_and_test(source: Path, request: Request) -> tuple[ImageSet, ImageSet]:
    archives = _archive_pair(source) if source.is_dir() else None
    if archives is not None:
        train, test = (_decoded(path, request) for path in archives)
        first = _label_train(train, source)
        return first, _label_test(test, source, first.classes)
    everything = _decoded(source, request)
    shared = everything.shared_folders()
    tops = {path.parts[shared] for path in everything.paths}
    test_name = next((name for name in _TEST_NAMES if name in tops), None)
    if _TRAIN in tops and test_name is not None:
        first = _label_train(everything.below(shared, _TRAIN), source)
        return first, _label_test(everything.below(shared, test_name), source, first.classes)
    return hold_out(_label_train(everything, source))


def _archive_pair(folder: Path) -> tuple[Path, Path] | None:
    def archive(name: str) -> Path | None:
        return next((path for suffix in _ARCHIVE_SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)

    train = archive(_TRAIN)
    test = next((path for name in _TEST_NAMES if (path := archive(name))), None)
    return (train, test) if train and test else None


def _label_train(part: _Decoded, source: Path) -> ImageSet:
    """Label each image by the first folder below those that all images share; classes are sorted by name."""
    shared = part.shared_folders()
    if any(len(path.parts) < shared + 2 for path in part.paths):
        raise UserError(f"'{source}' must hold at least two directories of images, one per class, and no loose images")
    names = [path.parts[shared] for path in part.paths]
    classes = tuple(sorted(set(names)))
    number = {name: label for label, name in enumerate(classes)}
    return part.labelled([number[name] for name in names], classes)


def _label_test(part: _Decoded, source: Path, classes: tuple[str, ...]) -> ImageSet:
    """Label each image by the innermost folder around it that is one of the train set's ``classes``."""
    number = {name: label for label, name in enumerate(classes)}
    labels = []
    for path in part.paths:
        label = next((number[name] for name in reversed(path.parts[:-1]) if name in number), None)
        if label is None:
            raise UserError(f"'{path}' in the test set of '{source}' lies in none of the train set's class directories")
        labels.append(label)
    return part.labelled(labels, classes)


def _decoded(source: Path, request: Request) -> _Decoded:
    """Decode every image of ``source`` into a file, or find the file of an earlier call."""
    try:
        files = _files_below(source) if source.is_dir() else None
        cached = cache_dir() / "images" / f"{_cache_key(source, files, request.image_size)}.safetensors"
        found = map_images(cached)
        if found is None:
            decoder, order, names = _decode(source, files, request)
            try:
                write_images(cached, decoder.rows(order), (len(order), *decoder.shape), names)
                found = map_images(cached)
            except OSError as error:
                # A disk that is full or read-only costs time later but is no reason to fail now, if memory can do.
                if _streams(request, len(order) * math.prod(decoder.shape)):
                    raise
                warnings.warn(f"the decoded images could not be kept in '{cached.parent}' ({error})", stacklevel=2)
            if found is None:
                stacked = np.stack(list(decoder.rows(order)))
                return _whole(torch.from_numpy(stacked), False, names)
    except OSError as error:
        raise UserError(f"'{source}' cannot be read ({error})") from error
    streamed = _streams(request, found.images.nbytes)
    return _whole(found.images if streamed else found.images.clone(), streamed, found.names)


def _whole(images: Tensor, streamed: bool, names: list[str]) -> _Decoded:
    return _Decoded(images, streamed, torch.arange(len(names)), [PurePosixPath(name) for name in names])


def _streams(request: Request, size: int) -> bool:
    return size > IN_MEMORY_LIMIT if request.stream is None else request.stream


def _decode(
    source: Path, files: list[PurePosixPath] | None, request: Request
) -> tuple[SquareDecoder, list[int], list[str]]:
    """Decode the images one by one; return them, their order by name, and the names in that order."""
    contents = _archive_contents(source) if files is None else ((path, (source / path).read_bytes()) for path in files)
    decoder = SquareDecoder(request.image_size, IN_MEMORY_LIMIT)
    paths: list[PurePosixPath] = []
    for path, content in contents:
        decoder.add(content, f"{source}/{path}")
        paths.append(path)
        if request.progress is not None:
            request.progress(len(paths), None if files is None else len(files))
    if not paths:
        raise UserError(
            f"'{source}' holds no images; expected one directory per class of {', '.join(sorted(SUFFIXES))}"
        )
    # By name, so that a folder and an archive of it, in whatever order it was packed, are the same data.
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return decoder, order, [str(paths[index]) for index in order]


def _is_image(path: PurePosixPath) -> bool:
    """Whether a file counts; hidden ones (as macOS adds to archives) do not."""
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _files_below(folder: Path) -> list[PurePosixPath]:
    found = []
    for directory, _, names in os.walk(folder, followlinks=True):
        below = PurePosixPath(Path(directory).relative_to(folder).as_posix())
        found += [path for name in names if _is_image(path := below / name)]
    return found


def _archive_contents(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read an archive from front to back; member names are labels only, never places on this disk."""
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                path = PurePosixPath(member.name.lstrip("/"))
                file = archive.extractfile(member) if member.isfile() and _is_image(path) else None
                if file is not None:
                    yield path, file.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"'{source}' cannot be read as a tar archive ({error})") from error


def _cache_key(source: Path, files: list[PurePosixPath] | None, image_size: int | None) -> str:
    """Changes whenever the decoded images might: by place, sizes, times of change, and the size asked for."""
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {source.resolve()} {image_size}".encode())
    for path in [source] if files is None else sorted(source / file for file in files):
        status = path.stat()
        digest.update(f"\n{path} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]
