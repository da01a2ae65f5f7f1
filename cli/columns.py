"""Plain tables and paragraphs of a fixed width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

WIDTH = 80
_WHOLE = re.compile(r"pip install '[^']*'|'mixunlearn-cli [^']*'")
_UNBREAKABLE = "\N{NO-BREAK SPACE}"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, fold: int = 0) -> Iterator[str]:
    """Yield a table's lines; cells of the column ``fold`` are folded where the lines would be longer than the width.

    Columns up to ``fold`` are aligned at the left, those behind it at the right.
    """
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    room = WIDTH - 2 * len(heading) - sum(width for column, width in enumerate(widths) if column != fold)
    widths[fold] = min(widths[fold], max(8, room))
    for row in (heading, *rows):
        parts = textwrap.wrap(row[fold], widths[fold], break_on_hyphens=False) or [""]
        for number, part in enumerate(parts):
            cells = [part if column == fold else cell if number == 0 else "" for column, cell in enumerate(row)]
            aligned = [
                cell.ljust(width) if column <= fold else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            yield f"  {'  '.join(aligned)}".rstrip()


def paragraph(text: str, indent: str = "", hanging: int = 2, width: int = WIDTH) -> list[str]:
    """Return the lines of a text, those after the first ``hanging`` further in.

    Words and paths are never divided, nor are commands, which are there to be copied.
    """
    lines = textwrap.wrap(
        _WHOLE.sub(lambda found: found[0].replace(" ", _UNBREAKABLE), text),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}{' ' * hanging}",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_UNBREAKABLE, " ") for line in lines]
