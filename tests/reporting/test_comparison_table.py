from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import stdev
from typing import Any

import pytest
from rich.console import Console

from pymixunlearn.reporting import ComparisonRow, ComparisonTable, comparison_as_rich, comparison_table
from pymixunlearn.reporting.comparison_html import results_lines
from pymixunlearn.reporting.formats import to_csv, to_latex, to_markdown

RETRAIN = {0: (98.0, 0.0, 30.0), 1: (96.0, 0.0, 34.0)}
KEYS = ("test_r", "test_f", "asr")


def cell(
    name: str, seed: int, values: Sequence[float] | None, *, aware: bool = True, **changes: Any
) -> tuple[str, dict[str, Any]]:
    """What compare.json says about a cell whose three metrics are ``values``, or which failed."""
    content: dict[str, Any] = {"name": name, "method": name.split("-")[0], "label_aware": aware, "seed": seed}
    content |= {"status": "failed", "reason": "unlearning diverged"}
    if values is not None:
        theirs = RETRAIN[seed]
        gaps = [abs(a - b) for a, b in zip(values, theirs, strict=True)]
        content |= {
            "status": "finished",
            "reason": None,
            "metrics": {
                "initial": dict(zip(KEYS, (98.5, 97.0, 50.0), strict=True)),
                "unlearned": dict(zip(KEYS, values, strict=True)),
                "retrain": dict(zip(KEYS, theirs, strict=True)),
            },
            "gap": {"initial": {"mean": 40.0 + seed}, "unlearned": {"mean": sum(gaps) / 3}},
            "seconds": {"initial": 5.0, "retrain": 10.0 + seed, "unlearned": 1.0 + seed},
            "hashes": {"retrain": f"hash {seed}"},
        }
    return f"{name}-seed{seed}", {**content, **changes}


def record(*cells: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "task": "class",
        "params": {"classes": [0, 3]},
        "architecture": {"name": "cnn"},
        "command_line": "mixunlearn-cli compare --set 'a_b=1'",
        "cells": dict(cells),
    }


EXAMPLE = record(
    cell("scrub", 0, (97.0, 0.0, 31.0)),
    cell("scrub", 1, (97.0, 2.0, 41.0)),
    cell("neggrad", 0, (90.0, 0.0, 30.0)),
    cell("neggrad", 1, (90.0, 2.004, 33.0)),
    cell("mixunlearn-aware", 0, (80.0, 9.0, 80.0)),
    cell("mixunlearn-aware", 1, (80.0, 9.0, 80.0)),
    cell("laf", 0, (98.0, 0.0, 30.0), aware=False),
    cell("laf", 1, None, aware=False),
    cell("l-mix", 0, (60.0, 0.0, 60.0), aware=False),
    cell("l-mix", 1, (60.0, 0.0, 60.0), aware=False),
    cell("ssd", 0, None),
    cell("ssd", 1, None),
)
PAPER = {
    "retrain": {"test_r": (98.79, 0.2), "test_f": (0.0, 0.0), "asr": (26.56, 1.75)},
    "neggrad": {"test_r": (97.79, 0.1), "test_f": (2.0, 1.0), "asr": (29.56, 1.0)},
    "laf": {"test_f": (1.0, 1.0)},
}


def rows(table: ComparisonTable) -> Mapping[str, ComparisonRow]:
    return {row.name: row for row in table.rows}


def test_a_row_without_any_result_says_what_became_of_it() -> None:
    left_out = {"status": "not run", "reason": "left out by --only"}
    table = comparison_table(
        record(
            cell("scrub", 0, (97.0, 0.0, 31.0)),
            cell("scrub", 1, None, **left_out),
            cell("ssd", 0, None, **left_out),
            cell("ssd", 1, None),
            cell("neggrad", 0, None, **left_out),
            cell("neggrad", 1, None, **left_out),
        )
    )
    cells = {
        line.split("|")[2].strip(): line.split("|")[3].strip()
        for line in to_markdown(table).splitlines()
        if "|" in line
    }
    assert cells["scrub"] == "**97.00**"
    assert (cells["ssd"], cells["neggrad"]) == ("failed", "not run")


def test_means_and_deviations_are_over_seeds() -> None:
    found = rows(comparison_table(EXAMPLE))
    asr = found["scrub"].cells["asr"]
    assert asr.mean == 36.0 and asr.std == pytest.approx(stdev([31.0, 41.0]))
    # |97-98|, 0, |31-30| for seed 0 and |97-96|, 2, |41-34| for seed 1: the gaps are of each seed's own Retrain.
    assert found["scrub"].cells["mean"].mean == pytest.approx((2 / 3 + 10 / 3) / 2)
    assert found["scrub"].cells["seconds"].mean == 1.5
    assert found["laf"].cells["asr"].std is None  # one seed has no deviation
    assert found["Retrain"].cells["test_r"].mean == 97.0 and "mean" not in found["Retrain"].cells
    assert found["Retrain"].cells["seconds"].mean == 10.5
    assert found["initial"].cells["mean"].mean == 40.5


