"""What the files of the exhibits say, and the cells that follow from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import metric_keys
from pymixunlearn.experiments import BadRequest, ExperimentInputs, ExperimentPlan, resolve_experiment
from pymixunlearn.experiments.common.settings import build_config, flat_settings, split_by_target
from pymixunlearn.experiments.compare.published import published_tables
from pymixunlearn.experiments.paper import plan as paper_plan
from pymixunlearn.experiments.paper import results
from pymixunlearn.experiments.paper.exhibit import (
    TRAINING,
    as_yaml,
    exhibit_names,
    read_content,
    read_exhibit,
)
from pymixunlearn.experiments.paper.inputs import SCALES
from pymixunlearn.experiments.paper.plan import case_key
from pymixunlearn.experiments.unlearn.plan import resolve_unlearning

NAMES = (*(f"table{number}" for number in range(1, 8)), *(f"figure{number}" for number in range(3, 12)))
OURS_ALONE = ("eu-k", "prune-reset", "mixunlearn-reset")
"""Methods of rows that the paper does not have."""
OWN = {
    "title": "Mine",
    "form": "table",
    "tasks": [{"task": "class", "classes": [1]}],
    "rows": {
        "gentle": {"label": "Gentle", "method": "neggrad", "settings": {"epochs": 1}},
        "ours": {"method": "mixunlearn", "label_aware": False},
    },
    "scales": {"tiny": {"data": ["digits"]}},
}


def plan(name: str, scale: str = "tiny", **fields: Any) -> ExperimentPlan:
    return resolve_experiment(ExperimentInputs(name, scale, device="cpu", **fields))


def own(folder: Path, **changes: Any) -> str:
    """Write an exhibit of one's own and return its path."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**OWN, **changes}, sort_keys=False))
    return str(path)


def test_the_papers_tables_and_figures_are_there() -> None:
    assert exhibit_names() == NAMES


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_exhibit_can_be_read_at_every_scale(name: str, scale: str) -> None:
    exhibit = read_exhibit(name, scale)
    assert exhibit.about and exhibit.title.lower().replace(" ", "").startswith(name)
    assert exhibit.preset == ("paper" if scale == "paper" else "tuned")
    assert exhibit.asr == ("paper" if scale == "paper" else "default")
    for row in exhibit.rows:
        if row.method != TRAINING:
            kinds = methods.get(row.method).config_class.kinds()
            build_config(
                methods.get(row.method).config_class, split_by_target(flat_settings(row.settings), kinds)["method"]
            )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("table")])
def test_the_papers_numbers_have_rows_cases_and_metrics_of_the_table(name: str) -> None:
    exhibit = read_exhibit(name, "paper")
    assert exhibit.published == name
    _, tables = published_tables(name)
    cases = {case_key(exhibit, data, task): task.task for data in exhibit.data for task in exhibit.tasks}
    assert set(tables) == set(cases)
    for case, rows in tables.items():
        assert set(rows) == {"retrain", *(row.key for row in exhibit.rows if row.method not in OURS_ALONE)}
        assert {key for values in rows.values() for key in values} == set(metric_keys(cases[case]))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_runs_the_same_way(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(as_yaml(read_content(name)[1]))
    for scale in SCALES:
        assert read_exhibit(str(path), scale) == read_exhibit(name, scale)


def test_a_scale_is_changed_by_what_the_exhibit_says(tmp_path: Path) -> None:
    exhibit = read_exhibit(own(tmp_path, scales={"tiny": {"data": ["digits"], "seeds": [4, 5]}}), "tiny")
    assert exhibit.seeds == (4, 5) and exhibit.data[0].dataset == "digits"
    mine = {"mine": {"label": "Mine", "dataset": "photos.tar.gz", "settings": {"neggrad.epochs": 3}}}
    exhibit = read_exhibit(own(tmp_path, scales={"half": {"data": mine, "seeds": [0]}}), "half")
    assert (exhibit.data[0].key, exhibit.data[0].dataset, exhibit.about) == ("mine", "photos.tar.gz", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "Mine"}, "unknown key of .*'titel'.*Did you mean 'title'"),
        ({"form": "tabel"}, "unknown form 'tabel'.*Did you mean 'table'"),
        ({"title": 3}, "title of 'mine' is 3; expected a text"),
        ({"tasks": [{"task": "class", "clases": [0]}]}, "unknown key of task 1 of .*'clases'.*'classes'"),
        ({"tasks": []}, "tasks of 'mine' are"),
        (
            {"tasks": [{"task": "data", "fraction": 40}]},
            "fraction of task 1 of 'mine' is 40; expected a number above 0",
        ),
        ({"rows": {"a": {"methode": "laf"}}}, "unknown key of row 'a' of 'mine' 'methode'.*'method'"),
        ({"rows": {"a": {"method": "fal"}}}, "unknown method of row 'a' 'fal'"),
        ({"rows": {"a/b": {"method": "laf"}}}, "has a slash in its name"),
        ({"rows": {"a": {"method": "laf", "settings": {"epoch": 1}}}}, "unknown setting 'epoch'.*'epochs'"),
        ({"rows": {"a": {"method": "laf", "settings": {"epochs": "x"}}}}, "epochs is 'x'"),
        ({"scales": {"tiny": {"data": ["digit"]}}}, "unknown data of scale 'tiny' of .*'digit'.*'digits'"),
        ({"scales": {"tiny": {"data": ["digits"], "seed": [1]}}}, "unknown key of scale 'tiny' of .*'seed'.*'seeds'"),
        ({"scales": {"tiny": {"data": ["digits"], "seeds": [1, 1]}}}, "expected each once"),
        ({"scales": {"tiny": {"data": ["digits"], "settings": {"epochs": 1}}}}, "'epochs' names no method"),
        ({"scales": {"tiny": {"data": ["digits"], "settings": {"fal.epochs": 1}}}}, "unknown method or row 'fal'"),
        ({"scales": {"small": {"data": ["mnist"]}}}, "unknown scale of 'mine' 'tiny'; expected one of small"),
        ({"scales": {}}, "has no scales"),
        ({"rows": {}}, "has no rows"),
        ({"form": "curves"}, "row 'gentle' of 'mine' has the method 'neggrad'; expected 'initial'"),
        ({"rows": {"a": {"method": "initial"}}}, "has the method 'initial'; expected an unlearning method"),
        ({"form": "sweep"}, "row 'ours' of 'mine' sets {}; expected one setting"),
        ({"form": "ratio"}, "task 'class' of 'mine' has no fraction"),
    ],
)
def test_what_a_file_says_wrong_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=message):
        plan(own(tmp_path, **changes))


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exhibit 'none.yaml' cannot be read: No such file"):
        read_exhibit("none.yaml", "tiny")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(BadRequest, match=r"is not valid YAML"):
        read_exhibit(str(tmp_path / "bad.yaml"), "tiny")
    with pytest.raises(BadRequest, match="unknown exhibit 'tabel1'.*Did you mean 'table1'"):
        read_exhibit("tabel1", "tiny")


