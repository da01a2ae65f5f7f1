"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pymixunlearn.data.classes import with_classes
from pymixunlearn.data.dataset import Dataset, part_of
from pymixunlearn.data.decode import Limit
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.specification import Specification, parse_specification
from pymixunlearn.data.validation import with_none, with_validation
from pymixunlearn.errors import UserError

Progress = Callable[[int, int | None], None]
"""Called as ``progress(images_decoded, images_in_all)``; the second is None where it is not known beforehand."""


@dataclass(frozen=True)
class Request:
    """Arguments of a loader; see :func:`load`.

    Example:
        >>> from pymixunlearn import data
        >>> data.Request("noise", None, download=False, image_size=32, progress=None).resize_from(8)
        32
    """

    name: str
    data_dir: Path | None
    download: bool
    image_size: int | None
    progress: Progress | None
    stream: bool | None = None
    follow_links: bool = False
    skip_unreadable: bool = False
    reference: str = ""
    id_column: str | None = None
    preprocess: Preprocess | None = None
    source: str | None = None

    @property
    def limit(self) -> Limit:
        """How image files are resized when they are decoded."""
        geometry = None if self.preprocess is None else self.preprocess.geometry
        return self.image_size if geometry is None else geometry

    def resize_from(self, stored: int) -> int | None:
        """Return the side to resize images of side ``stored`` to; None where ``image_size`` is that or not given."""
        return None if self.image_size == stored else self.image_size


Loader = Callable[[Request], Dataset]
_LOADERS: dict[str, Loader] = {}
_STREAMING: set[str] = set()
_SOURCES: dict[str, Loader] = {}


def register_source(kind: str) -> Callable[[Loader], Loader]:
    """Register the loader of a kind of :class:`Specification` that is no name."""

    def add(loader: Loader) -> Loader:
        _SOURCES[kind] = loader
        return loader

    return add


def register(name: str, *, streams: bool = False) -> Callable[[Loader], Loader]:
    """Register a loader as ``name``; ``streams`` says that it uses ``Request.stream``.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> @data.register("noise")
        ... def load_noise(request):
        ...     images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
        ...     return data.from_tensors(images, labels, images, labels, name=request.name)
        >>> len(data.load("noise").train)
        20
    """

    def add(loader: Loader) -> Loader:
        _LOADERS[name] = loader
        if streams:
            _STREAMING.add(name)
        return loader

    return add


def loader_of(name: str) -> Loader:
    """Return the loader of a registered data set."""
    return _LOADERS[name]


