"""Every example runs as it is, and does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))


def run(name: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, FOLDER / name], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def percentages(output: str, row: str, metric: str) -> float:
    found = re.search(rf"^{row} .*\b{metric} +([\d.]+)", output, re.MULTILINE)
    assert found, output
    return float(found[1])


# What an example forgets: the initial model knows it, the unlearned one no longer does.
FORGOTTEN = {
    "unlearn_your_model.py": "train_f",
    "train_step_by_hand.py": "test_f",
    "add_a_method.py": "test_f",
    "judge_another_tool.py": "test_f",
}
WRITTEN = {"unlearn_your_model.py": ["unlearned.safetensors"], "judge_another_tool.py": ["judged"]}

LINES = {"add_a_method.py": 40, "train_step_by_hand.py": 60}


@pytest.mark.parametrize(("name", "most"), LINES.items())
def test_an_example_is_short(name: str, most: int) -> None:
    assert len((FOLDER / name).read_text().splitlines()) <= most


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_forgets(name: str, tmp_path: Path) -> None:
    output = run(name, tmp_path)
    assert percentages(output, "initial", FORGOTTEN[name]) > 90
    assert percentages(output, "unlearned", FORGOTTEN[name]) < 20
    written = [path.name for path in tmp_path.iterdir()]
    assert written == WRITTEN.get(name, [])


def test_what_another_tool_unlearned_is_audited_and_verified(tmp_path: Path) -> None:
    output = run("judge_another_tool.py", tmp_path)
    assert "KLoM of forgotten samples" in output and "Before unlearning, LiRA" in output
    assert re.search(r"[0-9]+ checks, all hold: True", output)
