"""A table or figure of the paper as it was run: its tables in the paper's layout, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymixunlearn.evaluation import metric_keys
from pymixunlearn.reporting.comparison import AGNOSTIC, AWARE, GAP, REFERENCE, SECONDS, ComparisonRow, ComparisonTable
from pymixunlearn.reporting.formats import (
    GROUPS,
    cell_label,
    cell_text,
    emphasised,
    escaped,
    floor_sentences,
    markdown_lines,
    one_line,
    seeds_text,
)

WIDE = 2
"""Data sets side by side, as in the paper's tables."""
NOTHING = "initial"
"""Row of the model before unlearning: what doing nothing gives."""


@dataclass(frozen=True)
class CaseResult:
    """What an exhibit found on one data set and task.

    Attributes:
        key: Its name, for files.
        label: How it is called.
        context: Network, images and what was forgotten, in one line.
        table: Its table; None where there are no data, or nothing to compare.
        reason: Why it was not run, or None.
        intervals: By group and row, where it has one seed: metric to the ends of the 95 % interval by the draw of the
            samples.
        cells: Its entries of ``experiment.json`` under the labels of their rows, each with its "command".
        classes: Names of its classes, where the cells say the accuracy of each.
        forgotten: Indices of the classes that were forgotten, or samples of them.
    """

    key: str
    label: str
    context: str
    table: ComparisonTable | None
    reason: str | None = None
    intervals: Mapping[tuple[str, str], Mapping[str, Sequence[float]]] = field(default_factory=dict)
    cells: Sequence[Mapping[str, Any]] = ()
    classes: Sequence[str] = ()
    forgotten: Sequence[int] = ()


@dataclass(frozen=True)
class ExhibitReport:
    """What there is to say of an exhibit.

    Attributes:
        title: What it shows.
        facts: Sentences on how it was run.
        notes: Cells without a result, and why, and further remarks.
        cases: Its data sets and tasks.
        published: Where the paper's numbers stand that are shown beside ours, or None.
        command_line: What made it.
    """

    title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    cases: tuple[CaseResult, ...]
    published: str | None
    command_line: str

    @property
    def blocks(self) -> list[list[CaseResult]]:
        """The cases that have tables, a pair with equal metrics side by side."""
        found: list[list[CaseResult]] = []
        for case in self.cases:
            if case.table is None:
                continue
            beside = found[-1][0].table if found and len(found[-1]) < WIDE else None
            if beside is not None and beside.metrics == case.table.metrics:
                found[-1].append(case)
            else:
                found.append([case])
        return found


def block_keys(block: Sequence[CaseResult]) -> tuple[str, ...]:
    """Return the columns that each case of a block has: the metrics and the mean gap."""
    assert block[0].table is not None
    return (*block[0].table.metrics, GAP)


def block_rows(block: Sequence[CaseResult]) -> Iterator[tuple[str, str, list[ComparisonRow | None]]]:
    """Yield group, name and the row of each case, in the order of the tables."""
    tables = [{(row.group, row.name): row for row in case.table.rows} for case in block if case.table is not None]
    names = dict.fromkeys(name for table in tables for name in table)
    for group in (REFERENCE, AWARE, AGNOSTIC):
        for name in names:
            if name[0] == group:
                yield group, name[1], [table.get(name) for table in tables]


def row_label(name: str) -> str:
    """Return how a row is called; the model before unlearning is what doing nothing gives."""
    return f"{name} (nothing done)" if name == NOTHING else name


def value_text(row: ComparisonRow | None, key: str) -> str:
    """Write a value, and the paper's in square brackets behind it."""
    if row is None:
        return "-"
    ours = emphasised(row, key, str)
    return f"{ours} [{cell_text(row.published, key)}]" if key in row.published else ours


def exhibit_as_markdown(report: ExhibitReport) -> str:
    """Return the tables as Markdown: the paper's layout first, then what it leaves out, case by case."""
    lines = [f"# {report.title}", "", *(f"{fact}\n" for fact in report.facts)]
    for block in report.blocks:
        keys = block_keys(block)
        heads = [f"{case.label}: {cell_label(key)}" for case in block for key in keys]
        rows = []
        for group, name, found in block_rows(block):
            cells = [_bold(row, key, "**{}**".format) for row in found for key in keys]
            rows.append([GROUPS[group], row_label(name), *cells])
        lines += [*markdown_lines(["Labels", "Method", *heads], rows), ""]
    if report.blocks:
        lines += [_legend(report), ""]
    for case in report.cases:
        lines += [f"## {case.label}", ""]
        if case.reason is not None:
            lines += [f"Not run: {one_line(case.reason)}", ""]
        if case.context:
            lines += [f"{case.context}.", ""]
        if case.table is not None:
            heads, rows = detail_lines(case.table)
            lines += [*markdown_lines(heads, rows), "", *(f"{line}\n" for line in floor_sentences(case.table))]
    lines += [f"- {one_line(note)}" for note in report.notes]
    return "\n".join([*lines, "", "```", report.command_line, "```", ""])


