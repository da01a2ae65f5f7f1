from __future__ import annotations

from pymixunlearn.evaluation import metric_keys
from pymixunlearn.experiments.comparison import row_names
from pymixunlearn.experiments.published import find_published

CASES = {"class": {"classes": [0]}, "data": {"fraction": 0.4, "classes": [5, 6, 7, 8, 9]}}


def test_the_papers_tables_name_rows_and_metrics_that_exist() -> None:
    known = {*row_names(), "retrain", "sisa", "dsmixup"}
    for task, params in CASES.items():
        for dataset in ("mnist", "fashion-mnist"):
            published = find_published(dataset, task, params)
            assert published is not None and "ICLR 2025" in published.source
            assert set(published.rows) <= known
            for numbers in published.rows.values():
                assert set(numbers) <= set(metric_keys(task))
                assert all(0 <= mean <= 100 and 0 <= std <= 100 for mean, std in numbers.values())
            assert set(published.rows["mixunlearn-aware"]) == set(metric_keys(task))


def test_only_the_papers_own_cases_have_numbers() -> None:
    assert find_published("mnist", "class", {"classes": [1]}) is None
    assert find_published("digits", "class", {"classes": [0]}) is None
    assert find_published("mnist", "data", {"fraction": 0.1, "classes": [5, 6, 7, 8, 9]}) is None
    assert find_published("mnist", "indices", {"count": 3}) is None


def test_some_numbers_are_as_printed() -> None:
    class_level = find_published("fashion-mnist", "class", CASES["class"])
    assert class_level is not None
    assert class_level.rows["retrain"]["asr"] == (38.04, 2.11)
    assert class_level.rows["mixunlearn-agnostic"]["test_r"] == (91.80, 1.33)
    data_level = find_published("mnist", "data", CASES["data"])
    assert data_level is not None and data_level.rows["mixunlearn-aware"]["train_f"] == (98.70, 0.28)
