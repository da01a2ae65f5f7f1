"""The benchmark of searches: what a search by each level would have kept."""

from __future__ import annotations

from pathlib import Path

from benchmarks.forgetting import Bed, Cell
from benchmarks.rows import Rows
from benchmarks.searching import COLUMNS, accepts, measure, searched, table
from pymixunlearn import data
from pymixunlearn.evaluation.margin_test import ks_bound


def row(ks: float, decision: str, *, setting: str = "frozen up to a", seconds: float = 10) -> dict[str, str]:
    found = {"ks_choosing": ks, "ks_resurfaced_choosing": 0.01, "bound_choosing": 0.1, "decision": decision}
    found |= {"model": "cnn", "task": "data", "seed": 0, "method": "eu-k", "setting": setting, "seconds": seconds}
    return {name: str(value) for name, value in found.items()}


def test_a_higher_level_has_a_smaller_bound() -> None:
    edge = ks_bound(1, 1, 0.1) / ks_bound(1, 1, 0.05)  # of the bound at 5 %
    assert 0.90 < edge < 0.91
    assert accepts(row(0.1 * edge - 0.001, "accepted"), 0.1) and not accepts(row(0.1 * edge + 0.001, "accepted"), 0.1)
    assert accepts(row(0.1, "refused"), 0.05)
    assert not accepts({**row(0.05, "refused"), "ks_resurfaced_choosing": ""}, 0.05)


def test_a_search_keeps_the_first_that_it_accepts_and_pays_for_all() -> None:
    attempts = [row(0.095, "refused"), row(0.05, "accepted", setting="frozen up to b", seconds=20)]
    assert searched(attempts, 0.05, 50) == (False, 0.2)
    assert searched(attempts, 0.1, 50) == (True, 0.6)
    assert searched(attempts[:1], 0.1, 50) == (True, 1.2)  # ends with Retrain
    found = table(attempts, {("cnn", "data"): 50}).splitlines()
    assert found[2] == "| eu-k | cnn | frozen up to a | 5% | 0 of 1 | 0 of 1 | 20% |"
    assert found[3] == "| eu-k | cnn | frozen up to a | 10% | 1 of 1 | 1 of 1 | 60% |"


def test_every_setting_of_a_search_is_judged_by_both_halves(tmp_path: Path) -> None:
    bed = Bed("cnn", "cnn", "digits@600", ".", None, 0.4, retrain_epochs=1, epochs=1)
    results = Rows(tmp_path / "rows.csv", COLUMNS)
    cell = Cell(bed, data.load("digits@600"), "data", 0, results)
    for _ in range(2):  # what is in the file is not measured again
        measure(cell, results, "eu-k")
    rows = Rows(tmp_path / "rows.csv", COLUMNS).rows
    assert rows and rows[0]["setting"] == "frozen up to features.relu1"
    assert len({found["setting"] for found in rows}) == len(rows)
    assert all(float(found["ks"]) >= 0 and float(found["ks_choosing"]) >= 0 for found in rows)
