"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pymixunlearn.data.dataset import Dataset, part_of
from pymixunlearn.errors import UserError, unknown_name

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

    def resize_from(self, stored: int) -> int | None:
        """Return the side to resize images of side ``stored`` to; None where ``image_size`` is that or not given."""
        return None if self.image_size == stored else self.image_size


Loader = Callable[[Request], Dataset]
_LOADERS: dict[str, Loader] = {}
_STREAMING: set[str] = set()


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
) -> Dataset:
    """Load a data set by name.

    Args:
        name: One of :func:`available`; ``NAME@COUNT`` takes a random part of the training images, always the same
            one, and the whole test set; the images that it leaves out, at most 20 000, are the validation set.
        data_dir: Folder of its files, or to download them to; None for the per-user cache folder. For
            ``imagefolder``: the folder or the .tar, .tar.gz archive itself.
        download: Whether missing files may be downloaded, through torchvision.
        image_size: Side of the network's input in pixels; None for the data set's own. 224 gives the paper's
            preprocessing for ``cifar10`` and ``svhn``.
        progress: Called as the images of an ``imagefolder`` are decoded.
        follow_links: Whether symbolic links of an ``imagefolder`` may lead out of it.
        skip_unreadable: Whether images of an ``imagefolder`` that cannot be read are left out and counted in
            ``Dataset.notes``; otherwise they are an error that names them.
        stream: Whether the images of an ``imagefolder`` stay in the file that they are decoded into, and are read batch
            by batch; None does so above 4 GiB (``streamed.IN_MEMORY_LIMIT``). The other data sets are small.

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
    base, count = split_name(name)
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1, got {image_size}")
    if stream and base not in _STREAMING:
        raise UserError(f"stream is set for '{base}', which is always held in memory; expected it for imagefolder only")
    for option, value in (("follow_links", follow_links), ("skip_unreadable", skip_unreadable)):
        if value and base not in _STREAMING:
            raise UserError(f"{option} is set for '{base}', which has no image files; expected it for imagefolder only")
    folder = None if data_dir is None else Path(data_dir).expanduser()
    whole = _LOADERS[base](Request(base, folder, download, image_size, progress, stream, follow_links, skip_unreadable))
    return whole if count is None else part_of(whole, count)


def split_name(name: str) -> tuple[str, int | None]:
    """Return the data set in ``name`` and, for ``NAME@COUNT``, the number of training images.

    Raises:
        UserError: No such data set, or not a number of images.
    """
    base, at, count = name.partition("@")
    if base not in _LOADERS:
        raise unknown_name("dataset", base, _LOADERS)
    if not at:
        return base, None
    if not count.isascii() or not count.isdigit():
        raise UserError(f"dataset is '{name}'; expected a whole number of training images behind the @")
    return base, int(count)
