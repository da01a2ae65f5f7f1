"""The program as a process: exit codes, interruption, terminals, and one seed for the same weights."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pymixunlearn.models.weight_files import read_tensors
from pymixunlearn.training import tensors_hash

Interrupt = Callable[[list[str], Callable[[str], bool]], str]
Program = tuple[list[str], dict[str, str]]
SMALL = ["unlearn", "--device", "cpu", "--set", "initial.epochs=1", "--set", "retrain.epochs=1"]


def run(program: Program, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = program
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def weights(folder: str | Path) -> str:
    """Return the hash of a run's weights; the file's header holds hashes that are keyed, and every run has its key."""
    return tensors_hash(read_tensors(Path(folder) / "model.safetensors")[0])


def test_two_processes_give_the_same_weights(program: Program) -> None:
    for name in ("a", "b"):
        result = run(program, *SMALL, "--set", "epochs=2", "--out", name)
        assert (result.returncode, result.stderr) == (0, "")
    assert weights("a") == weights("b")


def test_exit_codes(program: Program) -> None:
    assert run(program, "info").returncode == 0
    failed = run(program, "unlearn", "--forget-class", "12")
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1
    misused = run(program, "unlearn", "--no-such-option")
    assert misused.returncode == 2 and len(misused.stderr.splitlines()) == 1


def test_a_current_folder_that_is_gone_is_one_sentence(program: Program) -> None:
    command, environment = program
    script = f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join(command)} info"
    result = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == "Error: the current folder is gone; change to one that exists\n"


def test_ctrl_c_keeps_the_run_which_then_goes_on(program: Program, interrupt: Interrupt) -> None:
    arguments = [*SMALL, "--set", "epochs=120", "--no-retrain", "--out", "run"]
    complaint = interrupt(arguments, lambda line: line.startswith("unlearn     25 %"))
    assert complaint.strip().splitlines()[-1].startswith("Interrupted; the state is saved in run. To go on:")
    assert [path.name for path in Path("run").iterdir()] == [".partial"]

    resumed = run(program, *arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming the interrupted run in run." in resumed.stdout
    first = next(line for line in resumed.stdout.splitlines() if line.startswith("unlearn"))
    share = re.search(r"(\d+) %", first)
    assert share is not None and 20 <= int(share[1]) < 100
    assert Path("run/metrics.json").is_file() and not Path("run/.partial").exists()


def test_a_terminal_gets_bars(program: Program) -> None:
    command, environment = program
    reader, writer = pty.openpty()
    arguments = [*command, *SMALL, "--set", "epochs=2", "--out", "run"]
    process = subprocess.Popen(
        arguments, env={**environment, "TERM": "xterm", "COLUMNS": "120"}, stdout=writer, stderr=writer
    )
    os.close(writer)
    shown = b""
    # Linux reports an error instead of the end of the file once the other end is closed.
    with suppress(OSError):
        while block := os.read(reader, 65536):
            shown += block
    os.close(reader)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "\x1b[" in text and "100 %" in text and "unlearned" in text and "Run folder: run" in text
