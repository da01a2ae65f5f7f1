"""The table of a comparison as Markdown, CSV, LaTeX, and for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from rich.text import Text

from pymixunlearn.evaluation.catalogue import metric_info
from pymixunlearn.reporting.comparison import (
    AGNOSTIC,
    AWARE,
    DECIMALS,
    DECISIONS,
    GAP,
    MEMORY,
    PEAK,
    REFERENCE,
    SECONDS,
    ComparisonRow,
    ComparisonTable,
    Statistic,
)
from pymixunlearn.reporting.folding import FoldingTable

GROUPS = {REFERENCE: "", AWARE: "label-aware", AGNOSTIC: "label-agnostic"}
_LABELS = {GAP: "Mean gap", SECONDS: "Seconds", MEMORY: "Memory MB"}
COSTS = {SECONDS: 1, MEMORY: 0}
"""Digits behind the point of what a row takes."""
_EXPLAINED = "mean ± standard deviation over seeds, in percent; {mark}: closest to Retrain in its group"
_ACCEPTANCE = "Acceptance"
_WITHIN = " within the floor"
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
}


def to_markdown(table: ComparisonTable) -> str:
    """Return the table as Markdown, the closest in bold, with notes, the paper's numbers and the command."""
    keys = (*table.metrics, GAP, *table.costs)
    lines = [f"## {table.title}", "", f"{_capitalised(_EXPLAINED.format(mark='bold'))}.", ""]
    lines += markdown_lines(
        ["Labels", "Method", *map(cell_label, keys), *_judged(table, _ACCEPTANCE), "Seeds"],
        [
            [
                *(GROUPS[row.group], row.name),
                *(emphasised(row, key, "**{}**".format) for key in keys),
                *_judged(table, row.accepted),
                seeds_text(row),
            ]
            for row in table.rows
        ],
    )
    lines += ["", *floor_sentences(table)] if table.floor is not None else []
    notes = (*table.notes, *table.about_memory)
    lines += ["", *(f"- {one_line(note)}" for note in notes)] if notes else []
    if table.published is not None:
        keys = (*table.metrics, GAP)
        rows = [row for row in table.rows if row.published]
        lines += ["", f"The paper's numbers ({table.published}; the gaps are those of its means):", ""]
        lines += markdown_lines(
            ["Labels", "Method", *map(cell_label, keys)],
            [[GROUPS[row.group], row.name, *(cell_text(row.published, key) for key in keys)] for row in rows],
        )
    return "\n".join([*lines, "", "```", table.command_line, "```", ""])


