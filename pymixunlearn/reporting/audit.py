"""The table of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymixunlearn.reporting.folding import FoldingTable

COLUMNS = {
    "accuracy": ("Accuracy %", 1),
    "auc": ("AUC", 3),
    "tpr_at_1_fpr": ("TPR % at 1 % FPR", 1),
    "tpr_at_01_fpr": ("at 0.1 % FPR", 1),
}
"""Key of an attack's number: how it is headed, and its decimals."""
_KINDS = {
    "forget": "forgotten samples",
    "retain": "remaining samples",
    "unseen": "unseen samples",
    "floor": "retrained models among themselves",
}


def audit_table(record: Mapping[str, Any], *, plain: bool = False) -> FoldingTable | None:
    """Lay the attacks of an ``audit.json`` out for a terminal, each number with its 95 % interval.

    Args:
        record: The content of ``audit.json``.
        plain: Use ASCII rules only, for output that is not a terminal.

    Returns:
        The table, or None where only KLoM was measured.
    """
    if not record["attacks"]:
        return None
    headings = (heading for heading, _ in COLUMNS.values())
    table = FoldingTable("", "tells", *headings, names=2, plain=plain)
    for attack in attack_rows(record):
        cells = (_interval(attack[key], decimals) for key, (_, decimals) in COLUMNS.items())
        table.add_row(attack["label"], attack["asks"], *cells)
    return table


def attack_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the attacks of an ``audit.json``, and those on the model before unlearning where it was audited too."""
    before = [{**attack, "label": f"{attack['label']}, before"} for attack in record.get("before", {}).values()]
    return [*record["attacks"].values(), *before]


def klom_lines(record: Mapping[str, Any]) -> list[str]:
    """Return KLoM of each kind of sample in a line; none where it was not measured."""
    if record["klom"] is None:
        return []
    width = max(map(len, _KINDS.values()))
    return [
        f"KLoM, {_KINDS[kind]:<{width}}  median {values['median']:.2f}, mean {values['mean']:.2f}, "
        f"95 % of samples below {values['p95']:.2f} nats"
        for kind, values in record["klom"].items()
    ]


def _interval(estimate: Mapping[str, float], decimals: int) -> str:
    value, low, high = (f"{estimate[key]:.{decimals}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
