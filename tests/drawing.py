"""Pictures of runs: drawing them takes seconds, and few tests look at any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn import files
from pymixunlearn.experiments.unlearn.figures import Figures

_save = Figures.save


def _draw_nothing(self: Figures, folder: Path, **options: Any) -> None:
    files.write_atomically(folder / "losses.svg", b"<svg/>")


@contextmanager
def without_pictures() -> Iterator[None]:
    """Let runs in the block save one empty picture in the place of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figures, "save", _draw_nothing)
        yield


@contextmanager
def with_pictures() -> Iterator[None]:
    """Let runs in the block draw, inside of :func:`without_pictures` too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figures, "save", _save)
        yield