# Cells


def folders(found: ExperimentPlan) -> set[str | None]:
    return {cell.run_folder(1) for cell in found.cells}


def test_cells_that_exhibits_share_are_one_run() -> None:
    class_level = folders(plan("table1"))
    assert folders(plan("figure7")) < class_level
    for name in ("figure4", "figure8"):
        assert folders(plan(name)) < class_level
    assert folders(plan("figure3")) < folders(plan("table3"))
    assert len(class_level & folders(plan("table3"))) == 1  # our method itself
    assert len(folders(plan("table2")) & folders(plan("figure9"))) == 5  # those of 40 %


def test_other_threads_seeds_and_settings_are_other_runs(tmp_path: Path) -> None:
    (first, *_) = plan(own(tmp_path)).cells
    assert first.run_folder(1) != first.run_folder(2)
    assert folders(plan(own(tmp_path))).isdisjoint(folders(plan(own(tmp_path), seeds=(3,))))
    longer = {"tiny": {"data": ["digits"], "settings": {"initial.epochs": 9}}}
    assert folders(plan(own(tmp_path))).isdisjoint(folders(plan(own(tmp_path, scales=longer))))


def test_a_rows_own_settings_are_nearest(tmp_path: Path) -> None:
    data = {"d": {"dataset": "digits", "settings": {"neggrad.lr": 0.5, "gentle": {"retain_weight": 3}}}}
    scale = {"data": data, "seeds": [0], "settings": {"neggrad": {"epochs": 7, "lr": 0.25}, "initial.epochs": 2}}
    gentle, ours = plan(own(tmp_path, scales={"tiny": scale})).cells
    config = gentle.plan.method.config.to_dict()  # type: ignore[union-attr]
    assert (config["epochs"], config["lr"], config["retain_weight"]) == (1, 0.5, 3.0)
    for cell in (gentle, ours):
        assert cell.plan.initial_config.epochs == 2  # type: ignore[union-attr]


