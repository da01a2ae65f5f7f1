"""Lines of progress away from a terminal."""

from __future__ import annotations

import io

from mixunlearn_cli.progress import _Lines
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
