from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pymixunlearn.evaluation import Acceptance
from pymixunlearn.methods.choosing import Chooser
from pymixunlearn.models.weight_files import read_tensors
from pymixunlearn.training import tensors_hash

Invoke = Callable[..., Result]
SMALL = ("unlearn", "--device", "cpu", "--set", "epochs=2", "--set", "initial.epochs=1", "--set", "retrain.epochs=1")
FILES = sorted(
    ["config.json", "forget.key", "history.csv", "metrics.json", "model.safetensors", "model.yaml", "pictures"]
    + ["report.html", "report.json", "split.json"]
)


def weights(folder: str | Path) -> str:
    """Return the hash of a run's weights; the file's header holds hashes that are keyed, and every run has its key."""
    return tensors_hash(read_tensors(Path(folder) / "model.safetensors")[0])


@pytest.mark.usefixtures("pictures")
def test_without_arguments_it_explains_itself_and_writes_a_run(invoke: Invoke) -> None:
    result = invoke(*SMALL)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "Forget class 0 of digits: 142 of 1438 training samples."
    assert "Method mixunlearn without labels, network cnn (trained first)" in lines[1]
    for phase in ("initial", "unlearn", "retrain", "evaluation"):
        assert any(line.startswith(f"{phase:<10} done") for line in lines)
    for row in ("initial", "unlearned", "Retrain", "gap |unlearned - Retrain|", "gap |initial - Retrain|"):
        tables = 1 if row.startswith("gap") else 3  # the paper's metrics, and the further ones in two parts
        assert sum(line.startswith(f"| {row} ") for line in lines) == tables
    assert "Test_r" in result.stdout and "ASR" in result.stdout and "Seconds" in result.stdout
    folder = Path(lines[-1].removeprefix("Run folder: "))
    assert folder.parent == Path("runs")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert {"losses.svg", "classes.svg", "mixes.svg"} < {path.name for path in (folder / "pictures").iterdir()}


def test_output_away_from_a_terminal_is_plain_and_short(invoke: Invoke) -> None:
    result = invoke(*SMALL, "--out", "run")
    assert result.stdout.isascii() and "\x1b" not in result.stdout and "\r" not in result.stdout
    lines = result.stdout.splitlines()
    assert len(lines) < 55 and max(map(len, lines)) <= 80


def test_the_same_command_shows_the_finished_run(invoke: Invoke) -> None:
    first = invoke(*SMALL)
    second = invoke(*SMALL)
    assert second.exit_code == 0
    assert "finished already" in second.stdout and "done" not in second.stdout
    table = [line for line in first.stdout.splitlines() if line.startswith("|")]
    assert table == [line for line in second.stdout.splitlines() if line.startswith("|")]


def test_cached_phases_say_so(invoke: Invoke) -> None:
    invoke(*SMALL, "--out", "a")
    result = invoke(*SMALL, "--out", "b", "--set", "omega=3")
    assert result.stdout.count("done  from the cache (1 epoch,") == 2


