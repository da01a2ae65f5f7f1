"""Experiments that run: their cells, their files, and what they do not run again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

import pymixunlearn
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import ExperimentInputs, ExperimentOutcome, resolve_experiment, run_experiment
from pymixunlearn.experiments.compare import cells
from pymixunlearn.experiments.paper import figures
from pymixunlearn.experiments.paper.exhibit import exhibit_names

SCALE = {
    "about": "As small as can be.",
    "data": {"digits": {"label": "Digits", "dataset": "digits", "model": "cnn"}},
    "seeds": [0],
    "settings": {"initial.epochs": 1, "retrain.epochs": 1, "mixunlearn.epochs": 1},
}
OURS = {"label": "Ours", "method": "mixunlearn", "label_aware": False}
ABLATED = {**OURS, "label": "w/o L_mix", "settings": {"use_mix_loss": False}}
TABLE = {
    "title": "Mine",
    "form": "table",
    "tasks": [{"task": "class", "classes": [0]}],
    "rows": {"ours": OURS, "no-mix": ABLATED},
    "scales": {"own": SCALE},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folders of these tests, which share them as experiments do."""
    return tmp_path_factory.mktemp("cells")


@pytest.fixture
def experiment(tmp_path: Path, store: Path) -> Callable[..., ExperimentOutcome]:
    """Runs an exhibit like ``TABLE`` with the given changes."""

    def run(name: str = "mine", changes: dict[str, Any] | None = None, **fields: Any) -> ExperimentOutcome:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**TABLE, **(changes or {})}, sort_keys=False))
        running = {key: fields.pop(key) for key in ("jobs", "retry_failed", "cells") if key in fields}
        plan = resolve_experiment(ExperimentInputs(str(path), "own", device="cpu", **fields))
        fixed = {"cells": store, "threads": 1, "command_line": "the command"}
        return run_experiment(plan, tmp_path / name, **{**fixed, **running})

    return run


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the runs that begin from here on in this process."""
    seen: list[str] = []

    def counting(original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        seen.append(args[1].name)
        return original(*args, **keywords)

    for name in ("run_unlearning", "run_training"):
        monkeypatch.setattr(cells, name, partial(counting, getattr(cells, name)))
    return seen


def record_of(outcome: ExperimentOutcome, key: str) -> dict[str, Any]:
    cell: dict[str, Any] = outcome.record["cells"][key]
    return cell


def statuses(outcome: ExperimentOutcome) -> dict[str, str]:
    return {key: cell["status"] for key, cell in outcome.record["cells"].items()}


@pytest.mark.slow
def test_a_table_is_written_in_every_form_and_its_cells_are_run_once(
    experiment: Callable[..., ExperimentOutcome], counted: list[str], store: Path
) -> None:
    before = {path.name for path in store.iterdir()}
    first = experiment()
    assert statuses(first) == {"digits/ours/seed0": "finished", "digits/no-mix/seed0": "finished"}
    names = {Path(cell["folder"]).name for cell in first.record["cells"].values()}
    assert len(names) == 2 and sorted(counted) == sorted(names - before)
    folder = first.folder
    assert {path.name for path in folder.iterdir()} >= {"report.html", "table.md", "table.tex", "table.csv"}
    markdown = (folder / "table.md").read_text()
    assert "| label-agnostic | Ours |" in markdown and "| label-agnostic | w/o L_mix |" in markdown
    assert markdown.index("| Ours |") < markdown.index("| w/o L_mix |")  # in the exhibit's order, not by name
    assert "|  | initial (nothing done) |" in markdown and "|  | second Retrain |" in markdown
    assert "Noise floor: a second Retrain" in markdown and "the paper's numbers" not in markdown
    assert "\\multicolumn{4}{c}{Digits}" in (folder / "table.tex").read_text()
    html = (folder / "report.html").read_text()
    assert 'colspan="4" class="group">Digits</th>' in html and "cnn, 1438 training images of 8 x 8 pixels" in html
    # One seed: intervals stand below the numbers, each row's own.
    (cell, other_cell) = (record_of(first, key) for key in ("digits/ours/seed0", "digits/no-mix/seed0"))
    for entry in (cell, other_cell):
        low, high = entry["intervals"]["unlearned"]["asr"]
        assert f"{entry['metrics']['unlearned']['asr']:.2f}<small>{low:.1f}–{high:.1f}</small>" in html
    lines = list(csv.DictReader((folder / "table.csv").open()))
    assert [line["model"] for line in lines[:4]] == ["initial", "unlearned", "retrain", "second_retrain"]
    assert float(lines[1]["test_r_low"]) <= float(lines[1]["test_r"]) <= float(lines[1]["test_r_high"])
    record = json.loads((folder / "experiment.json").read_text())
    assert record["definition"]["title"] == "Mine" and record["definition"]["seeds"] == [0]
    for cell in record["cells"].values():
        assert (folder / cell["folder"] / "report.html").is_file()

    counted.clear()
    again = experiment()
    assert counted == [] and again.record["cells"] == first.record["cells"]
    # Another exhibit with one cell more.
    third = {"omega-1": {**OURS, "settings": {"omega": 1}}}
    other = experiment("other", {"rows": {**TABLE["rows"], **third}, "form": "times"})  # type: ignore[dict-item]
    assert len(counted) <= 1 and other.finished == 3
    assert other.record["cells"]["digits/ours/seed0"]["hashes"] == first.record["cells"]["digits/ours/seed0"]["hashes"]
    assert [line["method"] for line in csv.DictReader((other.folder / "figure.csv").open())][-1] == "Retrain"


def test_cells_that_were_left_out_or_fail_say_so_and_a_failed_one_is_not_tried_again(
    experiment: Callable[..., ExperimentOutcome], counted: list[str]
) -> None:
    bad = {"method": "gradient-ascent", "settings": {"epochs": 30, "lr": 1e5}}
    rows = {"bad": bad, "ours": OURS, "never": {**OURS, "settings": {"sharpen": False}}}
    first = experiment(changes={"rows": rows}, only=("bad", "ours"))
    assert any("gradient-ascent" in name for name in counted) and statuses(first) == {
        "digits/bad/seed0": "failed",
        "digits/ours/seed0": "finished",
        "digits/never/seed0": "not run",
    }
    text = (first.folder / "table.md").read_text()
    assert "- Digits, bad, seed 0, failed: unlearning diverged" in text
    assert "- 1 cell was left out by --only." in text
    counted.clear()
    assert statuses(experiment(changes={"rows": rows}, only=("bad",)))["digits/bad/seed0"] == "failed"
    assert counted == []
    experiment(changes={"rows": rows}, only=("bad",), retry_failed=True)
    assert sum("gradient-ascent" in name for name in counted) == 1


def test_learning_curves_are_trainings_with_the_test_accuracy(
    experiment: Callable[..., ExperimentOutcome], counted: list[str]
) -> None:
    data = {"digits": {"label": "Digits", "dataset": "digits", "model": "cnn"}}
    scale = {"data": data, "seeds": [0], "settings": {"initial.epochs": 2}}
    changes = {"form": "curves", "rows": {"initial": {"method": "initial"}}, "scales": {"own": scale}}
    outcome = experiment(changes=changes)
    assert statuses(outcome) == {"digits/initial/seed0": "finished"} and len(counted) == 1
    lines = list(csv.DictReader((outcome.folder / "figure.csv").open()))
    assert [(line["images"], line["epoch"]) for line in lines] == [
        ("train", "1.0"),
        ("train", "2.0"),
        ("test", "1.0"),
        ("test", "2.0"),
    ]
    (cell,) = outcome.record["cells"].values()
    assert float(lines[-1]["accuracy"]) == pytest.approx(cell["metrics"]["initial"]["test"])
    assert outcome.files[-1] == "figure.svg" and (outcome.folder / "figure.svg").is_file()
    assert "closest to Retrain" not in (outcome.folder / "table.md").read_text()  # there is no table


@pytest.mark.parametrize("form", ["densities", "representations"])
def test_pictures_of_models_show_retrain_the_initial_one_and_every_row(
    form: str, experiment: Callable[..., ExperimentOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymixunlearn.experiments.unlearn.figures.TSNE_FORGET", 20)
    monkeypatch.setattr("pymixunlearn.experiments.unlearn.figures.TSNE_RETAIN", 60)
    outcome = experiment("models", {"form": form})
    svg = (outcome.folder / "figure.svg").read_text()
    for name in ("Retrain", "initial", "Ours", "w/o L_mix"):
        assert f">{name}<" in svg
    monkeypatch.setitem(figures._DRAW, form, lambda *_: pytest.fail("drawn again of the same results"))
    assert experiment("models", {"form": form}).files == outcome.files


def test_sensitivity_is_drawn_setting_by_setting(
    experiment: Callable[..., ExperimentOutcome], counted: list[str]
) -> None:
    rows: dict[str, Any] = {f"omega-{value}": {**OURS, "settings": {"omega": value}} for value in (1, 10)}
    rows["alpha-0.75"] = {**OURS, "settings": {"alpha": 0.75}}
    outcome = experiment("sweep", {"form": "sweep", "rows": rows})
    lines = list(csv.DictReader((outcome.folder / "figure.csv").open()))
    assert [(line["setting"], line["value"]) for line in lines] == [
        ("omega", "1.0"),
        ("omega", "10.0"),
        ("alpha", "0.75"),
        ("retrain", ""),
        ("initial", ""),
    ]
    assert len(counted) <= 2  # the two that are the preset's own are one run
    cells = outcome.record["cells"]
    assert float(lines[1]["test_r"]) == cells["digits/omega-10/seed0"]["metrics"]["unlearned"]["test_r"]


@pytest.mark.slow
def test_gaps_are_drawn_against_shares(experiment: Callable[..., ExperimentOutcome]) -> None:
    tasks = [{"task": "data", "classes": ["5-9"], "fraction": share} for share in (0.1, 0.2)]
    outcome = experiment("ratio", {"form": "ratio", "tasks": tasks, "rows": {"ours": OURS}})
    assert list(statuses(outcome)) == ["digits-data-0.1/ours/seed0", "digits-data-0.2/ours/seed0"]
    lines = list(csv.DictReader((outcome.folder / "figure.csv").open()))
    cell = outcome.record["cells"]["digits-data-0.2/ours/seed0"]
    assert (lines[-1]["metric"], float(lines[-1]["share"])) == ("test", 20)
    assert float(lines[-1]["gap"]) == pytest.approx(cell["gap"]["unlearned"]["test"])


def test_a_cell_that_another_process_runs_is_not_a_failed_one(
    experiment: Callable[..., ExperimentOutcome], store: Path, tmp_path: Path
) -> None:
    changes = {"rows": {"ours": {**OURS, "settings": {"omega": 3}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**TABLE, **changes}))
    (cell,) = resolve_experiment(ExperimentInputs(str(tmp_path / "mine.yaml"), "own", device="cpu")).cells
    folder = store / str(cell.run_folder(1)) / ".partial"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        outcome = experiment(changes=changes)
    (entry,) = outcome.record["cells"].values()
    assert entry["status"] == "unfinished" and "another process is at work" in entry["reason"]
    assert outcome.finished == 0


@pytest.mark.slow
@pytest.mark.usefixtures("all_trees")
def test_processes_give_the_same_results(experiment: Callable[..., ExperimentOutcome], tmp_path: Path) -> None:
    here = experiment(cells=tmp_path / "here")
    there = experiment("other", jobs=2, cells=tmp_path / "cells")
    for key, cell in here.record["cells"].items():
        assert there.record["cells"][key]["metrics"] == cell["metrics"]


def test_a_folder_of_something_else_is_refused(experiment: Callable[..., ExperimentOutcome], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds no experiment"):
        experiment()
    with pytest.raises(UserError, match="jobs is 0; expected at least 1"):
        experiment("new", jobs=0)


@pytest.mark.parametrize("name", ["figure5", "figure8"])
@pytest.mark.usefixtures("pictures")  # figure8 is made of those of its runs
def test_tiny_exhibits_of_the_paper_run(name: str, tmp_path: Path) -> None:
    outcome = pymixunlearn.experiment(name, "tiny", out=tmp_path / name, cells=tmp_path / "cells", device="cpu")
    assert outcome.finished == len(outcome.record["cells"]) > 0
    assert all((outcome.folder / file).is_file() for file in outcome.files)
    assert has_figure(outcome.files)


@pytest.mark.exhibits
@pytest.mark.parametrize("name", exhibit_names())
@pytest.mark.usefixtures("pictures")
def test_every_tiny_exhibit_of_the_paper_runs(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    cells_folder = tmp_path_factory.getbasetemp() / "tiny-cells"
    out = tmp_path_factory.mktemp(name) / name
    outcome = pymixunlearn.experiment(name, "tiny", out=out, cells=cells_folder, device="cpu", threads=1)
    assert set(statuses(outcome).values()) == {"finished"}
    assert has_figure(outcome.files) is name.startswith("figure")


def has_figure(files: Iterable[str]) -> bool:
    return any(file.startswith("figure") and file.endswith(".svg") for file in files)
