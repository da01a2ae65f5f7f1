"""train, retrain, evaluate, info and every --help."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result
from mixunlearn_cli.main import main

from pymixunlearn import __version__, data, methods, models

Invoke = Callable[..., Result]


def test_train_then_retrain_then_evaluate(invoke: Invoke) -> None:
    result = invoke("train", "--set", "epochs=2", "--out", "initial")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Checkpoint: initial/model.safetensors"
    assert "Train" in result.stdout and "Test" in result.stdout

    result = invoke("retrain", "--forget-class", "4", "--set", "epochs=2", "--out", "retrain")
    assert result.exit_code == 0, result.output
    split = "retrain/split.json"
    arguments = (
        "evaluate",
        "initial",
        "--split",
        split,
        "--reference",
        "retrain/model.safetensors",
        "--out",
        "measured",
    )
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "| gap |model - reference| |" in result.stdout
    record = json.loads(Path("measured/metrics.json").read_text())
    assert record["metrics"]["reference"] == json.loads(Path("retrain/metrics.json").read_text())["metrics"]["retrain"]
    assert record["gap"]["model"]["test_f"] > 50


def test_evaluate_without_reference_or_folder_writes_nothing(invoke: Invoke) -> None:
    invoke("train", "--set", "epochs=1", "--out", "initial")
    result = invoke("evaluate", "initial", "--task", "data")
    assert result.exit_code == 0 and "Train_f" in result.stdout and "Run folder" not in result.stdout
    assert [path.name for path in Path().iterdir()] == ["initial"]


def test_evaluate_judges_the_forgetting_on_images_that_no_model_saw(invoke: Invoke) -> None:
    part = ("--dataset", "digits@700")
    invoke("train", *part, "--set", "epochs=1", "--out", "before")
    invoke("retrain", *part, "--set", "epochs=1", "--out", "after")
    result = invoke("evaluate", "after", *part, "--before", "before", "--out", "measured")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("measured/metrics.json").read_text())["acceptance"]
    assert list(found) == ["initial", "unlearned"] and found["unlearned"]["initial_ks"] is not None
    assert found["unlearned"]["reason"] in " ".join(result.stdout.split()) and "Acceptance" in result.stdout
    verified = invoke("verify", "measured", "--before", "before")
    assert verified.exit_code == 0, verified.output
    alone = invoke("evaluate", "after", *part)
    assert json.loads(json.dumps(found["unlearned"]["ks"])) and "Acceptance" in alone.stdout
    whole = invoke("evaluate", "after", "--before", "gone")
    assert whole.exit_code == 1 and "model checkpoint 'gone' does not exist" in whole.stderr


def test_the_second_training_says_it_is_finished(invoke: Invoke) -> None:
    arguments = ("train", "--set", "epochs=1")
    assert invoke(*arguments).exit_code == 0
    assert "finished already" in invoke(*arguments).stdout


def test_a_training_is_repeated_from_its_config(invoke: Invoke) -> None:
    invoke("train", "--set", "epochs=1", "--seed", "2", "--out", "a")
    result = invoke("train", "--config", "a/config.json", "--out", "b")
    assert result.exit_code == 0, result.output
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    result = invoke("unlearn", "--config", "a/config.json")
    assert result.exit_code == 2 and "is not the config.json of a run of 'unlearn'" in result.stderr


def test_info_says_what_is_here(invoke: Invoke) -> None:
    result = invoke("info")
    assert result.exit_code == 0, result.output
    for name in ("torch", "CPU library", "CUDA library", *methods.available(), *data.available(), *models.available()):
        assert name in result.stdout


def test_info_says_why_operators_are_not_in_use(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from pymixunlearn import ops

    missing = ops.LibraryStatus(False, "the file is gone")
    monkeypatch.setattr("pymixunlearn.ops.status", lambda: ops.Status(missing, missing, {}))
    assert "not in use (plain PyTorch instead): the file is gone" in invoke("info").stdout


@pytest.mark.parametrize(
    "command", ["unlearn", "compare", "tune", "train", "retrain", "evaluate", "audit", "info", "list"]
)
def test_every_command_has_help(invoke: Invoke, command: str) -> None:
    assert f"  {command} " in invoke("--help").stdout
    for option in ("-h", "--help"):
        result = invoke(command, option)
        assert result.exit_code == 0 and result.stdout.startswith(f"Usage: mixunlearn-cli {command}")


def test_a_run_folder_of_other_data_is_told(invoke: Invoke) -> None:
    assert invoke("train", "--dataset", "digits@200", "--set", "epochs=1", "--out", "few").exit_code == 0
    told = "The run in 'few' was on the data 'digits@200', and these are 'digits': --dataset takes others."
    assert told in " ".join(invoke("evaluate", "few").stdout.split())
    assert "--dataset takes others" not in invoke("evaluate", "few", "--dataset", "digits@200").stdout


def test_help_lists_the_methods_and_the_settings_of_the_one_asked_for(invoke: Invoke) -> None:
    text = " ".join(invoke("unlearn", "--help").stdout.split())
    assert all(f" {name} " in text for name in methods.available())
    assert "mixunlearn-cli list settings METHOD" in text and "tau_real=" not in text
    text = " ".join(invoke("unlearn", "--method", "mixunlearn", "--help").stdout.split())
    for name, default in methods.MixUnlearnConfig().to_dict().items():
        assert f" {name}=" in text, f"{name} ({default})"
    assert "Settings of the trainings (initial.NAME and retrain.NAME)" in text


def test_version_and_the_bare_command(invoke: Invoke) -> None:
    assert __version__ in invoke("--version").stdout
    assert invoke().stdout == invoke("--help").stdout


@pytest.mark.usefixtures("pictures")
def test_the_ensemble_of_a_run_is_evaluated_like_any_model(invoke: Invoke) -> None:
    small = ("initial.epochs=1", "shards=2", "slices=2", "epochs=1", "aggregate=majority")
    chosen = [word for setting in small for word in ("--set", setting)]
    result = invoke("unlearn", "--method", "sisa", "--no-retrain", *chosen, "--out", "a")
    assert result.exit_code == 0, result.output
    assert any(line.startswith("original   done  2 epochs") for line in result.stdout.splitlines())
    evaluated = invoke("evaluate", "a", "--split", "a/split.json", "--out", "b")
    assert evaluated.exit_code == 0, evaluated.output
    first, second = (json.loads(Path(name, "metrics.json").read_text())["metrics"] for name in ("a", "b"))
    assert first["unlearned"] == second["model"]
    assert Path("a/pictures/curves-original.svg").is_file()
    verified = invoke("verify", "a")
    assert verified.exit_code == 0, verified.output


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(every_command(main)), ids="-".join)
def test_no_help_is_cut_or_wider_than_a_terminal(invoke: Invoke, path: tuple[str, ...]) -> None:
    lines = invoke(*path, "--help").stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    _, _, listed = "\n".join(lines).partition("Commands:")
    assert "..." not in listed
