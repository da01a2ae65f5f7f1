"""A run that is killed at any of its file operations leaves nothing behind, and ends the same at the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_runs.py")


@pytest.mark.parametrize(
    ("command", "step", "first"),
    # A file takes seven operations, so that steps of five come upon each kind of them. Every operation of `unlearn`
    # is tried, in two halves that run side by side.
    [
        ("train", 5, 1),
        pytest.param("unlearn", 2, 1, marks=pytest.mark.slow),
        pytest.param("unlearn", 2, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_killed_ends_the_same_and_leaves_nothing(
    command: str, step: int, first: int, tmp_path: Path
) -> None:
    program = [sys.executable, str(PROGRAM), str(tmp_path), command, str(step), str(first)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # no thread of OpenMP outlives a fork
    done = subprocess.run(program, capture_output=True, text=True, timeout=1500, env=one_thread)
    assert done.returncode == 0, done.stderr
    *faults, count = done.stdout.splitlines()
    assert not faults
    assert int(count) > 50
