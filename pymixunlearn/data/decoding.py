"""Decoding of many image files: in parallel, with progress, into one file that later calls find again."""

from __future__ import annotations

import hashlib
import math
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pymixunlearn.cores import usable_cores
from pymixunlearn.data.cache import cache_dir
from pymixunlearn.data.cache_origin import note_origin
from pymixunlearn.data.decode import Limit, common_shape, decode_square, fitted, quiet_decoding
from pymixunlearn.data.image_file import Hashed, MappedImages, hashed, map_images, write_images
from pymixunlearn.data.listing import FILE_LIMIT, Member
from pymixunlearn.data.spool import Spool, open_spool
from pymixunlearn.data.streamed import IN_MEMORY_LIMIT
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

if TYPE_CHECKING:
    from pymixunlearn.data.registry import Request

_FORMAT = "planes"  # changes with the form of what is stored
_NAMED = 20
_AHEAD = 4
"""Images for each thread that are read or wait for their place."""


@dataclass(frozen=True)
class Files:
    """Image files that are to be decoded.

    Attributes:
        where: What they are the files of, in quotation marks, for messages.
        key: Text that changes whenever the decoded images might, apart from what was requested.
        members: Yields each file, in any order.
        total: How many there are, None where it is not known beforehand.
        shown: Returns how a message names a file.
        finished: Called with the names of all that were decoded; returns sentence parts on what was left out.
    """

    where: str
    key: str
    members: Callable[[], Iterator[Member]]
    total: int | None
    shown: Callable[[str], str]
    finished: Callable[[list[str]], list[str]]


def decode_files(files: Files, request: Request) -> MappedImages:
    """Decode files into the cache, or find what an earlier call decoded; an interrupted call goes on where it stopped.

    Args:
        files: The files.
        request: The size, whether files that cannot be read may be left out, and the progress.

    Returns:
        Images by ascending name; ``details`` are sentence parts on what was left out.

    Raises:
        UserError: Files cannot be read and may not be skipped; all of these are named. Or there are none.
        OSError: Images that are to be streamed can be written nowhere.
    """
    folder = cache_dir()
    options = f"{request.limit} {request.skip_unreadable}"
    cached = folder / "images" / f"{_digest(f'{options} {files.key}')}.safetensors"
    found = map_images(cached)
    if found is not None:
        note_origin(cached, {"source": request.source})
        return found
    if cached.exists():
        warnings.warn(f"the cached images of {files.where} are damaged and are decoded again", stacklevel=6)
    with ExitStack() as stack:
        place = folder / "decoding"
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # A disk that is full or read-only costs time later but is no reason to fail now.
            warnings.warn(f"the decoded images could not be cached in '{folder}' ({error})", stacklevel=6)
            temporary = tempfile.TemporaryDirectory(prefix="pymixunlearn-", ignore_cleanup_errors=True)
            place = Path(stack.enter_context(temporary))
        unfinished = place / _digest(f"{request.limit} {files.key}")
        note_origin(unfinished / "images", {"source": request.source})
        spool = stack.enter_context(open_spool(unfinished))
        found = map_images(cached)  # another process may have been at it
        if found is not None:
            return found
        names, notes = _decode(files, request, spool)
        written = _write(spool, names, notes, cached, request)
        if cached.is_file():
            note_origin(cached, {"source": request.source})
        return written


def _write(spool: Spool, names: list[str], notes: list[str], cached: Path, request: Request) -> MappedImages:
    """Write decoded images to the cache and map them; without a cache, map a temporary file, or none if memory can do.

    Raises:
        OSError: Images that are to be streamed can be written nowhere.
    """
    size = common_shape((spool.entries[spool.rows[name]].shape for name in names), request.limit)
    shape = (len(names), *size)

    def images() -> Iterator[Hashed]:
        return (refitted(spool.read(name), size, request.limit) for name in names)

    def write(path: Path) -> MappedImages | None:
        write_images(path, images(), shape, names, notes)
        return map_images(path)

    try:
        found = spool.publish(cached, shape, names, notes) or write(cached)
    except OSError as error:
        warnings.warn(f"the decoded images could not be cached in '{cached.parent}' ({error})", stacklevel=7)
        found = None
        if streams(request, math.prod(shape)):
            # Once mapped, the file needs no name; where it cannot be removed, the system's cleaning does.
            with tempfile.TemporaryDirectory(prefix="pymixunlearn-", ignore_cleanup_errors=True) as folder:
                found = write(Path(folder) / cached.name)
    return found or MappedImages(torch.from_numpy(np.stack([image.pixels for image in images()])), names, notes)


