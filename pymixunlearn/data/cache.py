"""Where downloads and decoded images are kept, and how files are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for what can be fetched or computed again (it may not exist yet).

    ``$PYMIXUNLEARN_CACHE`` if set, else ``$XDG_CACHE_HOME/pymixunlearn``, else ``~/.cache/pymixunlearn``.
    """
    chosen = os.environ.get("PYMIXUNLEARN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return base / "pymixunlearn"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it becomes ``path`` when the block ends without an error.

    Readers see the old file or the new one, never a part of it, also with several writers at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