def to_csv(table: ComparisonTable) -> str:
    """Return one line per row with full precision, the paper's numbers in columns of their own."""
    columns = ["labels", "method", "seeds_finished", "seeds_asked", "closest"]
    columns += [*(["within_floor"] if table.floor is not None else []), *_judged(table, *DECISIONS)]
    for key in (*table.metrics, GAP, *table.costs, *([PEAK] if MEMORY in table.costs else [])):
        columns += [f"{_column(key)}_mean", f"{_column(key)}_std"]
    if table.published is not None:
        for key in (*table.metrics, GAP):
            columns += [f"paper_{_column(key)}_mean", f"paper_{_column(key)}_std"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        line: dict[str, object] = {
            "labels": row.group,
            "method": row.name,
            "seeds_finished": row.finished,
            "seeds_asked": row.asked,
            "closest": " ".join(_column(key) for key in (*table.metrics, GAP) if key in row.closest),
        }
        if table.floor is not None:
            line["within_floor"] = row.within_floor
        line |= dict.fromkeys(_judged(table, *DECISIONS), 0) | dict(row.decisions)
        for prefix, cells in (("", row.cells), ("paper_", row.published)):
            for key, value in cells.items():
                line[f"{prefix}{_column(key)}_mean"] = value.mean
                line[f"{prefix}{_column(key)}_std"] = "" if value.std is None else value.std
        writer.writerow(line)
    return text.getvalue()


def to_latex(table: ComparisonTable) -> str:
    """Return a LaTeX table for the package booktabs, the closest in bold, the paper's numbers below ours."""
    keys = (*table.metrics, GAP, SECONDS)
    judged = _judged(table, _ACCEPTANCE)
    heads = " & ".join(["Method", *(escaped(cell_label(key)) for key in keys), *judged, "Seeds"])
    columns = "l" + "r" * (len(keys) + len(judged) + 1)
    width = len(keys) + len(judged) + 2
    lines = [f"% {one_line(table.command_line)}", "% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering"]
    caption = f"{_capitalised(table.title)}: {_EXPLAINED.format(mark='bold')}."
    lines += [f"\\caption{{{escaped(caption)}}}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", f"{heads} \\\\"]
    for group, rows in _grouped(table.rows):
        lines += _latex_group(GROUPS[group], width)
        for row in rows:
            cells = [emphasised(row, key, "\\textbf{{{}}}".format, escaped) for key in keys]
            cells += _judged(table, escaped(row.accepted))
            lines.append(" & ".join([escaped(row.name), *cells, seeds_text(row)]) + " \\\\")
    if table.published is not None:
        lines += _latex_group(f"the paper's: {table.published}", width)
        for row in table.rows:
            if row.published:
                cells = [*(escaped(cell_text(row.published, key)) for key in keys), *("" for _ in judged)]
                lines.append(" & ".join([escaped(f"{row.name} {GROUPS[row.group]}".strip()), *cells, ""]) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    said = [*floor_sentences(table), *table.notes, *table.about_memory]
    lines += [f"\\par\\footnotesize {escaped(one_line(note))}" for note in said]
    return "\n".join([*lines, "\\end{table}", ""])


def to_rich(table: ComparisonTable, *, plain: bool = False, published: bool = False) -> FoldingTable:
    """Lay the table out for a terminal, folded where it is too narrow.

    Args:
        table: What to show.
        plain: ASCII only, for output that is not a terminal; the closest then carry a star instead of bold type.
        published: Show the paper's numbers instead of ours.
    """
    title = f"{table.title}: the paper's numbers ({table.published})" if published else table.title
    keys = (*table.metrics, GAP) if published else (*table.metrics, GAP, SECONDS)
    headings = (*map(cell_label, keys), *(() if published else (*_judged(table, _ACCEPTANCE), "Seeds")))
    shown = FoldingTable("Labels", "Method", *headings, names=2, title=title, plain=plain)
    mark: Callable[[str], str] = "*{}".format if plain else str
    for group, rows in _grouped([row for row in table.rows if row.published or not published]):
        for place, row in enumerate(rows):
            cells = [
                cell_text(row.published, key)
                if published
                else Text(emphasised(row, key, mark), "bold" if key in row.closest else "")
                for key in keys
            ]
            if plain:
                cells = [str(cell).replace("±", "+-") for cell in cells]
            label = GROUPS[group].removeprefix("label-") if place == 0 else ""
            ends = () if published else (*_judged(table, row.accepted), seeds_text(row))
            shown.add_row(label, row.name, *cells, *ends)
        shown.add_section()
    return shown


def floor_sentences(table: ComparisonTable) -> list[str]:
    """Return what has to be said of the noise floor, if there is one."""
    if table.floor is None:
        return []
    floor = table.floor
    return [
        f"Noise floor: a second Retrain has a mean gap of {floor.value:.{DECIMALS}f} to the first (95 % interval "
        f"{floor.low:.{DECIMALS}f} to {floor.high:.{DECIMALS}f}). Methods within it are marked "
        f'"{_WITHIN.strip()}" and not ranked; the best is marked only where none is, and only where it leads by more '
        "than the interval is wide."
    ]


def _judged(table: ComparisonTable, *texts: str) -> list[str]:
    """Return texts of the acceptance test; nothing where it was not made."""
    return list(texts) if table.judged else []


def markdown_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table whose first two columns are names, and the others numbers."""
    rules = ["---", "---", *["---:"] * (len(heads) - 2)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]


def _latex_group(name: str, columns: int) -> list[str]:
    heading = [f"\\multicolumn{{{columns}}}{{l}}{{\\emph{{{escaped(name)}}}}} \\\\"] if name else []
    return ["\\midrule", *heading]


def _grouped(rows: Sequence[ComparisonRow]) -> list[tuple[str, list[ComparisonRow]]]:
    groups = dict.fromkeys(row.group for row in rows)
    return [(group, [row for row in rows if row.group == group]) for group in groups]


def emphasised(row: ComparisonRow, key: str, mark: Callable[[str], str], escape: Callable[[str], str] = str) -> str:
    """Write a value of a row: marked where it is the closest, and with a remark where its gap is within the floor."""
    text = escape(cell_text(row.cells, key) if key in row.cells else row.lacking)
    if key == GAP and row.within_floor:
        text += _WITHIN
    return mark(text) if key in row.closest else text


def cell_text(cells: Mapping[str, Statistic], key: str) -> str:
    """Write a statistic; "-" where nothing is known."""
    if key not in cells:
        return "-"
    if key in (SECONDS, MEMORY):
        return f"{cells[key].mean:.{COSTS[key]}f}"
    mean = f"{cells[key].mean:.{DECIMALS}f}"
    std = cells[key].std
    return mean if std is None else f"{mean} ± {std:.{DECIMALS}f}"


def seeds_text(row: ComparisonRow) -> str:
    """Write how many seeds of a row have a result, and of how many."""
    return str(row.finished) if row.finished == row.asked else f"{row.finished} of {row.asked}"


def cell_label(key: str) -> str:
    """Return how a column is headed."""
    return _LABELS[key] if key in _LABELS else metric_info(key).label


def _column(key: str) -> str:
    return "mean_gap" if key == GAP else key


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def one_line(text: str) -> str:
    """Put a text on one line."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """Return a text as LaTeX reads it."""
    return "".join(_LATEX.get(character, character) for character in text)