def refitted(image: Hashed, shape: tuple[int, int, int], limit: Limit) -> Hashed:
    """Return an image of the common shape; the hash of one that has it already stands, to be checked in its file."""
    return image if image.pixels.shape == shape else hashed(fitted(image.pixels, shape, limit))


def streams(request: Request, size: int) -> bool:
    """Return whether images of ``size`` bytes stay in their file."""
    return size > IN_MEMORY_LIMIT if request.stream is None else request.stream


def _decode(files: Files, request: Request, spool: Spool) -> tuple[list[str], list[str]]:
    """Decode all files into ``spool``; return their names in ascending order, and notes.

    Raises:
        UserError: There are none, or some cannot be read and may not be skipped; all of these are named. Or the disk
            is full.
    """
    names: dict[str, None] = {}  # of two files of one name in an archive, the later counts
    unreadable: list[str] = []
    done = 0

    def take(member: Member, image: Future[Hashed] | None) -> None:
        nonlocal done
        name = str(member.path)
        try:
            decoded = None if image is None else image.result()
            _check_link(spool, member, name)
        except (UserError, OSError) as error:
            unreadable.append(f"{files.shown(name)} {error}")
        else:
            _add(spool, member, name, decoded)
            names[name] = None
        done += 1
        if request.progress is not None:
            request.progress(done, files.total)

    workers = usable_cores()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[tuple[Member, Future[Hashed] | None]] = deque()
    before = set(spool.rows)  # of an earlier, interrupted call
    try:
        with quiet_decoding():
            for member in files.members():
                ready = member.link is not None or str(member.path) in before
                before.discard(str(member.path))
                image = None if ready else pool.submit(_decode_member, member, request.limit)
                waiting.append((member, image))
                while waiting and (len(waiting) > _AHEAD * workers or (waiting[0][1] or _DONE).done()):
                    take(*waiting.popleft())
            while waiting:
                take(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
    if unreadable and not request.skip_unreadable:
        more = f"; and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        raise UserError(
            f"{'; '.join(unreadable[:_NAMED])}{more} ({len(unreadable)} of {len(names) + len(unreadable)} images; "
            "skip_unreadable, or --skip-unreadable, leaves them out)"
        )
    notes = files.finished(list(names))
    if unreadable:
        notes.append(f"{len(unreadable)} images that cannot be read: {'; '.join(unreadable[:_NAMED])}")
    return by_path(names), notes


_DONE: Future[Hashed] = Future()
_DONE.cancel()


def by_path(names: Iterable[str]) -> list[str]:
    """Return names in the order of their paths, folder by folder: that of a folder and of any archive of it."""
    return sorted(names, key=lambda name: name.split("/"))


def _decode_member(member: Member, limit: Limit) -> Hashed:
    """Read, decode and hash one file; what a thread of the pool runs.

    Raises:
        UserError: It cannot be decoded, or is too large to be read.
        OSError: The file cannot be read.
    """
    if member.size > FILE_LIMIT:
        raise UserError(f"has {member.size} bytes; expected at most {FILE_LIMIT}")
    return hashed(decode_square(member.read(), limit))


def _check_link(spool: Spool, member: Member, name: str) -> None:
    """Check that a hard link of an archive is one to an image before it.

    Raises:
        UserError: It is not.
    """
    if member.link is not None and name not in spool.rows and str(member.link) not in spool.rows:
        raise UserError(f"is a link to '{printable(str(member.link))}', which is no image before it in the archive")


def _add(spool: Spool, member: Member, name: str, image: Hashed | None) -> None:
    """Keep an image.

    Raises:
        UserError: There is no room for it, which says nothing of the image.
    """
    try:
        if image is not None:
            spool.add(name, image)
        elif member.link is not None and name not in spool.rows:
            spool.repeat(name, str(member.link))
    except OSError as error:
        raise UserError(
            f"decoded images cannot be written to '{spool.folder}': {error.strerror}; what is decoded stays there, and "
            "the next call goes on"
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(f"{_FORMAT} {text}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
