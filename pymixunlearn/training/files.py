"""Files that are either complete or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pymixunlearn.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that readers, and crashes, see the old file or the new one and nothing between.

    Missing parent folders are created.

    Raises:
        UserError: The path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder: a rename is only atomic within one file system.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's mask for new files: mkstemp ignores it and makes everything private."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
