"""Tables that fit the terminal: what is too wide goes on below, and no digit is cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

_NARROWEST = 8
"""So many characters of a row's name stand beside numbers however narrow the terminal is."""


class FoldingTable(Table):
    """Table whose columns go on in further tables below, each with the rows' names, where the terminal is too narrow.

    Args:
        *headings: Of the columns.
        names: How many columns at the left say what a row is; they are repeated, and wrap where they have to.
        title: What stands above the table.
        plain: Use ASCII rules only, for output that is not a terminal.
        justify: How the other columns are aligned.

    Example:
        >>> table = FoldingTable("", "Test_r", "Test_f", plain=True)
        >>> table.add_row("unlearned", "95.98", "0.00")
        >>> Console(width=24).print(table)
        +-----------+--------+
        |           | Test_r |
        +-----------+--------+
        | unlearned |  95.98 |
        +-----------+--------+
        +-----------+--------+
        |           | Test_f |
        +-----------+--------+
        | unlearned |   0.00 |
        +-----------+--------+
    """

    def __init__(
        self,
        *headings: str,
        names: int = 1,
        title: str | None = None,
        plain: bool = False,
        justify: JustifyMethod = "right",
    ) -> None:
        self.names = names
        super().__init__(title=title, title_justify="left", box=box.ASCII2 if plain else box.SIMPLE_HEAD)
        for index, heading in enumerate(headings):
            self.add_column(heading, justify="left" if index < names else justify, no_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or the tables that it is folded into."""
        widths = [self._width(console, options, column) for column in self.columns]
        # Every column has a space on each side, and a rule or another space beside it.
        if sum(widths) + 3 * len(widths) + 1 <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        words = [self._width(console, options, column, words=True) for column in self.columns[: self.names]]
        # Names wrap between words; within one only where a column would have no room beside it.
        room = options.max_width - 1 - sum(width + 3 for width in words)
        if room < max(widths[self.names :]) + 3:
            words = [min(width, _NARROWEST) for width in widths[: self.names]]
            room = options.max_width - 1 - sum(width + 3 for width in words)
        part: list[int] = []
        parts = [part]
        for index in range(self.names, len(widths)):
            if part and sum(widths[other] + 3 for other in (*part, index)) > room:
                part = []
                parts.append(part)
            part.append(index)
        for number, chosen in enumerate(parts):
            yield from self._part(chosen, widths, first=number == 0).__rich_console__(console, options)

    def _width(self, console: Console, options: ConsoleOptions, column: Column, *, words: bool = False) -> int:
        """Return the width of a column's longest cell, or of its longest word."""
        found = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        return max(cell.minimum if words else cell.maximum for cell in found)

    def _part(self, chosen: Sequence[int], widths: Sequence[int], *, first: bool) -> Table:
        """Return a table of the names and the columns ``chosen``; the names wrap, the other cells never do."""
        part = Table(title=self.title if first else None, title_justify="left", box=self.box)
        shown = (*range(self.names), *chosen)
        for index in shown:
            column, is_name = self.columns[index], index < self.names
            width = None if is_name else widths[index]
            part.add_column(
                column.header, justify=column.justify, overflow="fold", no_wrap=not is_name, min_width=width
            )
        cells = [list(self.columns[index].cells) for index in shown]
        for number, row in enumerate(self.rows):
            part.add_row(*(column[number] for column in cells), style=row.style, end_section=row.end_section)
        return part
