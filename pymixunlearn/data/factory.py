"""Data sets that a Python function makes, and data sets of torch objects."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.decode import Limit, common_shape, square_of
from pymixunlearn.data.decoding import refitted
from pymixunlearn.data.image_file import hashed, map_images, write_images
from pymixunlearn.data.image_set import ImageSet, own_or_owner_ids
from pymixunlearn.data.preprocess import Preprocess, natural_images
from pymixunlearn.data.registry import Progress, Request, register_source
from pymixunlearn.data.rows import class_names
from pymixunlearn.data.spool import Spool
from pymixunlearn.data.streamed import IN_MEMORY_LIMIT, StreamedImageSet
from pymixunlearn.display import a_type, printable
from pymixunlearn.errors import UserError
from pymixunlearn.user_files import described, import_file

PARTS = ("train", "test", "validation")


def load_attribute(reference: str) -> Any:
    """Import what ``package.module:name`` or ``file.py:name`` names; this runs the file.

    Raises:
        UserError: There is no such module, file or name, or it fails when it is imported.
    """
    where, _, name = reference.rpartition(":")
    if where.endswith(".py"):
        module = import_file(Path(where))
    else:
        try:
            module = importlib.import_module(where)
        except Exception as error:  # a module of a user may raise anything
            raise UserError(f"module '{printable(where)}' cannot be imported ({described(error)})") from error
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"'{printable(where)}' has no '{printable(name)}'; expected a function of this name")
    return found


@register_source("factory")
def load_factory(request: Request) -> Dataset:
    """Load the data that a function without arguments returns.

    It returns a :class:`Dataset`; or map-style torch data sets: training and test set, and perhaps a validation set, as
    a tuple or a mapping with the keys train, test and validation.
    """
    made = load_attribute(request.reference)
    where = f"'{printable(request.reference)}'"
    try:
        made = made() if callable(made) else made
    except Exception as error:
        raise UserError(f"{where} failed ({described(error)})") from error
    if isinstance(made, Dataset):
        if request.image_size in (None, made.image_size):
            return made
        return replace(made, preprocess=replace(made.preprocess, size=request.image_size, resize=None))
    if isinstance(made, Mapping):
        parts = {str(name): part for name, part in made.items()}
    elif isinstance(made, (tuple, list)) and len(made) in (2, 3):
        parts = dict(zip(PARTS, made, strict=False))
    else:
        parts = {}
    if not {"train", "test"} <= set(parts) <= set(PARTS):
        raise UserError(
            f"{where} returned {a_type(made)}; expected torch data sets (train, test) or (train, test, "
            "validation), a mapping with these keys, or a pymixunlearn.data.Dataset"
        )
    return from_dataset(
        parts["train"],
        parts["test"],
        parts.get("validation"),
        name=request.name,
        image_size=request.image_size,
        preprocess=request.preprocess,
        progress=request.progress,
        stream=request.stream,
    )


def from_dataset(
    train: Any,
    test: Any,
    validation: Any = None,
    ids: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    classes: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    name: str = "custom",
    image_size: int | None = None,
    progress: Progress | None = None,
    stream: bool | None = None,
) -> Dataset:
    """Make a data set of map-style torch data sets, whose samples are (image, label).

    Every sample is read once, here: a transform with random augmentation gives each image once and for all. Images of
    Pillow are cut to their middle square and brought to one size, like those of a folder.

    Args:
        train: The training data: ``len(train)`` and ``train[index]``, an image and an integer label. An image is one of
            Pillow, a tensor ``[C, H, W]`` (uint8 in 0..255 or float32), or an array ``[H, W]`` or ``[H, W, C]`` uint8.
        test: The test data, likewise.
        validation: Images that no model is trained or tested on.
        ids: A stable id for each training image, or for each part by "train", "test" and "validation", which several
            images may share (all of one person); if not given, the paths of torchvision's ImageFolder, and otherwise
            hashes of the pixels.
        classes: Names of the classes; if not given, the attribute ``classes`` of ``train``, or "0", "1", …
        preprocess: Preprocessing to network inputs. If not given: for Pillow's colour images that of
            :func:`natural_images`, for others none but scaling uint8 to [0, 1].
        name: Name in reports.
        image_size: Side of the network's input; None for the images' own.
        progress: Called as the samples are read.
        stream: Whether images of Pillow stay in a file; None does so above 4 GiB.

    Raises:
        UserError: A part has no samples, a sample is no image with a label, or images differ in shape.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from pymixunlearn import data
        >>> part = TensorDataset(torch.rand(6, 1, 8, 8), torch.arange(6) % 2)
        >>> dataset = data.from_dataset(part, part, ids=[f"photo-{number}" for number in range(6)])
        >>> dataset.train.ids[4], dataset.num_classes
        ('photo-4', 2)
    """
    parts = {"train": train, "test": test, **({} if validation is None else {"validation": validation})}
    by_part = {name: tuple(map(str, values)) for name, values in _ids_of(ids).items()}
    for part in by_part:
        if part not in parts:
            raise UserError(f"ids are given for the part '{part}'; expected some of {', '.join(parts)}")
    geometry = None if preprocess is None else preprocess.geometry
    limit: Limit = image_size if geometry is None else geometry
    read = {part: _Samples(part, data, limit, progress) for part, data in parts.items()}
    pillow = {samples.pillow for samples in read.values()}
    if len(pillow) > 1:
        raise UserError("some parts give Pillow's images and others arrays or tensors; expected one kind in all")
    labels = sorted({label for samples in read.values() for label in samples.labels})
    names = _classes(classes, train, labels)
    shape = common_shape((s for samples in read.values() for s in samples.shapes), limit) if pillow == {True} else None
    made = {
        part: samples.image_set(names, shape, stream, _paths(parts[part], len(samples.labels)), by_part.get(part))
        for part, samples in read.items()
    }
    size = None if image_size == made["train"].images.shape[-1] else image_size
    if preprocess is None:
        natural = shape is not None and shape[0] == 3
        preprocess = natural_images(size) if natural else Preprocess(size=size)
    return Dataset(name, made["train"], made["test"], preprocess, made.get("validation"))


def _ids_of(ids: Sequence[str] | Mapping[str, Sequence[str]] | None) -> Mapping[str, Sequence[str]]:
    if ids is None:
        return {}
    return ids if isinstance(ids, Mapping) else {"train": ids}


def _classes(given: Sequence[str] | None, train: Any, labels: list[int]) -> tuple[str, ...]:
    found = given if given is not None else getattr(train, "classes", None)
    highest = labels[-1]
    if labels[0] < 0:
        raise UserError(f"labels must be 0 or above, got {labels[0]}")
    if isinstance(found, (list, tuple)) and len(found) > highest:
        return tuple(map(str, found))
    if given is not None:
        raise UserError(f"classes has {len(given)} names, but a label is {highest}; expected at least {highest + 1}")
    return class_names(map(str, range(highest + 1)))


def _paths(data: Any, count: int) -> tuple[str, ...] | None:
    """Return the paths below the root of a data set like torchvision's ImageFolder."""
    samples, root = getattr(data, "samples", None), getattr(data, "root", None)
    if not isinstance(samples, list) or root is None or len(samples) != count:
        return None
    try:
        paths = tuple(Path(os.path.relpath(sample[0], root)).as_posix() for sample in samples)
    except (TypeError, ValueError, IndexError):
        return None
    return paths if len(set(paths)) == count else None


