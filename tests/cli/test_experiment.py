from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from pymixunlearn.experiments.paper.exhibit import exhibit_names

Invoke = Callable[..., Result]
Interrupt = Callable[[list[str], Callable[[str], bool]], str]
Refused = Callable[[list[str], str], None]
ROWS = {
    "gentle": {"label": "Gentle", "method": "neggrad", "settings": {"epochs": 1}},
    "ours": {"label": "Ours", "method": "mixunlearn", "label_aware": False, "settings": {"epochs": 1}},
}
EPOCHS = {"initial.epochs": 1, "retrain.epochs": 1}
DATA = {"digits": {"label": "Digits", "dataset": "digits"}, "other": {"label": "Other", "dataset": "nowhere"}}


@pytest.fixture
def mine() -> str:
    """A file of one's own in the working directory."""
    scale = {"data": DATA, "seeds": [0], "settings": EPOCHS}
    content = {"title": "Mine", "form": "table", "tasks": [{"task": "class"}], "rows": ROWS, "scales": {"own": scale}}
    Path("mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return "mine.yaml"


def test_list_names_every_exhibit(invoke: Invoke) -> None:
    result = invoke("experiment", "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(exhibit_names())
    assert max(map(len, lines)) <= 80


def test_show_prints_a_file_that_runs(invoke: Invoke) -> None:
    result = invoke("experiment", "show", "figure8")
    assert result.exit_code == 0
    content = yaml.safe_load(result.stdout)
    content["rows"] = {"gentle": ROWS["gentle"]}
    content["form"] = "table"
    content["scales"]["tiny"]["settings"] = EPOCHS
    Path("edited.yaml").write_text(yaml.safe_dump(content))
    ran = invoke("experiment", "run", "edited.yaml", "--scale", "tiny", "--device", "cpu")
    assert ran.exit_code == 0, ran.output
    assert "cells      done  1 of 1 cells run" in ran.stdout
    assert "Files: runs/edited-tiny/report.html, table.md, table.tex, table.csv" in ran.stdout


def test_run_prints_its_table_and_marks_what_has_no_data(invoke: Invoke, mine: str) -> None:
    command = ("experiment", "run", mine, "--scale", "own", "--device", "cpu", "--out", "e", "--cells", "c")
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii()
    lines = result.stdout.splitlines()
    assert any(line.startswith("Other: not run: ") for line in lines)
    assert "--data other=FOLDER" in result.stdout
    for row in ("Retrain", "second", "initial", "Gentle", "Ours"):  # a name of two words may have two lines
        assert sum(f"| {row} " in line for line in lines) >= 1
    record = json.loads(Path("e/experiment.json").read_text())
    assert record["command_line"] == f"mixunlearn-cli {' '.join(command)}"
    assert {cell["status"] for cell in record["cells"].values()} == {"finished", "not run"}
    assert len(list(Path("c").iterdir())) == 2
    statuses = {line["case"]: line["status"] for line in csv.DictReader(Path("e/table.csv").open())}
    assert statuses == {"digits": "finished", "other": "not run"}
    for name in ("report.html", "table.md"):
        assert "Not run: " in Path("e", name).read_text()

    again = invoke(*command)
    assert "done  0 of 2 cells run" in again.stdout
    assert invoke(*command, "--seeds", "0", "--only", "ours").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tabel1", "unknown exhibit 'tabel1' * Did you mean 'table1'"),
        ("table1 --scale tinny", "unknown scale of 'table1' 'tinny' * Did you mean 'tiny'"),
        ("table1 --scale tiny --only neggard", "unknown pattern of cells 'neggard' * Did you mean 'neggrad'"),
        ("table1 --scale tiny --data digit=.", "unknown data set of the exhibit 'digit' * 'digits'"),
        ("table1 --scale tiny --data digits", "expected NAME=FOLDER"),
        ("table1 --scale tiny --seeds 1,1", "expected each once"),
        ("table1 --scale tiny --jobs 0", "0 is not in the range x>=1"),
    ],
)
def test_wrong_usage_exits_2(refused: Refused, arguments: str, message: str) -> None:
    refused(["experiment", "run", *arguments.split()], message)


def test_an_experiment_without_any_data_exits_1(invoke: Invoke) -> None:
    result = invoke("experiment", "run", "figure10", "--device", "cpu")
    assert result.exit_code == 1
    assert "ImageNet: not run: " in result.stdout
    assert result.stderr.splitlines() == ["Error: none of the cells has a result; the reasons are above"]


def test_ctrl_c_keeps_the_experiment_which_then_goes_on(invoke: Invoke, interrupt: Interrupt, mine: str) -> None:
    content = yaml.safe_load(Path(mine).read_text())
    content["rows"]["ours"]["settings"] = {"epochs": 150}
    Path(mine).write_text(yaml.safe_dump(content, sort_keys=False))
    command = ["experiment", "run", mine, "--scale", "own", "--device", "cpu"]
    complaint = interrupt(command, lambda line: line.startswith("digits/gentle/seed0: mean gap"))
    (line,) = complaint.strip().splitlines()
    assert line.startswith("Interrupted; what is done is saved in runs/mine-own. To go on: mixunlearn-cli experiment")
    cells = json.loads(Path("runs/mine-own/experiment.json").read_text())["cells"]
    assert cells["digits/gentle/seed0"]["status"] == "finished"
    assert cells["digits/ours/seed0"]["status"] == "unfinished"
    only = invoke(*command, "--only", "gentle", "--threads", "1")
    assert only.exit_code == 0 and "done  0 of 1 cells run" in only.stdout
