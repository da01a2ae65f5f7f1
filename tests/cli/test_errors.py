"""Every mistake is one line on standard error, an exit code, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from pymixunlearn import models
from pymixunlearn.training import save_model

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def files() -> None:
    """What the commands below refer to, in the working directory."""
    Path("corrupt.safetensors").write_bytes(b"\x00" * 40)
    Path("corrupt.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    save_model("seven.safetensors", models.build("cnn", num_classes=7, in_channels=1, image_size=8))
    torch.save(models.build("vit", num_classes=10, in_channels=1, image_size=8).state_dict(), "vit.pt")
    Path("far.txt").write_text("5, 99999")
    Path("twice.txt").write_text("5 5")
    Path("word.txt").write_text("five")
    Path("none.txt").write_text("")
    Path("all.txt").write_text(" ".join(map(str, range(1438))))
    Path("list.yaml").write_text("- epochs")
    Path("typo.yaml").write_text("epoch: 3")
    Path("full").mkdir()
    Path("full/mine.txt").write_text("keep")


def failure(result: Result) -> str:
    """Return the one line of a failed command."""
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("unlaern", "unknown command 'unlaern'; * Did you mean 'unlearn'?"),
        ("unlearn --datset mnist", "--dataset"),
        ("unlearn --dataset", "requires an argument. See 'mixunlearn-cli unlearn --help'."),
        ("request add --received", "requires an argument. See 'mixunlearn-cli request add --help'."),
        ("unlearn --dataset minst", "unknown dataset 'minst'; * Did you mean 'mnist'?"),
        ("unlearn --method mixunlern", "unknown method 'mixunlern'; * Did you mean 'mixunlearn'?"),
        ("unlearn --task clas", "unknown task 'clas'; * Did you mean 'class'?"),
        ("unlearn --model resnet81", "unknown model 'resnet81'; * Did you mean 'resnet18'?"),
        ("unlearn --set tau_rael=5", "unknown setting 'tau_rael'; * Did you mean 'tau_real'?"),
        ("unlearn --set retrain.epoch=5", "unknown setting 'epoch'; * Did you mean 'epochs'?"),
        ("unlearn --set epochs", "expected name=value, for example epochs=5. See"),
        ("unlearn --set retrian.epochs=5", "unknown setting 'retrian.epochs'; * Did you mean 'retrain.epochs'?"),
        ("unlearn --forget-fraction half", "'half' is not a valid number."),
        ("unlearn --out=", "--out is empty; expected a value"),
        ("unlearn --set epochs=many", "epochs is 'many'; expected a whole number"),
        ("unlearn --set alpha=-1", "alpha is -1.0; expected a value above 0"),
        ("unlearn --seed one", "'one' is not a valid integer"),
        ("unlearn --forget-fraction 1.5 --task data", "1.5 is not in the range 0<x<=1"),
        ("unlearn --forget-fraction 0.5", "belongs to tasks like 'data'"),
        ("unlearn --config gone.yaml", "'gone.yaml' cannot be read: No such file or directory"),
        ("unlearn --config list.yaml", "'list.yaml' holds a list"),
        ("unlearn --config typo.yaml", "unknown setting 'epoch'; * Did you mean 'epochs'?"),
        ("unlearn --config corrupt.pt", "'corrupt.pt'"),
        ("evaluate", "an evaluation needs a trained model; expected its file or run folder"),
        ("evaluate seven.safetensors --attacker tree", "unknown attacker 'tree'"),
        ("train --model cn", "unknown model 'cn'; * Did you mean 'cnn'?"),
    ],
)
def test_wrong_usage_exits_2(invoke: Invoke, arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert result.exit_code == 2
    line = failure(result)
    for part in message.split(" * "):
        assert part in line
    assert not Path("runs").exists()


@pytest.mark.parametrize("group", ["experiment", "request", "cache", "list"])
def test_a_group_alone_shows_its_help(invoke: Invoke, group: str) -> None:
    result = invoke(group)
    assert result.exit_code == 2 and result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"Usage: mixunlearn-cli {group} ") and max(map(len, lines)) <= 80
    assert any(line.startswith("Commands:") for line in lines)


def test_an_option_that_is_empty_is_no_path(invoke: Invoke) -> None:
    # As "$DATA" is where DATA is not set; the current folder is not to be taken for the data.
    assert "Error: --dataset is empty;" in failure(invoke("unlearn", "--dataset", "", "--dry-run"))
    assert "Error: an argument is empty;" in failure(invoke("verify", ""))


NETWORKS = """
from torch import nn

