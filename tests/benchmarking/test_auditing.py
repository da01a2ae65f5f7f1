"""The benchmark of audits: its rows, and that what models never saw is attacked beside what they forgot."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.auditing import COLUMNS, audit, table
from benchmarks.forgetting import Bed, Cell
from benchmarks.rows import Rows
from pymixunlearn import data


@pytest.mark.slow  # eight shadow models
def test_a_cell_is_audited_beside_its_initial_model(tmp_path: Path) -> None:
    dataset = data.load("digits@600")
    bed = Bed("cnn", "cnn", "digits@600", ".", None, 0.4, retrain_epochs=1, epochs=1)
    results = Rows(tmp_path / "rows.csv", COLUMNS)
    cell = Cell(bed, dataset, "data", 0, results)
    for row in audit(cell, "prune-reset", 8):
        results.add({"model": bed.name, "task": "data", "seed": 0, "shadow_models": 8, **row})
    initial, audited = Rows(tmp_path / "rows.csv", COLUMNS).rows
    assert (initial["subject"], audited["subject"]) == ("initial", "prune-reset")
    assert initial["rmia"] and not initial["u_lira"]
    for attack in ("rmia", "u_lira", "u_lira_unseen"):
        low, value, high = (float(audited[f"{attack}{end}"]) for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1
    assert audited["u_lira"] != audited["u_lira_unseen"]
    assert table(results.rows).splitlines()[2].startswith("| cnn, data, 0 | initial | 8 | 0.")
