"""verify, and the ids that a deletion request comes with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Invoke = Callable[..., Result]

SMALL = ("unlearn", "--no-retrain", "--set", "epochs=1", "--set", "initial.epochs=1")


def test_a_run_holds_until_it_is_changed(invoke: Invoke) -> None:
    Path("requests.csv").write_text("index,person\n3,anna\n4,bert\n9,anna\n")
    result = invoke(*SMALL, "--forget", "requests.csv", "--id-column", "person", "--out", "run")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("run/report.json").read_text())["request"]["forgotten"]["ids"]["count"] == 2

    result = invoke("verify", "run", "--forget", "requests.csv")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    held = sum(line.startswith("holds  ") for line in lines)
    assert lines[-1] == f"All {held} checks hold." and held > 15
    assert any(line.startswith("not checked  what no hash can show") for line in lines)
    assert any(line.startswith("holds  requests.csv") and "3 indices and ids ('person')" in line for line in lines)

    content = Path("run/split.json").read_text()
    Path("run/split.json").write_text(content.replace("1438", "1439", 1))
    result = invoke("verify", "run", "--hashes-only")
    assert result.exit_code == 3
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("FAILS")] == ["split.json"]
    assert result.stderr.startswith("1 of ") and "checks fail: run is not what report.json says.\n" in result.stderr


def test_a_folder_without_a_record_is_one_line(invoke: Invoke) -> None:
    result = invoke("verify", "nowhere")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: 'nowhere' holds no report.json") and result.stderr.count("\n") == 1


def test_an_id_column_needs_a_list(invoke: Invoke) -> None:
    result = invoke(*SMALL, "--id-column", "person")
    assert result.exit_code == 2 and "an id column belongs to a table, hf: data or a file of samples" in result.stderr
