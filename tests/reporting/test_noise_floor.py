"""The noise floor: what a second Retrain says of every gap."""

from __future__ import annotations

from typing import Any

import pytest

from pymixunlearn.reporting import comparison_table, result_rows
from pymixunlearn.reporting.comparison_html import comparison_verdict
from pymixunlearn.reporting.formats import to_csv, to_latex, to_markdown
from pymixunlearn.reporting.noise_floor import floor_over_seeds, run_floor
from tests.reporting.test_comparison_table import KEYS, RETRAIN, cell, record


def with_second(entry: tuple[str, dict[str, Any]], change: float, half: float = 0.5) -> tuple[str, dict[str, Any]]:
    """A cell whose second Retrain is ``change`` points off in every metric, with intervals of +- ``half``."""
    name, content = entry
    theirs = RETRAIN[content["seed"]]
    second = {key: value + change for key, value in zip(KEYS, theirs, strict=True)}
    content["metrics"]["second_retrain"] = second
    content["gap"]["second_retrain"] = {"mean": abs(change)}
    content["seconds"]["second_retrain"] = 11.0
    content["intervals"] = {
        model: {key: [value - half, value + half] for key, value in content["metrics"][model].items()}
        for model in ("retrain", "second_retrain")
    }
    return name, content


def test_the_floor_of_a_run_has_the_interval_that_its_samples_leave() -> None:
    _, content = with_second(cell("scrub", 0, (97.0, 0.0, 31.0)), 2.0)
    floor = run_floor(content)
    assert floor is not None and floor.value == pytest.approx(2.0)
    # Six independent measurements, each with a weight of a third: 0.5 * sqrt(6) / 3.
    assert (floor.low, floor.high) == (pytest.approx(2 - 0.408, abs=1e-3), pytest.approx(2 + 0.408, abs=1e-3))
    assert floor.holds(2.4) and not floor.holds(2.5) and not floor.holds(None)
    del content["metrics"]["second_retrain"]
    assert run_floor(content) is None


def test_over_seeds_the_interval_is_that_of_the_seeds() -> None:
    cells = [with_second(cell("scrub", seed, (97.0, 0.0, 31.0)), change)[1] for seed, change in ((0, 1.0), (1, 3.0))]
    floor = floor_over_seeds(cells)
    assert floor is not None and floor.value == pytest.approx(2.0) and floor.low == 0
    assert floor.high == pytest.approx(2 + 12.706 * 2**0.5 / 2**0.5, abs=0.01)  # Student's t with one degree of freedom
    assert floor_over_seeds([cell("scrub", 0, (97.0, 0.0, 31.0))[1] | {"intervals": {}}]) is None


def comparison(*gaps: tuple[str, float]) -> dict[str, Any]:
    """Methods whose every metric is so far from Retrain's at both seeds; the second Retrain is 1.0 and 1.01 off."""
    entries = []
    for name, gap in gaps:
        for seed in (0, 1):
            values = [value + gap + 0.01 * seed for value in RETRAIN[seed]]
            entries.append(with_second(cell(name, seed, values), 1.0 + 0.01 * seed))
    return record(*entries)


def test_methods_within_the_floor_are_marked_and_none_is_ranked() -> None:
    table = comparison_table(comparison(("scrub", 0.5), ("neggrad", 9.0)))
    found = {row.name: row for row in table.rows}
    assert found["scrub"].within_floor and not found["neggrad"].within_floor
    assert not any(row.closest for row in table.rows)
    assert found["second Retrain"].group == "" and found["second Retrain"].cells["mean"].mean == pytest.approx(1.005)
    text = to_markdown(table)
    assert "Noise floor: a second Retrain has a mean gap of 1.0" in text and "**" not in text
    assert "| label-aware | scrub |" in text and "within the floor |" in text
    assert ",True" in to_csv(table) and "within the floor" in to_latex(table)
    (sentence,) = comparison_verdict(table)
    assert "scrub is within the noise floor" in sentence and "not ranked" in sentence


@pytest.mark.parametrize(("runner_up", "bold"), [(9.0, True), (5.05, False)])
def test_the_best_is_bold_where_it_leads_by_more_than_the_interval_is_wide(runner_up: float, bold: bool) -> None:
    table = comparison_table(comparison(("scrub", 5.0), ("neggrad", runner_up)))
    assert not any(row.within_floor for row in table.rows)
    closest = {row.name: row.closest for row in table.rows if row.closest}
    assert closest == ({"scrub": frozenset({"mean"})} if bold else {})


def test_what_the_acceptance_test_says_is_in_the_table() -> None:
    cells = dict(
        cell(name, seed, (97.0, 0.0, 31.0), acceptance={"unlearned": {"decision": decision}})
        for name, seed, decision in (
            ("scrub", 0, "refused"), ("scrub", 1, "accepted"), ("neggrad", 0, "refused"), ("neggrad", 1, "refused"),
        )
    )  # fmt: skip
    table = comparison_table({**record(), "cells": cells})
    found = {row.name: row.accepted for row in table.rows}
    assert (found["scrub"], found["neggrad"], found["Retrain"]) == ("1 of 2 accepted, 1 of 2 refused", "refused", "-")
    assert "| Acceptance | Seeds |" in to_markdown(table) and "accepted,refused,cannot tell" in to_csv(table)
    assert not comparison_table(record(cell("scrub", 0, (97.0, 0.0, 31.0)))).judged


def test_a_run_within_the_floor_says_so() -> None:
    _, content = with_second(cell("scrub", 0, (98.0, 0.5, 30.5)), 1.0)
    content["acceptance"] = {"unlearned": {"decision": "refused"}}
    rows = {row.label: row for row in result_rows(content)}
    assert "second Retrain" in rows and "gap |second Retrain - Retrain|" in rows
    assert "gap |unlearned - Retrain|, within the floor" in rows and "gap |initial - Retrain|" in rows
    assert rows["unlearned"].cells["acceptance"] == "refused" and "acceptance" not in rows["initial"].cells
