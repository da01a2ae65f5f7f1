"""Measurements of forgetting: the file that is kept, and the page that tells of it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.forgetting import COLUMNS, summary
from benchmarks.rows import Rows
from tests.cli.write_names import FIRST_HELD_OUT, MEASURED

PAGE = Path(__file__).parents[2] / "docs" / "choosing.md"


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


def test_decisions_count_where_the_untouched_model_is_refused() -> None:
    def row(seed: int, subject: str, decision: str, share: float, gap: float, test: float) -> dict[str, str]:
        found = {"model": "cnn", "task": "data", "seed": seed, "subject": subject, "decision": decision}
        found |= {"share_of_retrain": share, "gap": gap, "test": test}
        return {key: str(value) for key, value in found.items()}

    rows = [
        row(seed, subject, decision, share, gap, 80 + gap)
        for seed, before in ((20, "refused"), (21, "cannot tell"))
        for subject, decision, share, gap in (
            ("retrain", "accepted", 1.0, 0.0),
            ("initial", before, 0.0, 5.0),
            ("eu-k", "accepted", 0.2 * (seed - 19), 1.25),
        )
    ]
    assert summary(rows).splitlines()[-1] == "| cnn, data | eu-k | 1 of 1 | 20 to 40 % | 1.2 | +1.2 |"


def test_the_page_has_the_numbers_of_the_file() -> None:
    rows = [row for row in Rows(MEASURED, COLUMNS).rows if int(row["seed"]) >= FIRST_HELD_OUT]
    assert rows and summary(rows) in PAGE.read_text("utf-8")
