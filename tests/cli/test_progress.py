"""Lines of progress away from a terminal."""

from __future__ import annotations

import io
import sys

import pytest
from mixunlearn_cli.progress import _Lines, make_console, tell
from rich.console import Console


def test_a_long_line_is_wrapped_below_its_text() -> None:
    stream = io.StringIO()
    lines = _Lines(Console(file=stream, width=120, color_system=None, force_terminal=False))
    refused = ", ".join(f"share 0.{share} refused" for share in (95, 98, 99))
    lines.phase_finished("unlearn", f"prune-reset, 98.7 s, {refused}, so Retrain")
    shown = stream.getvalue().splitlines()
    assert len(shown) == 2 and max(map(len, shown)) <= 80
    assert shown[0].startswith("unlearn    done  prune-reset, 98.7 s, share 0.95 refused,")
    assert shown[1].startswith(" " * 11) and " ".join(shown[1].split()).endswith("so Retrain")


@pytest.mark.parametrize(("columns", "width"), [(None, 80), ("", 80), ("132", 132), ("0", 80), ("wide", 80)])
def test_away_from_a_terminal_tables_have_80_columns_or_what_columns_says(
    columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width == width


def test_sentences_are_wrapped_between_words_and_paths_stay_whole() -> None:
    stream, path = io.StringIO(), "a/" * 50
    tell(Console(file=stream, width=132, color_system=None), f"Some {'words ' * 20}and a path: {path}")
    lines = stream.getvalue().splitlines()
    assert lines[-1] == f"  {path}" and max(map(len, lines[:-1])) <= 80
