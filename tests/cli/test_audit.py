"""``mixunlearn-cli audit``: what it prints and writes, its errors, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
Program = tuple[list[str], dict[str, str]]
SMALL_RUN = (
    *("unlearn", "--device", "cpu", "--method", "fine-tune", "--task", "data", "--no-retrain", "--out", "run"),
    *("--set", "epochs=1", "--set", "initial.epochs=1"),
)
SMALL = ("--device", "cpu", "--jobs", "1", "--epochs", "1", "--shadow-models", "8")


def failure(result: Result) -> str:
    """Return the one line of a failed command."""
    (line,) = result.stderr.splitlines()
    return line


def test_an_audit_of_a_run_prints_one_table_and_its_limits(invoke: Invoke) -> None:
    assert invoke(*SMALL_RUN).exit_code == 0
    result = invoke("audit", "run", *SMALL)
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii() and max(map(len, result.stdout.splitlines())) <= 80
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Audit of fine-tune in run: ")
    told = " ".join(result.stdout.split())
    assert "forgotten samples of digits against" in told and "8 shadow models, 1 at a time on cpu" in told
    record = json.loads(Path("run/audit.json").read_text())
    for attack in record["attacks"].values():
        rows = [line for line in lines if line.startswith(f"| {attack['label']} ")]
        auc = f"{attack['auc']['value']:.3f} [{attack['auc']['low']:.3f}, {attack['auc']['high']:.3f}]"
        assert sum(auc in row for row in rows) == 1  # the table goes on below
    assert sum(line.startswith("KLoM, ") for line in lines) == 4
    printed = " ".join(result.stdout.split())
    for sentence in [*record["findings"].splitlines(), *record["limits"].splitlines()]:
        assert sentence in printed
    assert "The shadow models were trained" not in printed  # one epoch is what the run had, too
    assert lines[-1] == "Audit: run/audit.json"
    assert record["command_line"] == "mixunlearn-cli audit run " + " ".join(SMALL)

    again = invoke("audit", "run", *SMALL)
    assert "finished already" in again.stdout and "shadows" not in again.stdout.split("Findings")[0].split("saved")[1]


def test_a_trained_model_is_audited_without_a_run(invoke: Invoke) -> None:
    assert invoke("train", "--set", "epochs=1", "--out", "initial").exit_code == 0
    Path("ids.txt").write_text(" ".join(map(str, range(120))))
    result = invoke(
        *("audit", "--model", "initial", "--forget", "ids.txt", "--device", "cpu", "--jobs", "1"),
        *("--attacks", "rmia", "--shadow-models", "4"),
    )
    assert result.exit_code == 0, result.output
    assert "Audit of the model from the checkpoint initial/model.safetensors" in result.stdout
    assert "KLoM" not in result.stdout
    file = Path(result.stdout.splitlines()[-1].removeprefix("Audit: "))
    assert file.parent.parent == Path("runs")
    assert list(json.loads(file.read_text())["attacks"]) == ["rmia"]


def test_klom_alone_has_no_table(invoke: Invoke) -> None:
    assert invoke(*SMALL_RUN).exit_code == 0
    result = invoke("audit", "run", *SMALL, "--attacks", "klom")
    assert result.exit_code == 0, result.output
    assert "AUC" not in result.stdout and "KLoM, forgotten samples" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("", 2, "needs a run folder of 'unlearn', or a trained model by --model"),
        ("gone", 1, "'gone' holds no finished run of 'unlearn'"),
        ("gone --dataset mnist", 2, "leave out --dataset"),
        ("gone --forget-class 3", 2, "a run already says what was forgotten"),
        ("gone --attacks lira,rmai", 2, "unknown attack 'rmai'"),
        ("gone --shadow-models 7", 2, "expected an even number, got 7"),
        ("gone --shadow-models 2", 2, "2 is not in the range x>=4"),
        ("gone --jobs 0", 2, "0 is not in the range x>=1"),
        ("--model gone.pt --set epochs", 2, "expected name=value"),
        ("--model gone.pt", 1, "'gone.pt' does not exist"),
    ],
)
def test_mistakes(invoke: Invoke, arguments: str, code: int, message: str) -> None:
    result = invoke("audit", *arguments.split())
    assert result.exit_code == code
    assert failure(result).startswith("Error: ") and message in failure(result)
    assert not Path("runs").exists() and not Path("gone").exists()


def test_a_request_for_three_samples_is_too_small(invoke: Invoke) -> None:
    invoke("train", "--set", "epochs=1", "--out", "initial")
    Path("ids.txt").write_text("1 2 3")
    result = invoke("audit", "--model", "initial", "--forget", "ids.txt")
    assert result.exit_code == 1 and "compares at least 10 samples to forget" in failure(result)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_the_audit_goes_on(invoke: Invoke, program: Program, tmp_path: Path) -> None:
    assert invoke(*SMALL_RUN).exit_code == 0
    command, environment = program
    environment = {**environment, "PYTHONUNBUFFERED": "1", "PYMIXUNLEARN_CACHE": str(tmp_path / "cache")}
    arguments = [*command, "audit", "run", "--device", "cpu", "--jobs", "2", "--attacks", "lira"]
    arguments += ["--epochs", "4", "--shadow-models", "4"]
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("shadows     50 %"):
            # To the whole group, as a terminal sends it.
            os.killpg(process.pid, signal.SIGINT)
            break
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    (told,) = complaint.strip().splitlines()
    assert told.startswith("Interrupted; finished shadow models are cached. To go on: mixunlearn-cli audit run")
    assert not Path("run/audit.json").exists()
    with pytest.raises(ProcessLookupError):
        _wait_for_the_end_of_group(process.pid)

    kept = len(list((tmp_path / "cache" / "models").glob("*.json")))
    assert 2 <= kept < 8
    resumed = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert len(list((tmp_path / "cache" / "models").glob("*.json"))) == 8


def _wait_for_the_end_of_group(group: int) -> None:
    """Raise ProcessLookupError as soon as no process of the group is left."""
    for _ in range(100):
        os.killpg(group, 0)
        time.sleep(0.1)
