"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.errors import UserError, unknown_name

Progress = Callable[[int, int | None], None]
"""Called as ``progress(images_decoded, images_in_all)``; the second is None where it is not known beforehand."""


@dataclass(frozen=True)
class Request:
    """What a loader is asked for; see :func:`load`."""

    name: str
    data_dir: Path | None
    download: bool
    image_size: int | None
    progress: Progress | None
    stream: bool | None = None

    def resize_from(self, stored: int) -> int | None:
        """Return the size to bring images of side ``stored`` to: None when that is the one asked for, or none was."""
        return None if self.image_size == stored else self.image_size


Loader = Callable[[Request], Dataset]
_LOADERS: dict[str, Loader] = {}
_STREAMING: set[str] = set()


def register(name: str, *, streams: bool = False) -> Callable[[Loader], Loader]:
    """Make a loader known as ``name``; ``streams`` says that it heeds ``Request.stream``."""

    def add(loader: Loader) -> Loader:
        _LOADERS[name] = loader
        if streams:
            _STREAMING.add(name)
        return loader

    return add


def available() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, sorted."""
    return tuple(sorted(_LOADERS))


def load(
    name: str,
    *,
    data_dir: Path | str | None = None,
    download: bool = True,
    image_size: int | None = None,
    progress: Progress | None = None,
    stream: bool | None = None,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: One of :func:`available`.
        data_dir: Where its files are, or where to download them to; None for the per-user cache folder. For
            ``imagefolder``: the folder or the .tar, .tar.gz archive itself.
        download: Whether missing files may be downloaded, through torchvision.
        image_size: Side of the network's input in pixels; None for the data set's own. 224 gives the paper's
            preprocessing for ``cifar10`` and ``svhn``.
        progress: Told how far the decoding of an ``imagefolder`` has come.
        stream: Whether the images of an ``imagefolder`` stay in the file that they are decoded into, and are read batch
            by batch; None does so above 4 GiB (``streamed.IN_MEMORY_LIMIT``). The other data sets are small.

    Returns:
        The whole data set in memory, on the CPU, unless it is streamed.

    Raises:
        UserError: An unknown name, files that are missing, corrupt or cannot be downloaded, or ``stream`` for a data
            set that is always held in memory.
    """
    if name not in _LOADERS:
        raise unknown_name("dataset", name, _LOADERS)
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1, got {image_size}")
    if stream and name not in _STREAMING:
        raise UserError(f"stream is set for '{name}', which is always held in memory; expected it for imagefolder only")
    folder = None if data_dir is None else Path(data_dir).expanduser()
    return _LOADERS[name](Request(name, folder, download, image_size, progress, stream))
