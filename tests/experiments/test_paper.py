from __future__ import annotations

from typing import Any

import pytest

from pymixunlearn import data
from pymixunlearn.evaluation import metric_keys
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.compare.plan import row_names
from pymixunlearn.experiments.compare.published import find_published, published_tables
from pymixunlearn.training.recipes import defaults_for

CASES: dict[str, dict[str, Any]] = {
    "class": {"classes": [0]},
    "data": {"fraction": 0.4, "classes": [5, 6, 7, 8, 9]},
    "noisy": {"fraction": 0.6, "classes": [0, 1, 2, 3, 4]},
    "semi": {"labelled": 0.4, "fraction": 0.4, "classes": [5, 6, 7, 8, 9]},
}
GREY, COLOUR = ("mnist", "fashion-mnist"), ("cifar10", "svhn")
METRICS = {
    "table1": metric_keys("class"),
    "table2": metric_keys("data"),
    "table3": metric_keys("class"),
    "table4": metric_keys("data"),
    "table5": metric_keys("noisy"),
    "table6": metric_keys("semi"),
}
ILLEGIBLE = {"table1": 0, "table2": 27, "table3": 10, "table4": 42, "table5": 0, "table6": 0, "table7": 0}
"""Cells that the copy of the paper does not show."""


def case(dataset: str, task: str, **changes: Any) -> dict[str, Any]:
    """What the cells of a comparison in the paper's protocol have in common."""
    network, size = ("cnn", None) if dataset in GREY else ("resnet18", 224)
    semi = task == "semi"
    return {
        "dataset": dataset,
        "task": task,
        "params": CASES[task],
        "preprocess": {"size": size},
        "architecture": {"name": network},
        "checkpoint_sha256": None,
        "initial": defaults_for(network, "initial", semi_supervised=semi).to_dict(),
        "retrain": defaults_for(network, "retrain", semi_supervised=semi).to_dict(),
        "asr": "paper",
        **changes,
    }


@pytest.mark.parametrize("name", METRICS)
def test_a_table_is_whole(name: str) -> None:
    source, tables = published_tables(name)
    assert "ICLR 2025" in source and source.endswith(f"Table {name[-1]}")
    assert set(tables) == set(COLOUR if name in ("table5", "table6") else (*GREY, *COLOUR))
    rows = [set(cells) for cells in tables.values()]
    assert all(names == rows[0] for names in rows)
    for cells in tables.values():
        for numbers in cells.values():
            assert tuple(numbers) == METRICS[name]


@pytest.mark.parametrize("name", ILLEGIBLE)
def test_what_is_illegible_is_marked_and_counted(name: str) -> None:
    _, tables = published_tables(name)
    cells = [cell for rows in tables.values() for numbers in rows.values() for cell in numbers.values()]
    assert sum(cell is None for cell in cells) == ILLEGIBLE[name]
    for mean, std in filter(None, cells):
        assert 0 <= mean <= 100 and (std is None or 0 <= std <= 100)


@pytest.mark.parametrize("name", ["table1", "table2", "table5", "table6", "table7"])
def test_rows_are_those_of_a_comparison(name: str) -> None:
    known = {*row_names(), "retrain"}
    assert all(set(rows) <= known for rows in published_tables(name)[1].values())


def test_tables_that_repeat_rows_agree() -> None:
    for name, other in (("table3", "table1"), ("table4", "table2")):
        ablation, main = published_tables(name)[1], published_tables(other)[1]
        for dataset in main:
            for row in ("retrain", "mixunlearn-agnostic"):
                assert ablation[dataset][row] == main[dataset][row]


@pytest.mark.parametrize("task", CASES)
def test_every_case_of_the_paper_has_numbers(task: str) -> None:
    for dataset in (*GREY, *COLOUR) if task in ("class", "data") else COLOUR:
        found = find_published(case(dataset, task))
        assert found is not None
        assert set(found.rows["retrain"]) == set(metric_keys(task))


def test_the_papers_cases_are_the_tasks_own_defaults() -> None:
    dataset = data.load("digits")
    for task, params in CASES.items():
        assert SplitRequest(task=task).make(dataset, 0).params == params


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"classes": [1]}},
        {"dataset": "digits"},
        {"dataset": "cifar10@10000"},
        {"task": "indices", "params": {"count": 3}},
        {"preprocess": {"size": None}},  # 32 pixels
        {"architecture": {"name": "resnet14"}},
        {"architecture": {"specification": "torchvision:resnet18"}},
        {"checkpoint_sha256": "ab"},
        {"initial": {**case("cifar10", "class")["initial"], "epochs": 3}},
        {"retrain": {**case("cifar10", "class")["retrain"], "lr": 1e-3}},
    ],
)
def test_only_the_papers_own_protocol_has_numbers(changes: dict[str, Any]) -> None:
    assert find_published(case("cifar10", "class")) is not None
    assert find_published({**case("cifar10", "class"), **changes}) is None


def test_an_attack_of_another_form_is_not_compared() -> None:
    other = case("mnist", "class")
    del other["asr"]
    found = find_published(other)
    assert found is not None and all("asr" not in numbers for numbers in found.rows.values())


def test_some_numbers_are_as_printed() -> None:
    class_level = find_published(case("fashion-mnist", "class"))
    assert class_level is not None
    assert class_level.rows["retrain"]["asr"] == (38.04, 2.11)
    assert class_level.rows["mixunlearn-agnostic"]["test_r"] == (91.80, 1.33)
    data_level = find_published(case("mnist", "data"))
    assert data_level is not None and data_level.rows["mixunlearn-aware"]["train_f"] == (98.70, 0.28)
    on_photos = find_published(case("svhn", "class"))
    assert on_photos is not None and on_photos.rows["laf"]["test_r"] == (84.89, 1.34)
    assert published_tables("table7")[1]["imagenet-class"]["mixunlearn-aware"]["test_f"] == (1.51, 0.37)
    ablation = published_tables("table3")[1]["cifar10"]
    assert ablation["no-mix"]["test_r"] == (82.15, 1.69) and ablation["no-real"]["test_r"] == (29.30, 1.80)
