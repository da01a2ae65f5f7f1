"""Rows of one case brought together: the fused operator's times and its ratio to every rival."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pymixunlearn.benchmarking.ops.measure import PROVIDERS
from pymixunlearn.benchmarking.ops.results import FAILED, MEASURED, Measurement
from pymixunlearn.benchmarking.units import duration, share
from pymixunlearn.reporting.folding import FoldingTable

RIVALS = tuple(provider for provider in PROVIDERS if provider != "fused")


@dataclass(frozen=True)
class Comparison:
    """The providers of one case, mode and way of launching; one that was left out has a row without times."""

    fused: Measurement
    rivals: dict[str, Measurement]

    @property
    def lost_to(self) -> list[str]:
        """The rivals that were faster."""
        return [name for name, row in self.rivals.items() if row.ratio is not None and row.ratio < 1]

    def ratio(self, rival: str) -> str:
        """The rival's median over the fused one's, "-" where it was not measured."""
        row = self.rivals.get(rival)
        if row is None:
            return ""
        return "-" if row.ratio is None else f"{row.ratio:.2f}"


def compare(rows: Iterable[Measurement]) -> list[Comparison]:
    """Group rows by case, mode and way of launching, in the order in which these first appear."""
    groups: dict[tuple[object, ...], dict[str, Measurement]] = {}
    for row in rows:
        groups.setdefault((row.case, row.launch, row.mode), {})[row.provider] = row
    return [
        Comparison(group["fused"], {name: row for name, row in group.items() if name != "fused"})
        for group in groups.values()
    ]


def summary_table(rows: Iterable[Measurement], *, plain: bool = False) -> FoldingTable:
    """Lay out forward and backward together, for a terminal; the file has the rest.

    Args:
        rows: Of a result file.
        plain: Use ASCII rules only, for output that is not a terminal.
    """
    chosen = [entry for entry in compare(rows) if entry.fused.mode == "both"]
    launches = {entry.fused.launch for entry in chosen} != {"plain"}
    headings = (*(("launch",) if launches else ()), "fused", *(PROVIDERS[rival] for rival in RIVALS), "of copy")
    table = FoldingTable("forward + backward", *headings, plain=plain)
    for entry in chosen:
        fused = entry.fused
        cells = [fused.case.name, *((fused.launch,) if launches else ())]
        if fused.status != MEASURED:
            table.add_row(*cells, fused.status, style="bold red" if fused.status == FAILED else "dim")
            continue
        ratios = [entry.ratio(rival) + (" ×" if entry.ratio(rival) not in ("", "-") else "") for rival in RIVALS]
        style = "yellow" if entry.lost_to else None
        table.add_row(*cells, duration(fused.p50_ms), *ratios, share(fused.share_of_copy), style=style)
    return table
