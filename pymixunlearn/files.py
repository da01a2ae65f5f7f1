"""Files that are either complete or absent, and hashes that tell whether they are what was written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pymixunlearn.errors import UserError

if sys.platform != "win32":
    import fcntl

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
"""Names of files while they are written."""
_ABANDONED_SECONDS = 24 * 3600
"""Age of a temporary file that nobody writes any more, where the file system has no locks to ask."""


@contextmanager
def atomic_path(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it becomes ``path`` when the block ends without an error.

    Readers, also after a crash, see the old file or the new one, never a part of it, also with several writers at once.
    Missing parent folders are created.

    Args:
        path: The file.
        lasting: Wait until the disk has it. Without, a power cut may leave the name without the content, which is for
            large files that carry a hash and can be made again.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    # In the same folder: a rename is only atomic within one file system.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _being_written(partial):
            yield partial
            if lasting:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())  # before the rename, so that the name never comes without the content
            os.replace(partial, path)
        if lasting:
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` on disk when this returns; what is renamed later cannot get there before them."""
    if sys.platform == "win32":  # which cannot open folders
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what processes that were killed have left half written in ``folder``; what is being written stays.

    Args:
        folder: The folder itself, none below it; it need not exist.
        name: Only what was to become this file; None means any.
    """
    for entry in folder.glob(".*"):
        if _TEMPORARY.fullmatch(entry.name) and (name is None or entry.stem == f".{name}"):
            with suppress(OSError):  # another process has swept it, or the folder is read-only
                if _is_abandoned(entry):
                    entry.unlink()


@contextmanager
def _being_written(path: Path) -> Iterator[None]:
    """Make a file and hold a lock on it, which ends with this process: by that a sweep knows what is being written."""
    if sys.platform == "win32":  # where an open file cannot be renamed
        yield
        return
    with path.open("xb") as file:
        _lock(file)
        yield


def _lock(file: IO[bytes]) -> bool | None:
    """Lock an open file for as long as it is open: whether it worked, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_abandoned(path: Path) -> bool:
    with path.open("rb") as file:
        free = _lock(file)
    return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS if free is None else free


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` by :func:`atomic_path`.

    Raises:
        UserError: The path cannot be written.
    """
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from error


def write_with_hash(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically, its sha256 in a first line before it.

    Raises:
        UserError: The path cannot be written.
    """
    write_atomically(path, sha256(content).encode() + b"\n" + content)


def read_with_hash(path: Path) -> bytes | None:
    """Return what :func:`write_with_hash` wrote; None where the file is missing or is not what was written."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if digest == sha256(content).encode() else None


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON in the one form that depends on its content alone.

    Raises:
        ValueError: A number is infinite or not a number.

    Example:
        >>> canonical_json({"b": [1, 2.5], "a": None})
        '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_sha256(value: Any) -> str:
    """Return the sha256 of :func:`canonical_json` of ``value``, in hexadecimal."""
    return sha256(canonical_json(value).encode())


def sha256(content: bytes) -> str:
    """Return the sha256 of ``content``, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
