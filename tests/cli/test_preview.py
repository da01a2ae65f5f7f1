"""``unlearn --dry-run`` on the screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from mixunlearn_cli.columns import table
from mixunlearn_cli.preview import _time

Invoke = Callable[..., Result]


def test_it_says_what_and_how_long_in_80_columns_and_writes_nothing(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A cache in which nobody else has trained the network.
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
    Path("list.txt").write_text("3, 14\n159\n")
    result = invoke("unlearn", "--dry-run", "--device", "cpu", "--forget", "list.txt", "--stop", "auto")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    shown = lines[lines.index("To be forgotten:") :]
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    assert "  3            1  of 146" in text and "To remain: 1435 training samples (D_r), 359 test images." in text
    for phase in ("initial", "unlearn", "retrain", "evaluation"):
        assert any(line.startswith(f"  {phase} ") for line in shown)
    assert "train cnn on all, 10 epochs" in text and "mixunlearn, at most 20 epochs" in text
    assert "Retrain, for comparison: " in text
    assert "Estimate, from a few steps of each training" in text and "at most" in text and "Memory: " in text
    assert "nothing was written" in " ".join(text.split())
    assert [path.name for path in Path().iterdir()] == ["list.txt"]


def test_a_long_name_is_folded_and_times_have_no_more_digits_than_they_are_worth() -> None:
    lines = list(table(("phase", "work", "steps", "time"), [("initial", "word " * 40, "450", "3 min")], fold=1))
    assert max(map(len, lines)) <= 80 and len(lines) > 3 and "".join(lines).count("word") == 40
    assert [_time(seconds) for seconds in (None, 0.0, 0.4, 12.3, 99.4, 600.0, 9000.0, 1e6)] == [
        "?", "0 s", "< 1 s", "12 s", "99 s", "10 min", "2 h 30 min", "11.6 days"
    ]  # fmt: skip