def available() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, sorted.

    Example:
        >>> from pymixunlearn import data
        >>> "digits" in data.available()
        True
    """
    return tuple(sorted(_LOADERS))


def load(
    name: str,
    *,
    data_dir: Path | str | None = None,
    download: bool = True,
    image_size: int | None = None,
    progress: Progress | None = None,
    stream: bool | None = None,
    follow_links: bool = False,
    skip_unreadable: bool = False,
    validation: float | str | None = None,
    classes: Sequence[str] | None = None,
    id_column: str | None = None,
    preprocess: Preprocess | None = None,
) -> Dataset:
    """Load a data set by its specification.

    Args:
        name: One of :func:`available`; an existing folder or archive of images, or a table beside its images (``.csv``,
            ``.parquet``), which win over a name (``./`` forces a path); ``hf:NAME`` or ``hf:FOLDER``;
            ``package.module:factory`` or ``file.py:factory``, which runs that code. ``SPEC@COUNT`` takes a random part
            of the training images, always the same one, and the whole test set; the images that it leaves out, at most
            20 000, are the validation set unless the data have one of their own.
        data_dir: Folder of its files, or to download them to; None for the per-user cache folder. For
            ``imagefolder``: the folder or the .tar, .tar.gz or .zip archive itself.
        download: Whether missing files may be downloaded, through torchvision.
        image_size: Side of the network's input in pixels; None for the data set's own. 224 gives the paper's
            preprocessing for ``cifar10`` and ``svhn``.
        progress: Called as the images of an ``imagefolder`` are decoded.
        follow_links: Whether symbolic links of an ``imagefolder`` may lead out of it.
        skip_unreadable: Whether images of an ``imagefolder`` that cannot be read are left out and counted in
            ``Dataset.notes``; otherwise they are an error that names them.
        stream: Whether the images of an ``imagefolder`` stay in the file that they are decoded into, and are read batch
            by batch; None does so above 4 GiB (``streamed.IN_MEMORY_LIMIT``). The other data sets are small.
        validation: Share of the training images, above 0 and below 1, to take out as the validation set, class by
            class and by a hash of their paths where they have some; "none" leaves the data without a validation set.
        classes: All classes in their order, so that one whose last image is gone keeps its place; None takes those of
            the data.
        preprocess: How images become inputs, where a model says it; None for the data set's own, at ``image_size``.
        id_column: For tables and ``hf:``, the column of the images' ids; None takes a table's column "id", if any.

    Returns:
        The whole data set in memory, on the CPU, unless it is streamed.

    Raises:
        UserError: An unknown name, a part that is empty or larger than the whole, files that are missing, corrupt or
            cannot be downloaded, or an option for a data set that it does not apply to.

    Example:
        >>> from pymixunlearn import data
        >>> digits = data.load("digits")
        >>> len(digits.train), len(digits.test), digits.num_classes
        (1438, 359, 10)
    """
    found = specification(name, data_dir)
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1, got {image_size}")
    streams = found.kind != "name" or found.text in _STREAMING
    if stream and not streams:
        raise UserError(
            f"stream is set for '{found.text}', which is always held in memory; expected it for images in files only"
        )
    for option, value in (("follow_links", follow_links), ("skip_unreadable", skip_unreadable)):
        if value and not streams:
            raise UserError(
                f"{option} is set for '{found.text}', which has no image files; expected it for images in files only"
            )
    if data_dir is not None and found.kind != "name":
        raise UserError(
            f"data_dir is '{data_dir}' beside the dataset '{name}', which says itself where it is; expected one of them"
        )
    if id_column is not None and found.kind not in ("table", "hub"):
        raise UserError(f"id_column is '{id_column}', but '{name}' has no columns; expected a table or hf: data")
    folder = found.path if data_dir is None else Path(data_dir).expanduser()
    loader = _LOADERS[found.text] if found.kind == "name" else _SOURCES[found.kind]
    called = f"{found.name}-folder" if found.kind != "name" and found.name in _LOADERS else found.name
    source = source_of(name, data_dir)
    whole = loader(
        Request(
            called,
            folder,
            download,
            image_size,
            progress,
            stream,
            follow_links,
            skip_unreadable,
            reference=found.text,
            id_column=id_column,
            preprocess=preprocess,
            source=source,
        )
    )
    whole = replace(whole, source=source)
    if preprocess is not None:
        whole = replace(whole, preprocess=preprocess.for_channels(whole.in_channels))
    if classes is not None:
        whole = with_classes(whole, classes)
    whole = with_validation(whole, validation)
    # Once more: what a part leaves out is no validation set where none is wanted.
    return whole if found.count is None else with_none(part_of(whole, found.count), validation)


def source_of(name: str, data_dir: Path | str | None = None) -> str:
    """Return ``Dataset.source`` of the data set that :func:`load` loads: the same for all its parts.

    Raises:
        UserError: There is no such data set.
    """
    found = specification(name, data_dir)
    folder = found.path if data_dir is None else Path(data_dir).expanduser()
    if folder is not None and (found.kind != "name" or found.text in _STREAMING):
        return str(folder.resolve())
    return replace(found, count=None).absolute()


def specification(text: str, data_dir: Path | str | None = None) -> Specification:
    """Read the specification of a data set; see :func:`load`.

    Raises:
        UserError: There is no such data set.
    """
    return parse_specification(text, _LOADERS, by_name=data_dir is not None)