def test_on_a_gpu_all_rows_have_one_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def precisions(**settings: Any) -> list[Any]:
        rows = {**OWN["rows"], "own": {"method": "mixunlearn", "label_aware": True, "settings": settings}}
        found = resolve_experiment(ExperimentInputs(own(tmp_path, rows=rows), "tiny"))
        return [cell.inputs.settings.get("precision") for cell in found.cells]

    monkeypatch.setattr(paper_plan, "resolve_device", lambda name: torch.device("cpu"))
    assert precisions() == [None, None, None]
    monkeypatch.setattr(paper_plan, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(
        paper_plan, "resolve_unlearning", lambda run, split: resolve_unlearning(replace(run, device="cpu"), split=split)
    )
    assert precisions() == [None, "float32", "float32"]  # neggrad has no other
    assert precisions(precision="bfloat16") == [None, "float32", "bfloat16"]


@pytest.mark.parametrize("name", ["table2", "table4", "table6"])
def test_no_row_of_the_papers_tables_is_rolled_back(name: str) -> None:
    """A rolled back row is the initial model; the preset of --scale paper says the same."""
    assert read_exhibit(name, "paper").preset == "paper"
    small, tiny = read_exhibit(name, "small").settings, read_exhibit(name, "tiny").settings
    assert {key: tiny[key] for key in small} == small and set(small.values()) == {False}
    cells = [cell for cell in plan(name).cells if not cell.label_aware]
    assert cells and not any(cell.plan.method.config.may_roll_back for cell in cells)  # type: ignore[union-attr]


def test_only_picks_cells_by_their_parts(tmp_path: Path) -> None:
    def chosen(*patterns: str) -> list[str]:
        return [cell.key for cell in plan(own(tmp_path), seeds=(0, 1), only=patterns).cells if cell.selected]

    assert len(chosen()) == 4
    assert chosen("ours") == ["digits/ours/seed0", "digits/ours/seed1"]
    assert chosen("*/gentle/*", "seed1") == ["digits/gentle/seed0", "digits/gentle/seed1", "digits/ours/seed1"]
    with pytest.raises(BadRequest, match="unknown pattern of cells 'our'; .*Did you mean 'ours'"):
        chosen("our")


def test_data_that_are_not_there_are_not_run_and_say_why(tmp_path: Path) -> None:
    found = plan("table5", "small", data_dir=tmp_path, download=False)
    assert [case.key for case in found.cases] == ["cifar10", "svhn"]
    for case in found.cases:
        assert case.reason is not None and f"--data {case.key}=FOLDER" in case.reason
        assert not any(cell.available for cell in case.cells)


def test_a_folder_of_images_serves_a_data_set_and_is_called_a_copy(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("test", 2)):
        for label in range(10):
            (tmp_path / "copy" / part / f"c{label}").mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (8, 8), (25 * label, 20 * number, 0))
                picture.save(tmp_path / "copy" / part / f"c{label}" / f"{number}.png")
    with pytest.raises(UserError, match="2500"):  # there are fewer
        plan("table5", "small", data_dir=tmp_path, download=False, folders=(f"cifar10={tmp_path / 'copy'}",))
    data = {"cifar10": {"label": "CIFAR-10", "dataset": "cifar10@40", "image_size": 16, "model": "resnet14"}}
    mine = own(tmp_path, scales={"tiny": {"data": data, "seeds": [0]}})
    (case,) = plan(mine, folders=(f"cifar10={tmp_path / 'copy'}",)).cases
    assert case.label == "CIFAR-10 (PNG copy)" and case.reason is None
    with pytest.raises(BadRequest, match="unknown data set of the exhibit 'cifar'"):
        plan(mine, folders=(f"cifar={tmp_path}",))
    with pytest.raises(BadRequest, match="expected NAME=FOLDER"):
        plan(mine, folders=("cifar10",))
    with pytest.raises(UserError, match="does not exist"):
        plan(mine, folders=("cifar10=nowhere",))


def test_the_papers_numbers_stand_beside_its_own_protocol_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for label in range(10):
            (tmp_path / "copy" / part / f"c{label}").mkdir(parents=True)
            for number in range(count):
                picture = Image.new("L", (28, 28), 20 * label + number)
                picture.save(tmp_path / "copy" / part / f"c{label}" / f"{number}.png")

    def numbers(changes: dict[str, Any], scale: str = "paper", images: int = 30, **scales: Any) -> Any:
        monkeypatch.setitem(results._TRAINING_IMAGES, "mnist", images)
        _, content = read_content("table1")
        rows = {row: content["rows"][row] for row in ("neggrad", "laf")}
        here = {**content["scales"][scale], "seeds": [0], **scales}
        here["data"] = {"mnist": {**content["scales"]["paper"]["data"]["mnist"], **scales.get("data", {})}}
        path = tmp_path / "mine.yaml"
        path.write_text(as_yaml({**content, "rows": rows, "scales": {scale: here}, **changes}))
        found = plan(str(path), scale, folders=(f"mnist={tmp_path / 'copy'}",))
        return results.published_numbers(found.exhibit, found.cases[0])[0]

    assert numbers({})["laf"]["asr"] == published_tables("table1")[1]["mnist"]["laf"]["asr"]
    assert "asr" not in numbers({}, asr="default")["laf"]
    assert numbers({}, images=60_000) is None
    assert numbers({}, scale="small") is None
    assert numbers({"tasks": [{"task": "class", "classes": [1]}]}) is None
    assert numbers({}, data={"image_size": 14}) is None
    assert numbers({}, settings={"initial.epochs": 3}) is None
    assert numbers({"published": None}) is None


def test_a_method_that_cannot_do_the_task_is_a_cell_that_fails(tmp_path: Path) -> None:
    mine = own(tmp_path, tasks=[{"task": "semi"}])
    gentle, ours = plan(mine).cells
    assert gentle.plan is None and gentle.reason is not None and "needs labels" in gentle.reason
    assert ours.plan is not None
