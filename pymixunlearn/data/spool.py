"""Decoded images of different sizes in a file, one after the other, so that an interrupted decoding can go on."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from pymixunlearn.data.image_file import START, Hashed, MappedImages, finish_images, hashed, map_images

_PIXELS, _INDEX = "pixels", "index"
_FLUSHED = 64
_STALE_SECONDS = 7 * 24 * 3600


class _Entry(NamedTuple):
    start: int
    shape: tuple[int, ...]
    sha256: bytes


class Spool:
    """Images in a folder that only grows: a file of pixels, and a line for each image with its place and hash.

    The file of pixels has room for the header of a file of images before them.

    Args:
        folder: Of an earlier, interrupted decoding, or a new one. What is not as it was written is cut off.

    Attributes:
        folder: As given.
        rows: The number of each image by its name.
        entries: Where each image is.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: dict[str, int] = {}
        self.entries: list[_Entry] = []
        self._path = pixels = folder / _PIXELS
        index = folder / _INDEX
        end, lines = self._resume(pixels, index)
        self._pixels = pixels.open("r+b" if pixels.exists() else "w+b")
        self._pixels.truncate(end)
        self._end = end
        index.write_text("".join(lines), "utf-8")
        self._index = index.open("a", encoding="utf-8")
        self._written: list[str] = []

    def add(self, name: str, image: Hashed) -> None:
        """Append an image of :func:`~pymixunlearn.data.decode.decode_square`."""
        self._pixels.seek(self._end)
        self._pixels.write(image.pixels.data)
        self._append(name, _Entry(self._end, image.pixels.shape, image.sha256))
        self._end += image.pixels.nbytes

    def repeat(self, name: str, of: str) -> None:
        """Add the image ``of`` once more, for a hard link of an archive."""
        self._append(name, self.entries[self.rows[of]])

    def read(self, name: str) -> Hashed:
        """Return an image, with the hash that it had when it was added."""
        entry = self.entries[self.rows[name]]
        self._pixels.seek(entry.start)
        content = self._pixels.read(math.prod(entry.shape))
        return Hashed(np.frombuffer(content, np.uint8).reshape(entry.shape), entry.sha256)

    def publish(self, path: Path, shape: tuple[int, ...], names: list[str], details: Any) -> MappedImages | None:
        """Make ``path`` of the file itself, which saves copying it, where it has just the images that are wanted.

        Args:
            path: A file of :mod:`~pymixunlearn.data.image_file`.
            shape: (N, C, H, W).
            names: Of the images that are wanted, in their order.
            details: Anything JSON-able to save with them.

        Returns:
            The images; None where others are wanted, or in another order, and nothing was done.

        Raises:
            OSError: It cannot be moved there.
        """
        size = math.prod(shape[1:])
        wanted = [(START + number * size, shape[1:]) for number in range(len(names))]
        if list(self.rows) != names or [(entry.start, entry.shape) for entry in self.entries] != wanted:
            return None
        finish_images(self._pixels, (entry.sha256 for entry in self.entries), shape, names, details)
        self._pixels.flush()
        found = map_images(self._path)
        if found is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._path, path)
        return found

    def close(self) -> None:
        """Write what is still in memory."""
        with ExitStack() as stack:
            stack.callback(self._index.close)
            stack.callback(self._pixels.close)
            self._flush()

    def _append(self, name: str, entry: _Entry) -> None:
        self.rows[name] = len(self.entries)
        self.entries.append(entry)
        self._written.append(_line(name, entry))
        if len(self._written) >= _FLUSHED:
            self._flush()

    def _flush(self) -> None:
        self._pixels.flush()  # before the lines that speak of it
        self._index.write("".join(self._written))
        self._index.flush()
        self._written.clear()

    def _resume(self, pixels: Path, index: Path) -> tuple[int, list[str]]:
        """Take up the images that are as they were written; return where they end, and their lines."""
        end, kept = START, list[str]()
        if not (pixels.is_file() and index.is_file()):
            return end, kept
        with pixels.open("rb") as file:
            for line in index.read_bytes().splitlines():
                try:
                    name, start, shape, digest = json.loads(line)
                    entry = _Entry(int(start), tuple(map(int, shape)), bytes.fromhex(digest))
                    file.seek(entry.start)
                    content = file.read(math.prod(entry.shape))
                    image = hashed(np.frombuffer(content, np.uint8).reshape(entry.shape))
                except (ValueError, TypeError, OSError):
                    break
                if entry.start > end or image.sha256 != entry.sha256:
                    break
                self.rows[str(name)] = len(self.entries)
                self.entries.append(entry)
                kept.append(_line(str(name), entry))
                end = max(end, entry.start + len(content))
        return end, kept


@contextmanager
def open_spool(folder: Path) -> Iterator[Spool]:
    """Open the spool of a decoding; another process that wants the same one waits.

    The folder stays for the next attempt if the block fails or is interrupted, and goes otherwise. So do those of
    decodings that nobody has gone on with for a week.

    Raises:
        OSError: It cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        for other in folder.parent.iterdir():
            with suppress(FileNotFoundError):  # another process may remove it at the same time
                if other.is_dir() and other != folder and time.time() - other.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)
        spool = Spool(folder)
        try:
            yield spool
        except BaseException:
            with suppress(OSError):  # the disk is full: that is told already
                spool.close()
            raise
        spool.close()
        shutil.rmtree(folder, ignore_errors=True)


def _line(name: str, entry: _Entry) -> str:
    return json.dumps([name, entry.start, list(entry.shape), entry.sha256.hex()]) + "\n"
