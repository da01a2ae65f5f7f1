"""The report of a run: one HTML file that needs nothing else, readable in light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pymixunlearn import methods
from pymixunlearn.display import printable
from pymixunlearn.evaluation.catalogue import metric_info
from pymixunlearn.reporting.audit import COLUMNS, attack_rows, klom_lines
from pymixunlearn.reporting.costs import cost_rows
from pymixunlearn.reporting.metrics_record import OTHER_TOOL, PAPER_ATTACK, row_name
from pymixunlearn.reporting.pictures import caption_of, inline
from pymixunlearn.reporting.table import Row, column_label, columns, format_cell, further_rows, result_rows
from pymixunlearn.reporting.verdict import verdict

_TASKS = {
    "class": "every training sample of the forgotten classes",
    "data": "a random share of the training samples of some classes",
    "noisy": "a random share of the training samples of some classes, whose labels were made wrong before training",
    "semi": "a random share of the labelled training samples of some classes; most of the others have no labels",
    "indices": "the training samples of a list of indices",
}


class Figure(NamedTuple):
    """A picture on a page: its name, caption, and the SVG element."""

    name: str
    caption: str
    svg: Markup


def render_report(
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    split: Mapping[str, Any],
    pictures: Mapping[str, str],
    audit: Mapping[str, Any] | None = None,
    purge: Mapping[str, Any] | None = None,
) -> str:
    """Return the report as HTML text.

    Args:
        config: The content of ``config.json``.
        record: The content of ``metrics.json``.
        split: The content of ``split.json``.
        pictures: SVG documents by name.
        audit: The content of ``audit.json``, if there is one.
        purge: The content of ``purge.json``, likewise.
    """
    rows = result_rows(record)
    further = further_rows(rows)
    further_keys = columns(further, further=True)
    shown = figures(pictures)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            config=config,
            record=record,
            split=split,
            summary=_summary(config, record["method"]),
            elsewhere=record["method"] == OTHER_TOOL,
            task_meaning=_TASKS[split["task"]],
            classes=[config["class_names"][label] for label in split["params"].get("classes", [])],
            verdict=verdict(record),
            results=_table(rows, columns(rows), record["intervals"]),
            further=_table(further, further_keys, record["intervals"]),
            explained=[metric_info(key) for key in further_keys],
            thumbnails=[figure for figure in shown if figure.name == "forgotten"],
            figures=[figure for figure in shown if figure.name != "forgotten"],
            acceptance=_acceptance(record["acceptance"]),
            costs=cost_rows(record),
            audit=audit,
            purge=purge,
            paper_attack=PAPER_ATTACK,
            attacks=None if audit is None else _attacks(audit),
            klom=[] if audit is None else klom_lines(audit),
        )
    )


def _summary(config: Mapping[str, Any], method: str) -> str | None:
    if method == OTHER_TOOL:
        return None
    return config.get("method_summary") or methods.get(method).summary


@cache
def environment() -> Environment:
    """Return the templates."""
    made = Environment(
        loader=PackageLoader("pymixunlearn.reporting", "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["setting"] = _setting_text
    return made


def figures(pictures: Mapping[str, str]) -> list[Figure]:
    """Return SVG documents, by name, as figures of a page."""
    # Drawn by this package: nothing in them came from outside without having been escaped.
    return [Figure(name, caption_of(svg), Markup(inline(svg))) for name, svg in pictures.items()]


def _shown(value: object) -> object:
    """Return what a template puts into the page, with what cannot be shown escaped; HTML itself as it is."""
    return printable(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def _table(rows: Sequence[Row], keys: Sequence[str], intervals: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headings and the lines (label, emphasis, cells) of a table; a cell is its text and its interval's."""
    lines = []
    for row in rows:
        own = (intervals.get(row.model) or {}) if row.model else {}
        cells = [(format_cell(key, row), _interval_text(own.get(key))) for key in keys]
        lines.append((row.label, row.emphasis, cells))
    return {"headings": [column_label(key) for key in keys], "rows": lines}


def _acceptance(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the table of the acceptance test, a line a model."""
    if found is None:
        return None
    numbers = {
        "ks": ("Distance", 3, None),
        "ks_resurfaced": ("After training", 3, None),
        "bound": ("Bound", 3, None),
        "eps": ("Accuracy gap", 1, "eps_interval"),
        "auc": ("AUC", 3, "auc_interval"),
        "probe_auc": ("Probe's AUC", 3, "probe_interval"),
        "shown_again": ("Shown again", 1, None),
        "shown_again_unseen": ("Unseen then", 1, None),
        "accuracy_unseen": ("V, D_f's classes", 1, None),
        "accuracy_others": ("V, others", 1, None),
    }
    numbers = {
        key: about for key, about in numbers.items() if any(test.get(key) is not None for test in found.values())
    }
    rows = []
    for model, test in found.items():
        cells = [(test["decision"], "")]
        for key, (_, decimals, span) in numbers.items():
            value, interval = test.get(key), test.get(span) if span else None
            between = "" if interval is None else "–".join(f"{end:.{decimals}f}" for end in interval)
            cells.append(("-" if value is None else f"{value:.{decimals}f}", between))
        rows.append((row_name(model), model == "unlearned", cells))
    return {"headings": ["Decision", *(heading for heading, _, _ in numbers.values())], "rows": rows}


def _attacks(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of an audit's attacks, each number with its interval."""
    rows = []
    for attack in attack_rows(audit):
        cells = [(attack["asks"], "")]
        for key, (_, decimals) in COLUMNS.items():
            value, low, high = (f"{attack[key][bound]:.{decimals}f}" for bound in ("value", "low", "high"))
            cells.append((value, f"{low}–{high}"))
        rows.append((attack["label"], False, cells))
    return {"headings": ["tells", *(heading for heading, _ in COLUMNS.values())], "rows": rows}


def _interval_text(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.1f}–{interval[1]:.1f}"


def _setting_text(value: object) -> str:
    """Write a setting as ``--set`` would read it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
