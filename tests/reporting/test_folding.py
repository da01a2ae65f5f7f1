from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from pymixunlearn.reporting.folding import FoldingTable

NAMES = ("unlearned", "gap |unlearned - Retrain|", "Retrain")
NUMBERS = [[f"{10 * row + column}.{column:02d}" for column in range(9)] for row in range(3)]


def table(plain: bool = True, names: int = 1) -> FoldingTable:
    made = FoldingTable(
        *["", "what"][:names], *(f"metric {column}" for column in range(9)), names=names, title="Title", plain=plain
    )
    for name, cells in zip(NAMES, NUMBERS, strict=True):
        made.add_row(
            *[name, "a long explanation"][:names],
            *cells[:-1],
            Text(cells[-1]),
            style="bold" if name == NAMES[1] else None,
        )
    return made


def printed(shown: FoldingTable, width: int, **options: bool) -> list[str]:
    stream = StringIO()
    Console(file=stream, width=width, color_system=None, **options).print(shown)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("names", [1, 2])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("width", [20, 24, 30, 40, 60, 80, 100, 119, 120, 200])
def test_every_number_stands_whole_in_any_width(width: int, plain: bool, names: int) -> None:
    lines = printed(table(plain, names), width)
    assert max(map(len, lines)) <= max(width, 30 if names == 2 else 20)
    words = " ".join(lines).replace("|", " ").split()
    for cells in NUMBERS:
        for cell in cells:
            assert words.count(cell) == 1
    assert "…" not in "".join(lines)


def test_a_wide_terminal_shows_one_table() -> None:
    lines = printed(table(), 200)
    assert sum("unlearned" in line for line in lines) == 2 and lines[0].startswith("Title")


@pytest.mark.parametrize("plain", [True, False])
def test_names_wrap_first_and_columns_fold_when_that_is_not_enough(plain: bool) -> None:
    def shown(width: int) -> tuple[bool, bool]:
        lines = printed(table(plain), width)
        one_table = any("metric 0" in line and "metric 8" in line for line in lines)
        return one_table, any(NAMES[1] in line for line in lines)

    numbers = 9 * (len("metric 0") + 3) + 1
    assert shown(numbers + len(NAMES[1]) + 3) == (True, True)
    assert shown(numbers + len(NAMES[1]) + 2) == (True, False)
    longest_word = len("|unlearned")
    assert shown(numbers + longest_word + 3) == (True, False)
    assert not shown(numbers + longest_word + 2)[0]


def test_rows_keep_their_names_order_and_style() -> None:
    lines = printed(table(), 80)
    parts = [line for line in lines if line.startswith("| Retrain")]
    assert len(parts) == 2 and "20.00" in parts[0] and "28.08" in parts[1]
    assert sum(line.startswith("Title") for line in lines) == 1
    stream = StringIO()
    Console(file=stream, width=80, force_terminal=True).print(table(plain=False))
    bold = [
        line for line in stream.getvalue().splitlines() if "\x1b[1m" in line and ("10.00" in line or "16.06" in line)
    ]
    assert len(bold) == 2


@pytest.mark.parametrize("width", [40, 60, 79, 80, 81, 100])
def test_a_name_wraps_between_its_words(width: int) -> None:
    words = " ".join(printed(table(plain=False), width)).split()
    assert {"unlearned", "|unlearned", "Retrain", "Retrain|"} <= set(words)
