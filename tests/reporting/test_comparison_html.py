from __future__ import annotations

import pytest

from pymixunlearn.reporting import ComparisonRow, ComparisonTable, Statistic
from pymixunlearn.reporting.comparison_html import comparison_pictures, comparison_verdict, render_comparison

RECORD = {
    "dataset": "digits",
    "params": {"classes": [0]},
    "device": "cpu",
    "threads": 1,
    "command_line": "mixunlearn-cli compare",
    "versions": {"torch": "2", "torchvision": None},
    "cells": {},
}


def row(name: str, group: str, gap: float | None, std: float | None = 0.1, finished: int = 3) -> ComparisonRow:
    cells = {"test_r": Statistic(90.0, 1.0), "seconds": Statistic(2.0, 0.5)}
    if gap is not None:
        cells["mean"] = Statistic(gap, std)
    closest = frozenset({"mean"}) if name == "best" else frozenset()
    step = (std or 0) * (-1 if name == "second" else 1)  # the seeds that are good for one are bad for the other
    spread = {} if gap is None else {seed: gap + step * (seed - 1) for seed in range(finished)}
    return ComparisonRow(name, group, cells if finished else {}, finished, 3, closest, gaps=spread)


def table(*rows: ComparisonRow) -> ComparisonTable:
    references = (row("Retrain", "", None), row("initial", "", 30.0))
    notes = ("scrub, seed 1, failed: <it> diverged",)
    return ComparisonTable("digits, class 0", ("test_r",), (*references, *rows), notes, None, "mixunlearn-cli compare")


@pytest.mark.parametrize(
    ("second", "std", "finished", "told"),
    [
        (5.0, 0.1, 3, "before second (5.00 ± 0.10); paired t-test over 3 seeds: p < 0.001, they differ."),
        (1.1, 0.1, 3, "before second (1.10 ± 0.10); paired t-test over 3 seeds: p = 0.478, they cannot be told apart."),
        (5.0, None, 3, "before second (5.00); with a single seed, whether another would give the same is not known."),
        (5.0, 0.1, 2, "no other has results for every seed."),
    ],
)
def test_the_verdict_weighs_the_difference_against_the_seeds(
    second: float, std: float | None, finished: int, told: str
) -> None:
    rows = (row("second", "aware", second, std, finished), row("best", "aware", 1.0, std))
    (sentence,) = comparison_verdict(table(*rows))
    assert sentence.startswith("Of the methods with labels, best is closest to Retrain (mean gap 1.00")
    assert told in sentence


def test_the_page_shows_table_notes_pictures_and_command() -> None:
    made = table(row("best", "aware", 1.0), row("other", "agnostic", 2.0), row("failed", "aware", None, finished=0))
    pictures = comparison_pictures(made)
    assert [picture.name for picture in pictures] == ["gaps", "times"]
    page = render_comparison(RECORD, made, {picture.name: picture.svg() for picture in pictures})
    assert page.count("<svg") == 2 and "mixunlearn-cli compare" in page
    assert "scrub, seed 1, failed: &lt;it&gt; diverged" in page
    assert '<tr data-row="aware/best" class="emphasis"><th scope="row">best</th>' in page
    assert "1.00 *<small>± 0.10</small>" in page
    assert '<th scope="row">failed</th><td data-key="test_r">-</td>' in page
    assert page == render_comparison(RECORD, made, {picture.name: picture.svg() for picture in pictures})


def test_a_comparison_without_results_has_a_page_too() -> None:
    made = table(row("failed", "aware", None, finished=0))
    assert comparison_pictures(made) == [] and comparison_verdict(made) == []
    assert "<svg" not in render_comparison(RECORD, made, {})
