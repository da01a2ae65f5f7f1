from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.hashes import hashes_of

Invoke = Callable[..., Result]
Interrupt = Callable[[list[str], Callable[[str], bool]], str]
Refused = Callable[[list[str], str], None]
Program = tuple[list[str], dict[str, str]]
QUICK = ("compare", "--device", "cpu", "--set", "initial.epochs=1", "--set", "retrain.epochs=1")


def test_a_comparison_prints_and_writes_its_table(invoke: Invoke) -> None:
    arguments = ("--methods", "mixunlearn, fine-tune", "--methods", "gradient-ascent", "--seeds", "0,1")
    settings = ("mixunlearn.epochs=1", "fine-tune.epochs=1", "gradient-ascent.lr=1e5", "gradient-ascent.epochs=30")
    chosen = [word for setting in settings for word in ("--set", setting)]
    result = invoke(*QUICK, *arguments, *chosen)
    assert result.exit_code == 0, result.output
    assert result.stderr == "" and result.stdout.isascii()
    lines = result.stdout.splitlines()
    assert lines[0].startswith("4 methods, seeds 0, 1: 8 cells in runs/compare-digits-class-")
    assert any(line.startswith("fine-tune-seed1: mean gap ") for line in lines)
    for row in (
        "Retrain",
        "second Retrain",
        "initial",
        "fine-tune",
        "mixunlearn-aware",
        "mixunlearn-agnostic",
        "gradient-ascent",
    ):
        assert sum(f"| {row} " in line for line in lines) >= 1  # tables go on below
    assert [line for line in lines if len(line) > 80 and not line.startswith("  mixunlearn-cli ")] == []
    assert "Memory MB" not in result.stdout  # a column of the files and the page alone
    assert any(line.startswith("gradient-ascent, seeds 0, 1, failed: unlearning diverged") for line in lines)
    (tables,) = (line for line in lines if line.startswith("Tables: "))
    folder = Path(tables.removeprefix("Tables: ").split(",")[0]).parent
    record = json.loads((folder / "compare.json").read_text())
    assert len(record["cells"]) == 8 and record["command_line"].startswith("mixunlearn-cli compare")
    for key, cell in record["cells"].items():
        assert (folder / cell["folder"] / "model.safetensors").is_file() is (cell["status"] == "finished"), key
    methods = [line["method"] for line in csv.DictReader((folder / "table.csv").open())]
    assert methods[:3] == ["Retrain", "second Retrain", "initial"] and len(methods) == 7
    assert "| label-agnostic | mixunlearn-agnostic |" in (folder / "table.md").read_text()
    assert "\\begin{tabular}" in (folder / "table.tex").read_text()

    again = invoke(*QUICK, *arguments, *chosen)
    assert again.exit_code == 0 and "done  0 of 8 cells run" in again.stdout
    assert [line for line in again.stdout.splitlines() if "|" in line] == [line for line in lines if "|" in line]


def test_a_config_file_says_the_same(invoke: Invoke) -> None:
    Path("compare.yaml").write_text(
        "methods: [fine-tune, mixunlearn-aware]\nseeds: [3]\nforget-class: [1]\ninitial: {epochs: 1}\n"
        "retrain: {epochs: 1}\nfine-tune: {epochs: 1, lr: 1e-3}\nmixunlearn: {epochs: 1}\n"
    )
    result = invoke("compare", "--config", "compare.yaml", "--set", "mixunlearn-aware.epochs=2", "--out", "c")
    assert result.exit_code == 0, result.output
    record = json.loads(Path("c/compare.json").read_text())
    assert set(record["cells"]) == {"fine-tune-seed3", "mixunlearn-aware-seed3"}
    assert record["params"] == {"classes": [1]}
    settings = {
        name: json.loads(Path("c/cells", name, "config.json").read_text())["settings"] for name in record["cells"]
    }
    assert (settings["fine-tune-seed3"]["lr"], settings["mixunlearn-aware-seed3"]["epochs"]) == (1e-3, 2)


def test_a_cell_is_an_ordinary_run(invoke: Invoke) -> None:
    assert invoke(*QUICK, "--methods", "ssd", "--seeds", "2", "--out", "c").exit_code == 0
    small = ("--set", "initial.epochs=1", "--set", "retrain.epochs=1", "--retrain", "two")
    assert invoke("unlearn", "--method", "ssd", "--device", "cpu", "--seed", "2", *small, "--out", "u").exit_code == 0
    first, second = (json.loads(Path(name, "metrics.json").read_text()) for name in ("c/cells/ssd-seed2", "u"))
    assert first["metrics"] == second["metrics"] and hashes_of(first) == hashes_of(second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--methods neggard", "unknown method 'neggard'; * Did you mean 'neggrad'?"),
        ("--methods retrain", "has a row anyway"),
        ("--methods ,", "no method to compare"),
        ("--seeds one", "'one' are not whole numbers"),
        ("--seeds 1,1", "expected each once"),
        ("--set epochs=1", "setting 'epochs' names no method"),
        ("--set laf.epoch=1", "unknown setting 'epoch'"),
        ("--set laf.epochs", "expected name=value"),
        ("--jobs 0", "0 is not in the range x>=1"),
        ("--methods laf --seed 3", "No such option"),
    ],
)
def test_wrong_usage_exits_2(refused: Refused, arguments: str, message: str) -> None:
    refused(["compare", *arguments.split()], message)


def test_a_comparison_in_which_nothing_works_exits_1(invoke: Invoke) -> None:
    diverging = ("--set", "gradient-ascent.lr=1e5", "--set", "gradient-ascent.epochs=30")
    result = invoke(*QUICK, "--methods", "gradient-ascent", "--seeds", "0", *diverging, "--out", "c")
    assert result.exit_code == 1
    assert "failed: unlearning diverged" in result.stdout
    assert result.stderr.splitlines() == ["Error: none of the cells worked; the reasons are above"]
    assert json.loads(Path("c/compare.json").read_text())["cells"]["gradient-ascent-seed0"]["status"] == "failed"


@pytest.mark.parametrize("message", ["mixunlearn-cli list settings METHOD", "mixunlearn-agnostic", "initial.NAME"])
def test_help_lists_methods_and_settings(invoke: Invoke, message: str) -> None:
    assert message in invoke("compare", "--help").stdout


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_ctrl_c_keeps_the_comparison_which_then_goes_on(program: Program, interrupt: Interrupt, jobs: str) -> None:
    command, environment = program
    arguments = [*QUICK, "--methods", "fine-tune,mixunlearn-agnostic", "--seeds", "0", "--out", "c", "--jobs", jobs]
    arguments += ["--set", "fine-tune.epochs=1", "--set", "mixunlearn.epochs=60"]
    complaint = interrupt(arguments, lambda line: line.startswith("fine-tune-seed0: mean gap"))
    (line,) = complaint.strip().splitlines()
    assert line.startswith("Interrupted; what is done is saved in c. To go on: mixunlearn-cli compare")
    cells = json.loads(Path("c/compare.json").read_text())["cells"]
    assert cells["fine-tune-seed0"]["status"] == "finished"
    assert cells["mixunlearn-agnostic-seed0"]["status"] == "unfinished"

    resumed = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert "done  1 of 2 cells run" in resumed.stdout
