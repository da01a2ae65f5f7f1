from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
Interrupt = Callable[[list[str], Callable[[str], bool]], str]
Refused = Callable[[list[str], str], None]
Program = tuple[list[str], dict[str, str]]
QUICK = ("--device", "cpu", "--set", "initial.epochs=1", "--set", "retrain.epochs=1", "--set", "epochs=1")


def test_a_search_prints_its_best_and_unlearn_takes_them(invoke: Invoke) -> None:
    arguments = ("tune", "neggrad", *QUICK, "--grid", "retain_weight=0.1, 1", "--grid", "lr=1e-4", "--sampler", "grid")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == "" and result.stdout.isascii()
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "Tune neggrad with labels on digits, task class, network cnn: 1151 training",
        "  samples, 287 held out of them to judge by.",
        "Grid: retain_weight 0.1, 1.0; lr 0.0001.",
        "2 of 2 combinations, sampler grid, seeds 0.",
    ]
    assert any(line.startswith("retain_weight 1.0, lr 0.0001: mean gap ") for line in lines)
    best = Path(lines[-1].removeprefix("Best settings: "))
    assert best.parent.name.startswith("tune-neggrad-digits-class-")
    record = json.loads((best.parent / "tune.json").read_text())
    assert record["command_line"].startswith("mixunlearn-cli tune neggrad")

    again = invoke(*arguments)
    assert again.exit_code == 0 and "done  0 combinations tried, 2 in all" in again.stdout
    small = ("--set", "initial.epochs=1", "--no-retrain", "--device", "cpu")
    used = invoke("unlearn", "--method", "neggrad", *small, "--config", str(best), "--out", "run")
    assert used.exit_code == 0, used.output
    settings = json.loads(Path("run/config.json").read_text())["settings"]
    assert {name: settings[name] for name in ("retain_weight", "lr")} == record["best"]["settings"]
    assert settings["epochs"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Missing argument 'METHOD'"),
        ("neggard", "unknown method 'neggard'; * Did you mean 'neggrad'?"),
        ("neggrad --sampler best", "unknown sampler 'best'"),
        ("neggrad --grid retain_weight", "expected name=value"),
        ("neggrad --grid retain_weight=heavy", "retain_weight is 'heavy'"),
        ("neggrad --grid retain_weight=,", "the grid of 'retain_weight' has no values"),
        ("neggrad --grid weight=1", "unknown setting 'weight'"),
        ("neggrad --validation 1", "1.0 is not in the range 0<x<1"),
        ("neggrad --trials 0", "0 is not in the range x>=1"),
        ("neggrad --model here.safetensors", "tuning trains its own models"),
        ("neggrad --seeds zero", "'zero' are not whole numbers"),
        ("neggrad --split split.json", "leave out lists of samples and saved splits"),
    ],
)
def test_wrong_usage_exits_2(refused: Refused, arguments: str, message: str) -> None:
    refused(["tune", *arguments.split()], message)


def test_without_the_extra_one_sentence_says_what_to_install(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = invoke("tune", "neggrad")
    assert result.exit_code == 1 and not Path("runs").exists()
    (line,) = result.stderr.splitlines()
    assert line.endswith("install it with: pip install 'pymixunlearn[tune]'")


def test_a_search_in_which_nothing_works_exits_1(invoke: Invoke) -> None:
    result = invoke("tune", "gradient-ascent", *QUICK, "--set", "epochs=30", "--grid", "lr=1e5", "--out", "t")
    assert result.exit_code == 1
    assert "failed: unlearning diverged" in result.stdout
    assert result.stderr.splitlines() == ["Error: none of the combinations worked; the reasons are above"]


def test_help_lists_the_grids(invoke: Invoke) -> None:
    text = invoke("tune", "--help").stdout
    assert "retain_weight 0.001, 0.01, 0.1, 1, 10, 100" in text and "--sampler" in text


@pytest.mark.slow
def test_ctrl_c_keeps_the_search_which_then_goes_on(program: Program, interrupt: Interrupt) -> None:
    command, environment = program
    arguments = ["tune", "mixunlearn", *QUICK, "--set", "epochs=60", "--grid", "omega=1,10", "--trials", "2"]
    arguments += ["--set", "alpha=1", "--set", "tau_gen=1", "--set", "tau_mix=10", "--set", "tau_real=5", "--out", "t"]
    complaint = interrupt(arguments, lambda line: line.startswith("omega ") and "mean gap" in line)
    (line,) = complaint.strip().splitlines()
    assert line.startswith("Interrupted; what is done is saved in t. To go on: mixunlearn-cli tune")
    assert len(json.loads(Path("t/tune.json").read_text())["trials"]) == 1

    resumed = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert "done  1 combinations tried, 2 in all" in resumed.stdout
