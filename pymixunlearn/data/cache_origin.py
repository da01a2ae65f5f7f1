"""What a cached file was made of, in a small file beside it: so that what was deleted can be found in the cache.

The file has the cached file's name with the suffix ``.about``, and a hash in its first line. It decides nothing but
which files ``mixunlearn-cli cache`` lists and purges: without it a cached file is as good as with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError
from pymixunlearn.files import canonical_json, read_with_hash, write_with_hash

SUFFIX = ".about"


def note_origin(path: Path, origin: Mapping[str, Any]) -> None:
    """Note what the cached file ``path`` is made of, JSON-able, unless that is noted already.

    A cache that cannot be written costs this note and no more.
    """
    if read_origin(path) is None:
        with suppress(UserError, OSError):
            write_with_hash(path.with_suffix(SUFFIX), canonical_json(origin).encode())


def read_origin(path: Path) -> dict[str, Any] | None:
    """Return what :func:`note_origin` noted of ``path``; None where there is no such note, or a damaged one."""
    content = read_with_hash(path.with_suffix(SUFFIX))
    if content is None:
        return None
    with suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return None