def test_rows_are_grouped_and_mixunlearn_ends_its_group() -> None:
    table = comparison_table(EXAMPLE, PAPER, "Table 1")
    assert [(row.group, row.name) for row in table.rows] == [
        ("", "Retrain"),
        ("", "initial"),
        ("aware", "neggrad"),  # the paper's order first
        ("aware", "scrub"),
        ("aware", "ssd"),
        ("aware", "mixunlearn-aware"),
        ("agnostic", "laf"),
        ("agnostic", "l-mix"),
    ]


def test_the_closest_to_retrain_is_marked_in_each_group() -> None:
    found = rows(comparison_table(EXAMPLE))
    # scrub's mean Test_r is Retrain's; neggrad's ASR of 31.5 is nearer to 32 than 36 is.
    assert found["scrub"].closest == {"test_r", "test_f", "mean"}
    # Test_f of 1.00 and 1.002 look the same in the table, and both are marked.
    assert found["neggrad"].closest == {"test_f", "asr"}
    assert found["mixunlearn-aware"].closest == frozenset()
    # laf is nearer in everything, but one of its seeds failed.
    assert found["laf"].closest == frozenset()
    assert found["l-mix"].closest == {"test_r", "test_f", "asr", "mean"}
    assert found["Retrain"].closest == found["initial"].closest == frozenset()


def test_closeness_not_height_counts() -> None:
    table = comparison_table(record(cell("a", 0, (99.9, 0.0, 30.0)), cell("b", 0, (97.5, 0.0, 30.0))))
    assert "test_r" in rows(table)["b"].closest and "test_r" not in rows(table)["a"].closest


def test_cells_without_a_result_are_noted_with_the_reason() -> None:
    table = comparison_table(EXAMPLE)
    assert table.notes == (
        "laf, seed 1, failed: unlearning diverged",
        "ssd, seeds 0, 1, failed: unlearning diverged",
    )
    assert (rows(table)["ssd"].finished, rows(table)["ssd"].asked) == (0, 2)


def test_retrain_models_that_differ_within_a_seed_are_told() -> None:
    table = comparison_table(
        record(cell("a", 0, (90, 0, 30)), cell("b", 0, (90, 0, 30), hashes={"retrain": "another"}))
    )
    assert len(table.notes) == 1 and "2 different Retrain models" in table.notes[0]


@pytest.mark.parametrize("paper", [None, PAPER])
def test_nothing_finished_still_makes_a_table(paper: Any) -> None:
    table = comparison_table(record(cell("neggrad", 0, None)), paper, "Table 1")
    assert [row.name for row in table.rows] == ["Retrain", "initial", "neggrad"]
    assert table.metrics == KEYS
    for text in (to_markdown(table), to_csv(table), to_latex(table)):
        assert "neggrad" in text and ("97.79" in text) is (paper is not None)


def test_the_papers_numbers_stand_beside_with_the_gap_of_its_means() -> None:
    table = comparison_table(EXAMPLE, PAPER, "Table 1")
    neggrad = rows(table)["neggrad"].published
    assert neggrad["test_r"].mean == 97.79 and neggrad["test_r"].std == 0.1
    assert neggrad["mean"].mean == pytest.approx((1.0 + 2.0 + 3.0) / 3)
    assert "mean" not in rows(table)["laf"].published  # it lacks metrics that Retrain has
    assert rows(table)["Retrain"].published["asr"].mean == 26.56
    assert rows(table)["scrub"].published == {}


def test_markdown_is_tables_of_one_width_with_the_closest_in_bold() -> None:
    text = to_markdown(comparison_table(EXAMPLE, PAPER, "Table 1"))
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    ours, papers = lines[:10], lines[10:]
    assert {len(line) for line in ours} == {8} and {len(line) for line in papers} == {6}
    assert [cell.strip() for cell in ours[0]] == [
        "Labels", "Method", "Test_r", "Test_f", "ASR", "Mean gap", "Seconds", "Seeds",
    ]  # fmt: skip
    scrub = next([part.strip() for part in line] for line in ours if "scrub" in line[1])
    assert scrub[2:5] == ["**97.00 ± 0.00**", "**1.00 ± 1.41**", "36.00 ± 7.07"]
    assert [line[1].strip() for line in papers[2:]] == ["Retrain", "neggrad", "laf"]
    assert "- laf, seed 1, failed: unlearning diverged" in text and "Table 1" in text
    assert EXAMPLE["command_line"] in text and "classes 0, 3" in text


