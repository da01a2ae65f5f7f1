"""Measurements of forgetting: the file that is kept, and the page that tells of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.forgetting import COLUMNS
from benchmarks.forgetting_tables import aims, main, masks, summary, table
from benchmarks.rows import Rows
from tests.cli.write_names import FIRST_HELD_OUT, MEASURED

PAGE = Path(__file__).parents[2] / "docs" / "measured.md"


def test_rows_are_found_again_after_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = Rows(path, ("name", "seed", "found"))
    rows.add({"name": "a, b", "seed": 3, "found": "yes"})
    rows.add({"name": "c", "seed": 4, "found": None})
    rows.add({"name": "d", "seed": 5})
    for read in (rows, Rows(path, ("name", "seed", "found"))):
        assert read.find(name="a, b", seed=3) == {"name": "a, b", "seed": "3", "found": "yes"}
        assert read.find(name="c", seed=3) is None
        assert [row["found"] for row in read.rows] == ["yes", "", ""]


def row(seed: int, subject: str, decision: str, share: float, gap: float, test: float) -> dict[str, str]:
    found = {"model": "cnn", "task": "data", "seed": seed, "subject": subject, "decision": decision, "gap": gap}
    found |= {"seconds": 50 * share, "share_of_retrain": share, "test": test, "generator": ""}
    return {key: str(value) for key, value in found.items()}


ROWS = [
    row(seed, subject, decision, share, gap, test)
    for seed, before in ((20, "refused"), (21, "cannot tell"), (22, "refused"))
    for subject, decision, share, gap, test in (
        ("retrain", "accepted", 1.0, 0.0, 80.0),
        ("initial", before, 0.0, 5.0, 80.0),
        ("eu-k", "accepted", 0.2 * (seed - 19), 1.25, 78.5),
        ("prune-reset", "refused" if seed == 20 else "accepted", 2.5, 0.25, 81.0),
        ("second retrain", "accepted", 1.1, 1.0, 81.0),
    )
]


def test_decisions_count_where_the_untouched_model_is_refused() -> None:
    lines = summary(ROWS).splitlines()
    assert "| cnn, data | eu-k | 2 of 2 | 10 to 30 | 20 to 60 % | 1.2 | -1.5 |" in lines
    assert "| cnn, data | prune-reset | 1 of 2 | 125 | 250 % | 0.2 | +1.0 |" in lines
    assert [line.split("|")[2].strip() for line in lines[2:5]] == ["retrain", "second retrain", "initial"]


def test_aims_count_what_is_accepted_and_cheap_and_near() -> None:
    assert aims(ROWS).splitlines()[2:] == [
        "| eu-k | 2 of 2 | 2 of 2 | 1 of 2 | 0 of 2 | 0 of 2 |",
        "| prune-reset | 1 of 2 | 0 of 2 | 0 of 2 | 2 of 2 | 2 of 2 |",
    ]


def test_aims_without_a_second_retrain_leave_out_what_it_measures() -> None:
    """Files of development, and of forms that were run once, have none in some cells or in any."""
    some = [row for row in ROWS if row["subject"] != "second retrain" or row["seed"] == "20"]
    assert aims(some).splitlines()[2:] == [
        "| eu-k | 2 of 2 | 2 of 2 | 1 of 2 | 0 of 1 | 0 of 1 |",
        "| prune-reset | 1 of 2 | 0 of 2 | 0 of 2 | 1 of 1 | 1 of 1 |",
    ]
    none = [row for row in ROWS if row["subject"] != "second retrain"]
    assert [line.endswith("| - | - |") for line in aims(none).splitlines()[2:]] == [True, True]


@pytest.mark.parametrize(("options", "seeds"), [((), 4), (("--to-seed", "0"), 1), (("--from-seed", "20"), 3)])
def test_the_tables_of_a_kept_file_are_printed(options: tuple[str, ...], seeds: int) -> None:
    printed = CliRunner().invoke(main, [str(MEASURED), *options], catch_exceptions=False)
    assert f"| cnn, class | retrain | {seeds} of {seeds} |" in printed.output


def test_masks_are_described_where_images_are_mixed() -> None:
    mixing = row(20, "mixunlearn, aware", "refused", 0.2, 1.0, 80.0)
    mixing |= {"generator": "-1.5", "generator_vanilla": "-1.0", "mask_error": "0.25", "mask_within": "0.1"}
    mixing |= {"mask_between": "0.2"}
    (line,) = masks([*ROWS, mixing]).splitlines()[2:]
    assert line == "| cnn, data | mixunlearn, aware | 0.250 | 0.100 | 0.200 | -0.50 |"


@pytest.mark.parametrize("made", [summary, aims, masks])
def test_the_page_has_the_numbers_of_the_file(made: Callable[[list[dict[str, str]]], str]) -> None:
    rows = [row for row in Rows(MEASURED, COLUMNS).rows if int(row["seed"]) >= FIRST_HELD_OUT]
    assert rows and made(rows) in PAGE.read_text("utf-8")


def test_the_page_has_the_numbers_of_the_development_too() -> None:
    rows = [row for row in Rows(MEASURED, COLUMNS).rows if int(row["seed"]) < FIRST_HELD_OUT]
    for beds in ({"cnn", "resnet14"}, {row["model"] for row in rows} - {"cnn", "resnet14"}):
        some = [row for row in rows if row["model"] in beds]
        assert not some or summary(some) in PAGE.read_text("utf-8")


def test_the_page_has_the_starts_of_the_reset() -> None:
    assert table(Rows(MEASURED.with_name("resetting-cpu.csv"), COLUMNS).rows) in PAGE.read_text("utf-8")


def test_the_page_has_the_other_forms() -> None:
    assert table(Rows(MEASURED.with_name("forgetting-forms-cpu.csv"), COLUMNS).rows) in PAGE.read_text("utf-8")


def test_the_page_has_the_shorter_schedule() -> None:
    assert table(Rows(MEASURED.with_name("forgetting-short-cpu.csv"), COLUMNS).rows) in PAGE.read_text("utf-8")
