"""Fixtures for pictures of runs: drawing them takes seconds, and few tests look at any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn import files
from pymixunlearn.experiments.unlearn.figures import Figures

_save = Figures.save


def _draw_nothing(self: Figures, folder: Path, **options: Any) -> None:
    files.write_atomically(folder / "losses.svg", b"<svg/>")


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Runs draw one empty picture, unless a test has the fixture ``pictures``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figures, "save", _draw_nothing)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the test draw all of their pictures."""
    monkeypatch.setattr(Figures, "save", _save)