def test_csv_has_full_precision_and_the_papers_columns() -> None:
    lines = {line["method"]: line for line in csv.DictReader(StringIO(to_csv(comparison_table(EXAMPLE, PAPER, "T"))))}
    assert float(lines["neggrad"]["test_f_mean"]) == 1.002
    assert lines["scrub"]["closest"] == "test_r test_f mean_gap"
    assert lines["laf"]["test_r_std"] == "" and lines["laf"]["seeds_finished"] == "1"
    assert lines["ssd"]["test_r_mean"] == ""
    assert float(lines["neggrad"]["paper_asr_mean"]) == 29.56 and lines["scrub"]["paper_asr_mean"] == ""
    assert None not in lines["scrub"]  # no cell beyond the header


def test_memory_is_shown_where_it_was_measured() -> None:
    def measured(start: int, peak: int) -> dict[str, Any]:
        found = {"seconds": 1.0, "start_bytes": start * 2**20, "peak_bytes": peak * 2**20}
        return {"phases": {"unlearned": found}, "peak_memory": "resident set of the process"}

    bytes_of = {0: measured(100, 140), 1: measured(200, 250)}
    cells = [cell("scrub", seed, (97.0, 0.0, 31.0), **found) for seed, found in bytes_of.items()]
    table = comparison_table(record(*cells, cell("neggrad", 0, (90.0, 0.0, 30.0))))
    row = next(row for row in table.rows if row.name == "scrub")
    assert (row.cells["added_megabytes"].mean, row.cells["peak_megabytes"].mean) == (45.0, 195.0)
    text = to_markdown(table)
    (line,) = (line for line in text.splitlines() if "| scrub |" in line)
    assert line.split("|")[-3].strip() == "45" and "Memory MB: resident set of the process" in text
    lines = {line["method"]: line for line in csv.DictReader(StringIO(to_csv(table)))}
    assert (lines["scrub"]["added_megabytes_mean"], lines["scrub"]["peak_megabytes_mean"]) == ("45.0", "195.0")
    assert lines["neggrad"]["peak_megabytes_mean"] == "" and None not in lines["scrub"]
    assert results_lines(table)["headings"][-1] == ("added_megabytes", "Memory MB")
    assert "Memory" not in to_markdown(comparison_table(EXAMPLE))  # runs of before


def test_latex_balances_and_every_line_has_all_columns() -> None:
    strange = record(cell("a_b", 0, (90.0, 0.0, 30.0)), cell("c", 0, None, reason="50 % of {it} & more ~ \\x"))
    for table in (comparison_table(EXAMPLE, PAPER, 'P "Q", Table 1'), comparison_table(strange)):
        text = to_latex(table)
        assert text.count("\\begin{") == text.count("\\end{") == 2
        bare = text.replace("\\{", "").replace("\\}", "").replace("\\textbackslash{}", "")
        assert bare.count("{") == bare.count("}")
        body = text[text.index("\\toprule") : text.index("\\bottomrule")]
        lines = [line for line in body.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert {line.replace("\\&", "").count("&") for line in lines} == {6}
    assert "a\\_b" in text and "50 \\% of \\{it\\} \\& more" in text
    assert "\\textbf{97.00 $\\pm$ 0.00}" in to_latex(comparison_table(EXAMPLE))


@pytest.mark.parametrize("published", [False, True])
def test_a_terminal_gets_all_cells_and_a_file_ascii(published: bool) -> None:
    stream = StringIO()
    table = comparison_table(EXAMPLE, PAPER, "Table 1")
    Console(file=stream, width=160, color_system=None).print(comparison_as_rich(table, plain=True, published=published))
    text = stream.getvalue()
    assert text.isascii() and "neggrad" in text
    assert ("97.79 +- 0.10" in text) is published
    assert ("*97.00 +- 0.00" in text) is not published


def test_boundary_expand_is_not_ranked_among_methods_without_labels() -> None:
    """It reads none, but it is a half of a method that the paper has among those with labels."""
    table = comparison_table(
        record(
            cell("boundary-expand", 0, (98.0, 0.0, 30.0), aware=False, method="boundary-expand"),
            cell("laf", 0, (97.0, 1.0, 31.0), aware=False),
            cell("scrub", 0, (96.0, 2.0, 32.0)),
        )
    )
    assert [(row.name, row.group) for row in table.rows[2:]] == [
        ("boundary-expand", "aware"),
        ("scrub", "aware"),
        ("laf", "agnostic"),
    ]
    assert rows(table)["laf"].closest >= {"test_r", "test_f", "asr"}


def test_a_table_says_which_attack_it_has() -> None:
    assert not any("paper's code" in note for note in comparison_table(EXAMPLE).notes)
    assert "paper's code" in comparison_table({**EXAMPLE, "asr": "paper"}).notes[-1]