def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

def small(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes))

def none(num_classes):
    return 3
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lazy", "model has lazy layers without weights ('1.weight')"),
        ("small", "model cannot process images [2, 1, 8, 8] of torch.float32: mat1 and mat2"),
        ("none", "net.py:none' is an int; expected a function that returns a torch.nn.Module"),
    ],
)
def test_a_network_of_ones_own_that_does_not_fit_is_named(invoke: Invoke, name: str, message: str) -> None:
    Path("net.py").write_text(NETWORKS)
    result = invoke("train", "--model", f"net.py:{name}", "--set", "epochs=1", "--out", "run")
    assert result.exit_code == 1 and message in failure(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("unlearn --dataset mnist --data-dir full --no-download", "'full' does not hold the dataset 'mnist'"),
        ("unlearn --dataset imagefolder --data-dir gone", "gone"),
        ("unlearn --model gone.safetensors", "'gone.safetensors' does not exist"),
        ("unlearn --model full", "does not exist"),
        ("unlearn --model corrupt.safetensors", "'corrupt.safetensors' is corrupt"),
        ("unlearn --model corrupt.pt --architecture cnn", "'corrupt.pt' is corrupt"),
        ("unlearn --model vit.pt --architecture cnn", "'vit.pt' is not a cnn of this shape"),
        ("unlearn --model seven.safetensors", "has 7 classes; expected 10"),
        ("unlearn --forget-class 10", "class 10 does not exist"),
        ("unlearn --forget-class 1 --forget-class 1", "got '1' more than once"),
        ("unlearn --forget gone.txt", "'gone.txt' cannot be read"),
        ("unlearn --forget far.txt", "index out of range: expected 0..1437"),
        ("unlearn --forget twice.txt", "got the index 5 more than once"),
        ("unlearn --forget word.txt", "an index must be an integer, got 'five'"),
        ("unlearn --forget none.txt", "'none.txt' lists no samples; expected at least one"),
        ("unlearn --forget all.txt", "retain set must have at least one"),
        ("unlearn --split full/mine.txt", "cannot be read as a split manifest"),
        ("unlearn --device cuda:77", "device is 'cuda:77'"),
        ("unlearn --set feature_layer=nowhere --set initial.epochs=1", "nowhere"),
        ("unlearn --out full", "'full' is not empty and holds no run"),
        ("unlearn --out far.txt", "'far.txt' is a file"),
        ("train --out full", "'full' is not empty and holds no run"),
        ("retrain --out full", "'full' is not empty and holds no run"),
        ("evaluate gone.safetensors", "'gone.safetensors' does not exist"),
    ],
)
def test_a_run_that_fails_exits_1(invoke: Invoke, arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert result.exit_code == 1
    assert message in failure(result)
    assert not Path("runs").exists() or not any(Path("runs").iterdir())
    assert [path.name for path in Path("full").iterdir()] == ["mine.txt"]


def test_a_folder_of_another_run_is_left_alone(invoke: Invoke) -> None:
    small = ("unlearn", "--set", "epochs=1", "--set", "initial.epochs=1", "--no-retrain", "--out", "run")
    assert invoke(*small).exit_code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    result = invoke(*small, "--seed", "1")
    assert result.exit_code == 1
    assert "holds another run (its seed is 0, not 1)" in failure(result)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_what_nobody_expected_is_one_line_too(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr("pymixunlearn.experiments.resolve_unlearning", broken)
    result = invoke("unlearn")
    assert result.exit_code == 1
    assert failure(result) == "Error: RuntimeError: out of luck (set MIXUNLEARN_DEBUG=1 to see where)"
    monkeypatch.setenv("MIXUNLEARN_DEBUG", "1")
    assert isinstance(invoke("unlearn").exception, RuntimeError)


def test_an_old_name_of_an_option_works_and_warns(invoke: Invoke) -> None:
    Path("few.txt").write_text("5\n6\n")
    for option, warns in (("--forget-indices", True), ("--forget", False)):
        result = invoke("evaluate", "gone.safetensors", option, "few.txt")
        assert result.exit_code == 1 and "'gone.safetensors' does not exist" in result.stderr
        assert ("--forget-indices is now --forget" in result.stderr) is warns
