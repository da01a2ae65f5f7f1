"""Downloads through torchvision, which has the addresses and checksums of the data sets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pymixunlearn.data.cache import cache_dir
from pymixunlearn.data.optional import require
from pymixunlearn.data.registry import Request
from pymixunlearn.errors import UserError


def root_of(request: Request) -> Path:
    """Return the folder that holds, or will hold, the files of a data set."""
    return cache_dir() / "datasets" if request.data_dir is None else request.data_dir


def find_or_download(
    request: Request, find: Callable[[Path], Path | None], expected: str, fetch: Callable[[Any, Path], object]
) -> Path:
    """Return what ``find`` finds in the data folder, downloading the data set first if it is missing.

    Args:
        request: Arguments of the loader.
        find: Gives the path of complete data below a folder, or None.
        expected: What should have been found, for the error message.
        fetch: Downloads with ``torchvision.datasets``, its first argument, into the folder that is its second.

    Raises:
        UserError: Nothing was found, and downloading was not allowed or failed.
    """
    root = root_of(request)
    found = find(root)
    if found is None:
        missing = f"'{root}' does not hold the dataset '{request.name}': expected {expected}"
        if not request.download:
            raise UserError(f"{missing}; allow the download, or pass the folder that has them as data_dir")
        _download(root, missing, fetch)
        found = find(root)
        if found is None:
            raise UserError(f"{missing}; the download did not bring them")
    return found


def _download(root: Path, missing: str, fetch: Callable[[Any, Path], object]) -> None:
    datasets = require(
        "torchvision.datasets",
        purpose=f"{missing}; the download",
        remedy="install the torchvision that fits the installed torch",
    )
    existed = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        # What is interrupted must not look like data: files get their final names only when all of them are there.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            fetch(datasets, Path(folder))
            for source in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                target = root / source.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
    except (OSError, RuntimeError, HTTPException) as error:
        if not existed:
            with suppress(OSError):  # left alone if something else has been put there meanwhile
                root.rmdir()
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{missing}; downloading them failed ({reason})") from error