def exhibit_as_latex(report: ExhibitReport) -> str:
    """Return a LaTeX table for the package booktabs, data sets in pairs as in the paper, and what it leaves out."""
    lines = [f"% {one_line(report.command_line)}", "% needs \\usepackage{booktabs}"]
    for number, block in enumerate(report.blocks):
        keys = block_keys(block)
        caption = escaped(f"{report.title}. {' '.join(report.facts)} {_legend(report)}")
        lines += ["\\begin{table*}", "\\centering", *([] if number else [f"\\caption{{{caption}}}"])]
        lines += [f"\\begin{{tabular}}{{ll{'r' * len(keys) * len(block)}}}", "\\toprule"]
        spans = [f"\\multicolumn{{{len(keys)}}}{{c}}{{{escaped(case.label)}}}" for case in block]
        heads = [escaped(cell_label(key)) for _ in block for key in keys]
        lines += [" & ".join(["", "", *spans]) + " \\\\", " & ".join(["", "Method", *heads]) + " \\\\"]
        last = None
        for group, name, found in block_rows(block):
            cells = [_bold(row, key, "\\textbf{{{}}}".format, escaped) for row in found for key in keys]
            lines += ["\\midrule"] if group != last else []
            label = GROUPS[group].removeprefix("label-") if group != last else ""
            lines.append(" & ".join([label, escaped(row_label(name)), *cells]) + " \\\\")
            last = group
        lines += ["\\bottomrule", "\\end{tabular}", "\\end{table*}"]
    for case in report.cases:
        if case.table is None:
            lines.append(f"% {case.label}: {one_line(case.reason or 'nothing to compare')}")
            continue
        heads, rows = detail_lines(case.table)
        lines += ["\\begin{table}", "\\centering", f"\\caption{{{escaped(f'{case.label}: {case.context}.')}}}"]
        lines += [f"\\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", "\\toprule"]
        lines += [" & ".join(map(escaped, heads)) + " \\\\", "\\midrule"]
        lines += [" & ".join(map(escaped, row)) + " \\\\" for row in rows]
        lines += ["\\bottomrule", "\\end{tabular}"]
        lines += [f"\\par\\footnotesize {escaped(one_line(line))}" for line in floor_sentences(case.table)]
        lines += ["\\end{table}"]
    lines += [f"% {one_line(note)}" for note in report.notes]
    return "\n".join([*lines, ""])


def detail_lines(table: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """Return what the paper's layout leaves out: mean gap, acceptance, seconds and seeds of every row."""
    heads = ["Labels", "Method", cell_label(GAP), *(["Acceptance"] if table.judged else []), "Seconds", "Seeds"]
    rows = [
        [
            GROUPS[row.group],
            row_label(row.name),
            emphasised(row, GAP, str),
            *([row.accepted] if table.judged else []),
            cell_text(row.cells, SECONDS),
            seeds_text(row),
        ]
        for row in table.rows
    ]
    return heads, rows


def detail_keys(table: ComparisonTable) -> tuple[str, ...]:
    """Return what each column of :func:`detail_lines` after the method is about."""
    return (GAP, *(["acceptance"] if table.judged else []), SECONDS, "seeds")


def exhibit_as_csv(cells: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, str]) -> str:
    """Return one line per cell and model with full precision: the cell's own, and what it was compared with.

    Args:
        cells: The entries of ``experiment.json`` by name.
        tasks: The task of each case.
    """
    metrics = list(dict.fromkeys(key for task in tasks.values() for key in metric_keys(task)))
    head = ["case", "row", "method", "labels", "seed", "model", "status", "reason"]
    head += [name for key in metrics for name in (key, f"{key}_low", f"{key}_high", f"{key}_gap")]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*head, "mean_gap", "acceptance", "seconds"], restval="", lineterminator="\n")
    writer.writeheader()
    for cell in cells.values():
        common = {key: cell[key] for key in ("case", "method", "seed", "status")}
        common |= {"row": cell["name"], "reason": cell["reason"] or ""}
        common["labels"] = AWARE if cell["label_aware"] else AGNOSTIC
        models = [name for name, found in (cell.get("metrics") or {"unlearned": {}}).items() if found is not None]
        for model in models:
            writer.writerow({**common, "model": model, **_csv_values(cell, model, metrics)})
    return text.getvalue()


def _csv_values(cell: Mapping[str, Any], model: str, metrics: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    found = (cell.get("metrics") or {}).get(model) or {}
    intervals = (cell.get("intervals") or {}).get(model) or {}
    gaps = (cell.get("gap") or {}).get(model) or {}
    for key in metrics:
        if found.get(key) is not None:
            values[key] = found[key]
        if intervals.get(key) is not None:
            values[f"{key}_low"], values[f"{key}_high"] = intervals[key]
        if gaps.get(key) is not None:
            values[f"{key}_gap"] = gaps[key]
    values["mean_gap"] = "" if gaps.get(GAP) is None else gaps[GAP]
    values["acceptance"] = ((cell.get("acceptance") or {}).get(model) or {}).get("decision", "")
    seconds = (cell.get("seconds") or {}).get(model)
    return {**values, "seconds": "" if seconds is None else seconds}


def _bold(row: ComparisonRow | None, key: str, mark: Callable[[str], str], escape: Callable[[str], str] = str) -> str:
    text = escape(value_text(row, key))
    return mark(text) if row is not None and key in row.closest else text


def _legend(report: ExhibitReport) -> str:
    beside = f" In square brackets: the paper's numbers ({report.published})." if report.published else ""
    return f"Means over seeds and standard deviations, in percent; bold: closest to Retrain in its group.{beside}"