class _Samples:
    """Samples of one part, read one by one.

    Attributes:
        pillow: Whether the images are Pillow's, which are kept in a file until their common size is known.
        labels: The label of each.
        shapes: The shape of each of Pillow's images.
    """

    def __init__(self, part: str, data: Any, limit: Limit, progress: Progress | None) -> None:
        self.part, self._limit = part, limit
        try:
            count = len(data)
        except TypeError:
            raise UserError(
                f"the {part} set is {a_type(data)} without a length; expected a map-style data set"
            ) from None
        if not count:
            raise UserError(f"the {part} set must have at least one image, got none")
        self.labels: list[int] = []
        self._folder = tempfile.TemporaryDirectory(prefix="pymixunlearn-", ignore_cleanup_errors=True)
        self._spool = Spool(Path(self._folder.name) / "spool")
        self._images: Tensor | None = None
        self.pillow = False
        for index in range(count):
            image, label = self._sample(data, index)
            self.labels.append(label)
            if self.pillow:
                self._spool.add(str(index), hashed(square_of(image, limit)))
            else:
                self._put(index, count, image)
            if progress is not None:
                progress(index + 1, count)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [entry.shape for entry in self._spool.entries]

    def image_set(
        self,
        classes: tuple[str, ...],
        shape: tuple[int, int, int] | None,
        stream: bool | None,
        paths: tuple[str, ...] | None,
        ids: tuple[str, ...] | None,
    ) -> ImageSet:
        """Return the samples as a set; ``shape`` is the common one of Pillow's images."""
        targets = torch.tensor(self.labels, dtype=torch.int64)
        with self._folder:
            if shape is None:
                assert self._images is not None
                return ImageSet(self._images, targets, classes, paths, **own_or_owner_ids(ids))
            count = len(targets)
            images = (refitted(self._spool.read(str(index)), shape, self._limit) for index in range(count))
            size = count * int(np.prod(shape))
            if not (size > IN_MEMORY_LIMIT if stream is None else stream):
                pixels = np.stack([image.pixels for image in images])
                return ImageSet(torch.from_numpy(pixels), targets, classes, paths, **own_or_owner_ids(ids))
            file = Path(self._folder.name) / "images.safetensors"
            write_images(file, images, (count, *shape), [str(index) for index in range(count)])
            mapped = map_images(file)  # once mapped, the file needs no name
            if mapped is None:
                raise UserError(f"the images of the {self.part} set could not be read back from '{file}'")
            return StreamedImageSet(mapped.images, targets, classes, paths, None, **own_or_owner_ids(ids))

    def _sample(self, data: Any, index: int) -> tuple[Any, int]:
        where = f"sample {index} of the {self.part} set"
        try:
            sample = data[index]
        except Exception as error:  # the data set is a user's and may raise anything
            raise UserError(f"{where} cannot be read ({type(error).__name__}: {error})") from error
        if not isinstance(sample, (tuple, list)) or len(sample) < 2:
            raise UserError(f"{where} is {a_type(sample)}; expected an image and a label")
        image, label = sample[0], sample[1]
        if isinstance(label, (Tensor, np.generic, np.ndarray)) and np.ndim(label) == 0:
            label = label.item()
        if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
            raise UserError(f"{where} has the label {label!r}; expected an integer")
        pillow = type(image).__module__.partition(".")[0] == "PIL"
        if index == 0:
            self.pillow = pillow
        elif pillow is not self.pillow:
            raise UserError(f"{where} is {a_type(image)}, unlike the first; expected one kind of image")
        return image, int(label)

    def _put(self, index: int, count: int, image: Any) -> None:
        """Put a tensor or an array in its place."""
        where = f"sample {index} of the {self.part} set"
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise UserError(f"{where} is an array of {image.dtype} and shape {list(image.shape)}; expected uint8")
            image = torch.from_numpy(np.array(image))
            image = image.unsqueeze(0) if image.ndim == 2 else image.permute(2, 0, 1)
        if not isinstance(image, Tensor) or image.ndim != 3:
            kind = f"a tensor of shape {list(image.shape)}" if isinstance(image, Tensor) else a_type(image)
            raise UserError(f"{where} is {kind}; expected an image of Pillow, or a tensor or array [C, H, W]")
        image = image.detach().cpu()
        if image.dtype != torch.uint8:
            image = image.to(torch.float32)
        if self._images is None:
            self._images = torch.empty(count, *image.shape, dtype=image.dtype)
        if image.shape != self._images.shape[1:] or image.dtype != self._images.dtype:
            raise UserError(
                f"{where} is {image.dtype} of shape {list(image.shape)}, the first {self._images.dtype} of shape "
                f"{list(self._images.shape[1:])}; expected one size and kind, as by a transform that resizes"
            )
        self._images[index] = image
