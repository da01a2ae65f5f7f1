from __future__ import annotations

from pymixunlearn import data
from pymixunlearn.evaluation import metric_keys
from pymixunlearn.experiments.common.inputs import SplitRequest
from pymixunlearn.experiments.compare.plan import row_names
from pymixunlearn.experiments.compare.published import find_published

CASES = {
    "class": {"classes": [0]},
    "data": {"fraction": 0.4, "classes": [5, 6, 7, 8, 9]},
    "noisy": {"fraction": 0.6, "classes": [0, 1, 2, 3, 4]},
    "semi": {"labelled": 0.4, "fraction": 0.4, "classes": [5, 6, 7, 8, 9]},
}
DATASETS = {task: ("mnist", "fashion-mnist") if task in ("class", "data") else ("cifar10", "svhn") for task in CASES}


def test_the_papers_tables_name_rows_and_metrics_that_exist() -> None:
    known = {*row_names(), "retrain", "sisa", "dsmixup"}
    for task, params in CASES.items():
        for dataset in DATASETS[task]:
            published = find_published(dataset, task, params)
            assert published is not None and "ICLR 2025" in published.source
            assert set(published.rows) <= known
            for numbers in published.rows.values():
                assert set(numbers) <= set(metric_keys(task))
                assert all(0 <= mean <= 100 and 0 <= std <= 100 for mean, std in numbers.values())
            ours = "mixunlearn-agnostic" if task == "semi" else "mixunlearn-aware"
            assert set(published.rows[ours]) == set(metric_keys(task))


def test_the_papers_cases_are_the_tasks_own_defaults() -> None:
    dataset = data.load("digits")
    for task, params in CASES.items():
        assert SplitRequest(task=task).make(dataset, 0).params == params


def test_only_the_papers_own_cases_have_numbers() -> None:
    assert find_published("mnist", "class", {"classes": [1]}) is None
    assert find_published("digits", "class", {"classes": [0]}) is None
    assert find_published("mnist", "data", {"fraction": 0.1, "classes": [5, 6, 7, 8, 9]}) is None
    assert find_published("mnist", "indices", {"count": 3}) is None
    assert find_published("mnist@10000", "class", {"classes": [0]}) is None


def test_some_numbers_are_as_printed() -> None:
    class_level = find_published("fashion-mnist", "class", CASES["class"])
    assert class_level is not None
    assert class_level.rows["retrain"]["asr"] == (38.04, 2.11)
    assert class_level.rows["mixunlearn-agnostic"]["test_r"] == (91.80, 1.33)
    data_level = find_published("mnist", "data", CASES["data"])
    assert data_level is not None and data_level.rows["mixunlearn-aware"]["train_f"] == (98.70, 0.28)
