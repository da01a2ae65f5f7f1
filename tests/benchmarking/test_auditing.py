"""The benchmark of audits: its rows, and that what models never saw is attacked beside what they forgot."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.auditing import COLUMNS, audit, table
from benchmarks.forgetting import Bed, Cell
from benchmarks.rows import Rows
from pymixunlearn import data
from tests.cli.write_names import MEASURED

AUC = ("auc", "low", "high")
PAGE = Path(__file__).parents[2] / "docs" / "measured.md"


@pytest.mark.slow  # eight shadow models
def test_a_cell_is_audited_beside_its_initial_model(tmp_path: Path) -> None:
    dataset = data.load("digits@600")
    bed = Bed("cnn", "cnn", "digits@600", ".", None, 0.4, retrain_epochs=1, epochs=1)
    results = Rows(tmp_path / "rows.csv", COLUMNS)
    cell = Cell(bed, dataset, "data", 0, results)
    for row in audit(cell, "prune-reset", 8, u_lira=True):
        results.add({"model": bed.name, "task": "data", "seed": 0, "shadow_models": 8, **row})
    rows = Rows(tmp_path / "rows.csv", COLUMNS).rows
    assert [(row["subject"], row["attack"]) for row in rows] == [
        ("initial", "rmia"),
        ("retrain", "rmia"),
        ("prune-reset", "rmia"),
        ("prune-reset", "u_lira"),
        ("prune-reset", "u_lira_unseen"),
    ]
    assert all(0 <= float(row["low"]) <= float(row["auc"]) <= float(row["high"]) <= 1 for row in rows)
    assert rows[3]["auc"] != rows[4]["auc"]
    assert audit(cell, "prune-reset", 8, u_lira=False) == [
        {key: row[key] if key != "candidates" else int(row[key]) for key in ("subject", "candidates", "attack", *AUC)}
        for row in rows[:3]
    ]
    initial, _, audited = table(rows).splitlines()[2:]
    assert initial.startswith("| cnn, data, 0 | initial | 8 | 0.") and initial.endswith(" |  |  |")
    assert audited.count("[") == 3


def test_the_table_has_one_line_for_each_audited_model_and_the_attacks_that_were_made() -> None:
    about = {"model": "cnn", "task": "data", "seed": "20", "shadow_models": "8", "low": "0.45", "high": "0.6"}
    rows = [
        {**about, "subject": subject, "attack": attack, "auc": "0.5"}
        for subject, attack in (("initial", "rmia"), ("eu-k", "rmia"), ("eu-k", "u_lira_unseen"))
    ]
    found = "0.500 [0.450, 0.600]"
    assert table(rows).splitlines()[2:] == [
        f"| cnn, data, 20 | initial | 8 | {found} |  |",
        f"| cnn, data, 20 | eu-k | 8 | {found} | {found} |",
    ]


def test_the_page_has_what_was_audited() -> None:
    assert table(Rows(MEASURED.with_name("auditing-cpu.csv"), COLUMNS).rows) in PAGE.read_text("utf-8")
