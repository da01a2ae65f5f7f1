from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    BadRequest,
    CompareInputs,
    ComparisonOutcome,
    ComparisonPlan,
    Observer,
    SplitRequest,
    default_comparison_folder,
    resolve_comparison,
    run_comparison,
)
from pymixunlearn.experiments.compare import cells
from pymixunlearn.experiments.compare.plan import row_names
from tests.hashes import hashes_of

SMALL = {
    "initial": {"epochs": 1},
    "retrain": {"epochs": 1},
    "mixunlearn": {"epochs": 2},
    "neggrad.epochs": 1,
    "fine-tune.epochs": 1,
    "gradient-ascent": {"epochs": 30, "lr": 1e5},  # diverges
}


def plan(names: str, settings: Mapping[str, Any] | None = None, **fields: Any) -> ComparisonPlan:
    fields = {"seeds": (0,), **fields}
    return resolve_comparison(
        CompareInputs(tuple(names.split(",")), device="cpu", settings={**SMALL, **(settings or {})}, **fields)
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the cells that are run from here on in this process."""
    seen: list[str] = []
    original = cells.run_unlearning

    def counting(*args: Any, **keywords: Any) -> Any:
        seen.append(args[1].name)
        return original(*args, **keywords)

    monkeypatch.setattr(cells, "run_unlearning", counting)
    return seen


def statuses(outcome: ComparisonOutcome) -> dict[str, str]:
    return {key: cell["status"] for key, cell in outcome.record["cells"].items()}


# What is compared


def test_every_method_has_a_row_and_mixunlearn_two() -> None:
    rows = row_names()
    assert rows["mixunlearn-aware"] == ("mixunlearn", True) and rows["mixunlearn-agnostic"] == ("mixunlearn", False)
    assert "retrain" not in rows
    assert {method for method, _ in rows.values()} == set(methods.available()) - {"retrain"}


def test_all_leaves_out_what_cannot_do_the_task_and_a_name_does_not() -> None:
    notes: list[str] = []
    observer = Observer()
    observer.note = notes.append  # type: ignore[method-assign]
    request = CompareInputs(("neggrad", "all"), (0,), split=SplitRequest(task="semi"), device="cpu")
    cells = {cell.name: cell for cell in resolve_comparison(request, observer=observer).cells}
    assert {name for name, cell in cells.items() if cell.plan is not None} == {
        *("boundary-expand", "l-mix", "laf", "mixunlearn-agnostic", "randlabel"),
        *("eu-k-agnostic", "mixunlearn-reset-agnostic", "prune-reset-agnostic"),
    }
    assert set(cells) == {*(name for name in cells if cells[name].plan is not None), "neggrad"}
    assert cells["neggrad"].reason is not None and "needs labels" in cells["neggrad"].reason
    assert len(notes) == 1 and "cannot do the task: " in notes[0] and "mixunlearn-aware" in notes[0]


def test_all_is_every_row_and_a_name_counts_once() -> None:
    assert {cell.name for cell in plan("all").cells} == set(row_names())
    assert [cell.name for cell in plan("mixunlearn-agnostic,mixunlearn,laf").cells] == [
        "mixunlearn-agnostic",
        "mixunlearn-aware",
        "laf",
    ]


def test_cells_begin_with_one_method_on_every_seed_and_go_on_seed_by_seed() -> None:
    keys = [cell.key for cell in plan("laf,ssd,ts", seeds=(4, 2)).cells]
    assert keys == ["laf-seed4", "laf-seed2", "ssd-seed4", "ts-seed4", "ssd-seed2", "ts-seed2"]


def test_settings_reach_their_rows_and_the_nearest_wins() -> None:
    settings = {"mixunlearn.omega": 3, "mixunlearn-aware": {"omega": 4}, "initial.lr": 0.01, "scrub.T": 3}
    by_name = {cell.name: cell.plan for cell in plan("mixunlearn,neggrad", settings).cells}
    aware, agnostic, neggrad = (by_name[name] for name in ("mixunlearn-aware", "mixunlearn-agnostic", "neggrad"))
    assert aware is not None and agnostic is not None and neggrad is not None
    assert (aware.method.config.to_dict()["omega"], agnostic.method.config.to_dict()["omega"]) == (4.0, 3.0)
    assert aware.method.needs_labels and not agnostic.method.needs_labels
    for one in (aware, agnostic, neggrad):
        assert one.initial_config is not None and (one.initial_config.lr, one.initial_config.epochs) == (0.01, 1)


@pytest.mark.parametrize(
    ("names", "settings", "fields", "message"),
    [
        ("neggard", {}, {}, "unknown method 'neggard'.* Did you mean 'neggrad'?"),
        ("retrain", {}, {}, "has a row anyway"),
        ("laf", {"epochs": 5}, {}, "setting 'epochs' names no method; expected METHOD.epochs"),
        ("laf", {"fal.epochs": 5}, {}, "unknown method 'fal'"),
        ("laf", {"laf.epoch": 5}, {}, "unknown setting 'epoch'.* Did you mean 'epochs'?"),
        ("laf", {"laf.epochs": "many"}, {}, "epochs is 'many'"),
        ("laf", {"initial.epoch": 5}, {}, "unknown setting 'epoch'"),
        ("mixunlearn", {"mixunlearn.label_aware": True}, {}, "compared with and without labels"),
        ("laf", {}, {"seeds": ()}, "seeds are none"),
        ("laf", {}, {"seeds": (1, 1)}, "seeds are 1, 1; expected each once"),
        ("laf", {}, {"split": SplitRequest(task="clas")}, "unknown task 'clas'"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    names: str, settings: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        plan(names, settings, **fields)


def test_the_default_folder_is_another_for_another_case_only() -> None:
    folder = default_comparison_folder(plan("laf"))
    assert folder.parent == Path("runs") and folder.name.startswith("compare-digits-class-")
    assert default_comparison_folder(plan("ssd,laf", seeds=(1, 2))) == folder
    assert default_comparison_folder(plan("laf", {"laf.tau": 5})) != folder
    assert default_comparison_folder(plan("laf", split=SplitRequest(classes=("1",)))) != folder


# Running it


def test_cells_are_run_once_and_others_are_added(tmp_path: Path, counted: list[str]) -> None:
    out = tmp_path / "c"
    first = run_comparison(plan("mixunlearn-agnostic,neggrad"), out, command_line="the command")
    assert counted == ["mixunlearn-agnostic-seed0", "neggrad-seed0"] and first.finished == 2
    assert {path.name for path in out.iterdir()} == {
        ".lock", "cells", "compare.json", "pictures", "report.html", "table.csv", "table.md", "table.tex",
    }  # fmt: skip
    metrics = json.loads((out / "cells" / "neggrad-seed0" / "metrics.json").read_text())
    assert metrics["metrics"] == first.record["cells"]["neggrad-seed0"]["metrics"]
    assert "the command" in (out / "table.md").read_text()

    again = run_comparison(plan("mixunlearn-agnostic,neggrad"), out)
    assert len(counted) == 2 and again.table.rows == first.table.rows

    more = run_comparison(plan("neggrad,fine-tune"), out)
    assert counted[2:] == ["fine-tune-seed0"]
    assert set(statuses(more)) == {"mixunlearn-agnostic-seed0", "neggrad-seed0", "fine-tune-seed0"}
    assert json.loads((out / "compare.json").read_text()) == more.record


def test_a_cell_that_fails_keeps_its_reason_and_the_rest_goes_on(tmp_path: Path, counted: list[str]) -> None:
    chosen = plan("gradient-ascent,neggrad")
    outcome = run_comparison(chosen, tmp_path / "c")
    assert statuses(outcome) == {"gradient-ascent-seed0": "failed", "neggrad-seed0": "finished"}
    assert "unlearning diverged" in outcome.record["cells"]["gradient-ascent-seed0"]["reason"]
    assert outcome.table.notes[0].startswith("gradient-ascent, seed 0, failed: unlearning diverged")
    assert not (tmp_path / "c" / "cells" / "gradient-ascent-seed0").exists()

    run_comparison(chosen, tmp_path / "c")
    assert len(counted) == 2  # it would fail again
    run_comparison(chosen, tmp_path / "c", retry_failed=True)
    assert counted[2:] == ["gradient-ascent-seed0"]
    run_comparison(plan("gradient-ascent", {"gradient-ascent": {"epochs": 1}}), tmp_path / "c")
    assert counted[3:] == ["gradient-ascent-seed0"]  # other settings may work


def test_a_defect_in_one_method_does_not_cost_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **keywords: Any) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(methods.get("fine-tune"), "unlearn", broken)
    outcome = run_comparison(plan("fine-tune,neggrad"), tmp_path / "c")
    assert outcome.record["cells"]["fine-tune-seed0"]["reason"] == "ZeroDivisionError: division by zero"
    assert statuses(outcome)["neggrad-seed0"] == "finished"


def test_a_method_that_refuses_the_task_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pymixunlearn.experiments.compare import plan as planning

    original = planning.resolve_unlearning

    def refusing(request: Any, **keywords: Any) -> Any:
        if request.method == "fine-tune":
            raise UserError("method 'fine-tune' needs labels that are missing")
        return original(request, **keywords)

    monkeypatch.setattr(planning, "resolve_unlearning", refusing)
    outcome = run_comparison(plan("fine-tune,neggrad"), tmp_path / "c")
    assert statuses(outcome) == {"fine-tune-seed0": "failed", "neggrad-seed0": "finished"}
    assert "needs labels that are missing" in outcome.table.notes[0]
    with pytest.raises(UserError, match="none of the methods can run: method 'fine-tune' needs labels"):
        plan("fine-tune")


class Stop(Observer):
    """Interrupts the comparison, as Ctrl-C would, once it hears of ``text``; remembers the notes."""

    def __init__(self, text: str = "never") -> None:
        self.text = text
        self.notes: list[str] = []
        self.details: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        self.details.append(detail)
        if self.text in detail:
            raise KeyboardInterrupt


def test_an_interrupted_comparison_goes_on(tmp_path: Path, counted: list[str]) -> None:
    chosen = plan("fine-tune,mixunlearn-agnostic", {"mixunlearn.epochs": 8})
    with pytest.raises(KeyboardInterrupt):
        run_comparison(chosen, tmp_path / "c", observer=Stop("mixunlearn-agnostic-seed0: unlearn 50 %"))
    held = json.loads((tmp_path / "c" / "compare.json").read_text())["cells"]
    assert {key: cell["status"] for key, cell in held.items()} == {
        "fine-tune-seed0": "finished",
        "mixunlearn-agnostic-seed0": "unfinished",
    }
    assert "mixunlearn-agnostic, seed 0, unfinished: not run yet" in (tmp_path / "c" / "table.md").read_text()

    watcher = Stop()
    outcome = run_comparison(chosen, tmp_path / "c", observer=watcher)
    assert counted == ["fine-tune-seed0", "mixunlearn-agnostic-seed0", "mixunlearn-agnostic-seed0"]
    assert any(note.startswith("mixunlearn-agnostic-seed0: Resuming the interrupted run") for note in watcher.notes)
    assert not any(detail.endswith("unlearn 0 %") for detail in watcher.details)
    straight = run_comparison(chosen, tmp_path / "d")
    for one in (outcome, straight):
        assert one.finished == 2
    key = "mixunlearn-agnostic-seed0"
    assert hashes_of(outcome.record["cells"][key]) == hashes_of(straight.record["cells"][key])


@pytest.mark.usefixtures("all_trees")
def test_processes_give_the_same_results_and_a_killed_one_goes_on(tmp_path: Path) -> None:
    chosen = plan("fine-tune,gradient-ascent")
    here = run_comparison(chosen, tmp_path / "here", threads=1)
    there = run_comparison(chosen, tmp_path / "there", jobs=2)
    assert statuses(there) == statuses(here) == {"fine-tune-seed0": "finished", "gradient-ascent-seed0": "failed"}
    cells = [outcome.record["cells"]["fine-tune-seed0"] for outcome in (here, there)]
    for one in (lambda cell: cell["metrics"], lambda cell: cell["gap"], hashes_of):
        assert one(cells[0]) == one(cells[1])
    assert there.record["cells"]["gradient-ascent-seed0"] == here.record["cells"]["gradient-ascent-seed0"]

    killing = plan("mixunlearn-agnostic", {"mixunlearn.epochs": 400})
    assert multiprocessing.active_children() == []

    class Kill(Stop):
        def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
            if "unlearn" in detail:
                for child in multiprocessing.active_children():
                    child.kill()

    outcome = run_comparison(killing, tmp_path / "there", jobs=2, observer=Kill())
    cell = outcome.record["cells"]["mixunlearn-agnostic-seed0"]
    assert (cell["status"], cell["reason"]) == ("unfinished", "its process ended with code -9")
    assert (tmp_path / "there" / "cells" / "mixunlearn-agnostic-seed0" / ".partial").is_dir()


def test_an_interrupt_stops_the_processes(tmp_path: Path) -> None:
    chosen = plan("mixunlearn", {"mixunlearn.epochs": 400})
    with pytest.raises(KeyboardInterrupt):
        run_comparison(chosen, tmp_path / "c", jobs=2, observer=Stop("unlearn 1 %"))
    assert multiprocessing.active_children() == []


# What is refused


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    chosen = plan("fine-tune")
    run_comparison(chosen, tmp_path / "c")
    before = (tmp_path / "c" / "compare.json").read_bytes()
    with pytest.raises(UserError, match=r"holds another comparison \(its params.classes is \[0\], not \[1\]\)"):
        run_comparison(plan("fine-tune", split=SplitRequest(classes=("1",))), tmp_path / "c")
    with pytest.raises(UserError, match=r"holds another run \(its settings.epochs is 1, not 2\)"):
        run_comparison(plan("fine-tune", {"fine-tune.epochs": 2}), tmp_path / "c")
    threads = torch.get_num_threads()
    with pytest.raises(UserError, match=f"begun with {threads} threads, not {threads + 1}"):
        run_comparison(chosen, tmp_path / "c", threads=threads + 1)
    lock = FileLock(tmp_path / "c" / ".lock")
    with lock, pytest.raises(UserError, match="another process is at work"):
        run_comparison(chosen, tmp_path / "c")
    assert (tmp_path / "c" / "compare.json").read_bytes() == before

    with pytest.raises(UserError, match="jobs is 0; expected at least 1"):
        run_comparison(chosen, tmp_path / "c", jobs=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty and holds no comparison"):
        run_comparison(chosen, tmp_path / "mine")
    with pytest.raises(UserError, match="is a file"):
        run_comparison(chosen, tmp_path / "mine" / "notes.txt")
    (tmp_path / "c" / "compare.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        run_comparison(chosen, tmp_path / "c")