def test_task_data_with_labels_and_without_retrain(invoke: Invoke) -> None:
    arguments = ("--task", "data", "--forget-fraction", "0.1", "--forget-class", "2", "--label-aware", "--no-retrain")
    result = invoke(*SMALL, *arguments, "--seed", "3", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "Forget samples of classes 2 of digits" in result.stdout and "with labels" in result.stdout
    record = json.loads(Path("run/metrics.json").read_text())
    assert list(record["metrics"]["unlearned"])[:4] == ["train_r", "train_f", "test", "asr"]
    assert record["metrics"]["retrain"] is None and record["seed"] == 3
    assert json.loads(Path("run/config.json").read_text())["settings"]["label_aware"] is True


def test_task_noisy_says_what_it_forgets(invoke: Invoke) -> None:
    arguments = ("--task", "noisy", "--forget-class", "7", "--forget-class", "8", "--forget-fraction", "0.5")
    result = invoke(*SMALL, *arguments, "--out", "run")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("Forget mislabelled samples of classes 7, 8 of digits: 14")
    record = json.loads(Path("run/metrics.json").read_text())
    assert list(record["metrics"]["unlearned"])[:4] == ["train_r", "train_f", "test", "asr"]
    assert "whose labels were made wrong before training" in Path("run/report.html").read_text()
    evaluated = invoke("evaluate", "run", "--split", "run/split.json", "--out", "again")
    assert evaluated.exit_code == 0, evaluated.output
    measured = json.loads(Path("again/metrics.json").read_text())["metrics"]["model"]
    assert measured["train_f"] == record["metrics"]["unlearned"]["train_f"]


def test_task_semi_says_what_it_forgets(invoke: Invoke) -> None:
    result = invoke(*SMALL, "--task", "semi", "--labelled-fraction", "0.5", "--out", "run")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("Forget labelled samples of classes 5, 6, 7, 8, 9 of digits: 14")
    assert "most of the others have no labels" in Path("run/report.html").read_text()
    assert len(json.loads(Path("run/split.json").read_text())["unlabelled"]["indices"]) == 719
    audited = invoke("audit", "run")
    assert audited.exit_code == 1 and "expected another task than 'semi'" in audited.stderr
    refused = invoke("unlearn", "--task", "semi", "--method", "neggrad")
    assert refused.exit_code == 1 and "expected a label-agnostic method" in refused.stderr


def test_indices_and_a_saved_split(invoke: Invoke) -> None:
    Path("ids.txt").write_text("\n".join(map(str, range(0, 200, 2))))
    assert invoke(*SMALL, "--forget", "ids.txt", "--out", "a").exit_code == 0
    assert invoke(*SMALL, "--split", "a/split.json", "--out", "b").exit_code == 0
    assert weights("a") == weights("b")


def test_settings_come_from_yaml_and_the_command_line_wins(invoke: Invoke) -> None:
    Path("run.yaml").write_text(
        "seed: 5\nforget-class: [1, 2]\nno-retrain: true\nomega: 3\ntau_mix: 4\nlr: 1e-4\ninitial: {epochs: 1}\n"
    )
    result = invoke("unlearn", "--config", "run.yaml", "--out", "run", "--set", "omega=2", "--set", "epochs=1")
    assert result.exit_code == 0, result.output
    config = json.loads(Path("run/config.json").read_text())
    assert (config["seed"], config["params"], config["retrain"]) == (5, {"classes": [1, 2]}, None)
    kept = {name: config["settings"][name] for name in ("omega", "tau_mix", "lr", "epochs")}
    assert kept == {"omega": 2.0, "tau_mix": 4.0, "lr": 1e-4, "epochs": 1}

    invoke("unlearn", "--config", "run.yaml", "--seed", "6", "--out", "other", "--set", "epochs=1")
    assert json.loads(Path("other/config.json").read_text())["seed"] == 6


@pytest.mark.parametrize(
    "extra",
    [
        ("--label-aware", "--task", "data"),
        ("--label-aware", "--task", "noisy"),
        ("--task", "semi", "--labelled-fraction", "0.3"),
        ("--method", "retrain", "--no-retrain"),
    ],
)
def test_a_config_json_repeats_its_run(invoke: Invoke, extra: tuple[str, ...]) -> None:
    assert invoke(*SMALL, *extra, "--out", "a").exit_code == 0
    result = invoke("unlearn", "--config", "a/config.json", "--out", "b")
    assert result.exit_code == 0, result.output
    assert weights("a") == weights("b")
    first, second = (json.loads(Path(name, "metrics.json").read_text()) for name in ("a", "b"))
    assert first["metrics"] == second["metrics"]


def test_a_trained_checkpoint_is_what_unlearn_would_train(invoke: Invoke) -> None:
    assert invoke("train", "--device", "cpu", "--set", "epochs=1", "--out", "initial").exit_code == 0
    assert invoke(*SMALL, "--model", "initial", "--out", "a").exit_code == 0
    assert invoke(*SMALL, "--out", "b").exit_code == 0
    assert weights("a") == weights("b")


def test_a_run_can_stop_by_itself_and_says_how_it_ended(invoke: Invoke) -> None:
    small = [*SMALL, "--no-retrain", "--stop", "auto"]
    quick = ("--set", "epochs=40", "--set", "lr=3e-4", "--set", "stop_tolerance=5", "--set", "initial.epochs=3")
    result = invoke(*small, *quick, "--out", "a")
    assert result.exit_code == 0, result.output
    assert "Ends when forgetting is done, at the latest after 40 epochs." in " ".join(result.stdout.split())
    ended = next(line for line in result.stdout.splitlines() if line.startswith("unlearn    done"))
    assert "stopped by itself after" in ended
    stopping = json.loads(Path("a/metrics.json").read_text())["stopping"]
    assert stopping["met"] and stopping["step"] < stopping["budget"] == 200
    rows = [line for line in Path("a/history.csv").read_text().splitlines() if line.startswith("stopping,")]
    assert len(rows) >= 3
    assert f"after {stopping['step']} of 200 steps" in Path("a/report.html").read_text()

    again = invoke("unlearn", "--config", "a/config.json", "--out", "b")
    assert again.exit_code == 0, again.output
    assert weights("a") == weights("b")


def test_a_method_that_cannot_stop_by_itself_says_so(invoke: Invoke) -> None:
    result = invoke("unlearn", "--method", "retrain", "--stop", "auto")
    assert result.exit_code == 2 and "method 'retrain' cannot end by stop=auto" in result.stderr
    result = invoke("unlearn", "--stop", "atuo")
    assert (
        result.exit_code == 2
        and "unknown stop 'atuo'; expected one of accepted, auto, epochs. Did you mean 'auto'?" in result.stderr
    )


def test_ending_by_the_acceptance_test_needs_a_validation_set_before_any_work(invoke: Invoke) -> None:
    result = invoke("unlearn", "--stop", "accepted")
    assert (
        result.exit_code == 1 and "stop is accepted, but the data set 'digits' has no validation set" in result.stderr
    )
    result = invoke("unlearn", "--stop", "accepted", "--dataset", "digits@1000", "--dry-run")
    assert result.exit_code == 0 and "Ends when the acceptance test accepts the model, at the latest" in " ".join(
        result.output.split()
    )


def test_a_report_says_where_the_judging_half_disagrees_with_the_half_that_ended_the_run(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chooser, "tells", lambda chooser: True)
    monkeypatch.setattr(Chooser, "__call__", lambda *_: Acceptance("accepted", "by luck", ks=0.0, bound=0.1))
    options = ("--method", "fine-tune", "--dataset", "digits@1000", "--no-retrain", "--stop", "accepted")
    result = invoke("unlearn", *options, "--set", "initial.epochs=1", "--out", "a")
    assert result.exit_code == 0, result.output
    assert "accepted on the choosing half of the validation set after 32 of" in " ".join(result.stdout.split())
    record = json.loads(Path("a/metrics.json").read_text())
    assert record["stopping"]["met"] and record["acceptance"]["unlearned"]["decision"] == "refused"
    text = " ".join(Path("a/report.html").read_text().split())
    assert "is made with the other half, and is another: <b>refused</b>" in text


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("boundary-expand", ["epochs=1"]),
        ("laf+r", ["epochs=1", "vae_epochs=1"]),
        ("ssd", []),
        ("ts", ["epochs=1", "teacher_epochs=1"]),
    ],
)
def test_methods_with_several_stages_run_and_repeat(invoke: Invoke, method: str, settings: list[str]) -> None:
    chosen = [word for setting in ["initial.epochs=1", *settings] for word in ("--set", setting)]
    result = invoke("unlearn", "--method", method, "--no-retrain", *chosen, "--out", "a")
    assert result.exit_code == 0, result.output
    assert invoke("unlearn", "--config", "a/config.json", "--out", "b").exit_code == 0
    assert weights("a") == weights("b")
    assert json.loads(Path("a/metrics.json").read_text())["method"] == method
