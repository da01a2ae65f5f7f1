"""benchmarks/gpu.sh without a GPU: what it runs, for how long at most, and what it says of parts that fail."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from mixunlearn_cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PARTS = ["build", "info", "tests", "memcheck", "racecheck", "ops", "ops-compile", "step"]


class Tree:
    """A tree that holds the script and stand-ins for the programs that it runs, which write down how."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        (folder / "benchmarks").mkdir()
        shutil.copy(SCRIPT, folder / "benchmarks")
        for name in ("python", "mixunlearn-cli", "nvidia-smi"):
            self.stand_in(folder / "bin" / name)
        self.stand_in(folder / "csrc" / "tools" / "cuda_sanitizer.sh")

    def stand_in(self, path: Path, ends: str = "exit 0") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> {self.calls}\necho said by {path.name}\n{ends}\n')
        path.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = ["bash", self.folder / "benchmarks" / "gpu.sh", self.folder / "out"]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def lines(self, name: str) -> list[list[str]]:
        return [shlex.split(line)[1:] for line in self.calls.read_text().splitlines() if line.startswith(f"{name} ")]

    def summary(self) -> dict[str, str]:
        rows = (self.folder / "out" / "summary.txt").read_text().splitlines()
        return {row.split()[0]: row.split(" s ", 1)[1].strip() for row in rows}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_every_part_runs_and_leaves_its_log(tree: Tree) -> None:
    result = tree.run()
    assert result.returncode == 0, result.stderr
    assert tree.summary() == dict.fromkeys(PARTS, "passed")
    assert {f"{part}.log" for part in PARTS} <= {path.name for path in (tree.folder / "out").iterdir()}
    assert tree.lines("cuda_sanitizer.sh") == [["memcheck"], ["racecheck"]]


def test_a_part_that_fails_does_not_keep_the_next_from_running(tree: Tree) -> None:
    tree.stand_in(tree.folder / "csrc" / "tools" / "cuda_sanitizer.sh", "exit 3")
    result = tree.run()
    assert result.returncode == 1
    failed = dict.fromkeys(["memcheck", "racecheck"], "failed with exit code 3")
    assert tree.summary() == {**dict.fromkeys(PARTS, "passed"), **failed}


def test_a_part_that_takes_too_long_is_ended_and_that_is_said(tree: Tree) -> None:
    script = tree.folder / "benchmarks" / "gpu.sh"
    script.write_text(script.read_text().replace("part racecheck 45", "part racecheck 0.2"))
    tree.stand_in(tree.folder / "csrc" / "tools" / "cuda_sanitizer.sh", '[ "$1" = memcheck ] || exec sleep 60')
    assert tree.run().returncode == 1
    assert tree.summary()["racecheck"] == "ran out of its 0.2 s"
    assert tree.summary()["step"] == "passed"


def test_without_a_gpu_nothing_runs(tree: Tree) -> None:
    tree.stand_in(tree.folder / "bin" / "python", "exit 1")
    assert tree.run().returncode == 1
    assert not (tree.folder / "out" / "summary.txt").exists()


def test_it_takes_at_most_nine_minutes() -> None:
    limits = [int(seconds) for seconds in re.findall(r"^part \S+ (\d+) ", SCRIPT.read_text(), re.MULTILINE)]
    assert len(limits) == len(PARTS) and sum(limits) <= 540


def test_its_commands_and_tests_exist(tree: Tree) -> None:
    tree.run()
    commands = tree.lines("mixunlearn-cli")
    assert len(commands) == 4
    for words in commands:
        command: click.Command = main
        context = click.Context(command)
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None
            command = found
        command.make_context(str(command.name), words)  # a wrong option or value raises
    (tests,) = [words for words in tree.lines("python") if "pytest" in words]
    assert [word for word in tests if word.startswith("tests/") and not (ROOT / word).is_dir()] == []
