"""Files that are either complete or absent, and hashes that tell whether they are what was written."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it becomes ``path`` when the block ends without an error.

    Readers, also after a crash, see the old file or the new one, never a part of it, also with several writers at once.
    Missing parent folders are created.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename is only atomic within one file system.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # before the rename: otherwise a power cut may leave the name without the content
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
