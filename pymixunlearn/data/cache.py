"""Folder for downloads and decoded images."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for what can be fetched or computed again (it may not exist yet).

    ``$PYMIXUNLEARN_CACHE`` if set, else ``$XDG_CACHE_HOME/pymixunlearn``, else ``~/.cache/pymixunlearn``; for a user
    without a home folder, a folder among the temporary files.

    Example:
        >>> import os
        >>> from pymixunlearn import data
        >>> os.environ["PYMIXUNLEARN_CACHE"] = "/scratch/pymixunlearn"
        >>> str(data.cache_dir())
        '/scratch/pymixunlearn'
    """
    folder = os.environ.get("PYMIXUNLEARN_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if folder:
            return Path(folder).expanduser()
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    except RuntimeError:  # a user without a home folder, as in many containers
        base = Path(tempfile.gettempdir())
    return base / "pymixunlearn"
