from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pymixunlearn import data, tasks
from pymixunlearn.evaluation import Predictions, most_changed
from pymixunlearn.evaluation.changes import changes_of


@pytest.fixture(scope="module")
def before() -> Predictions:
    split = tasks.class_split(data.load("digits"))
    return Predictions(split, torch.zeros(len(split.train), 10), torch.zeros(len(split.test), 10), None)


def test_the_samples_that_changed_most_come_first_with_what_was_predicted(before: Predictions) -> None:
    split, logits = before.split, torch.zeros(len(before.split.train), 10)
    forgotten, retained = split.forget_indices, split.retain_indices
    logits[forgotten[7]] = torch.tensor([-torch.inf] * 3 + [0.0] + [-torch.inf] * 6)
    logits[forgotten[2], 5] = 1.0
    logits[retained[4], 1] = 2.0
    found = most_changed(before, replace(before, train=logits), before, count=3)
    assert [entry["index"] for entry in found["forget"]] == [int(forgotten[7]), int(forgotten[2])]
    first = found["forget"][0]
    assert first == {
        "index": int(forgotten[7]),
        "label": 0,
        "change": 90.0,
        "initial": [0, 10.0],
        "unlearned": [3, 100.0],
        "retrain": [0, 10.0],
    }
    assert [entry["index"] for entry in found["retain"]] == [int(retained[4])] and found["test"] == []


def test_change_is_the_total_variation_distance(before: Predictions) -> None:
    logits = torch.zeros(len(before.test), 10)
    logits[5, 0] = torch.tensor(9.0).log()  # 1/2 and nine times 1/18 in the place of ten times 1/10
    (entry,) = changes_of("test", [5], before, replace(before, test=logits))
    assert entry["change"] == 40.0 and entry["unlearned"] == [0, 50.0] and "retrain" not in entry


def test_of_equal_changes_the_first_are_named(before: Predictions) -> None:
    logits = torch.zeros(len(before.test), 10)
    logits[:, 2] = 1.0
    found = most_changed(before, replace(before, test=logits), count=4)
    assert [entry["index"] for entry in found["test"]] == [0, 1, 2, 3]


def test_blocks_change_no_bit_and_hold_memory_down(before: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = torch.Generator().manual_seed(0)
    after = replace(before, train=torch.randn(len(before.train), 10, generator=stream), test=before.test + 0.0)
    count = len(before.train)
    whole = most_changed(before, after, count=count)
    looked_at: list[int] = []
    softmax = torch.Tensor.softmax

    def counting(logits: torch.Tensor, dim: int) -> torch.Tensor:
        looked_at.append(len(logits))
        return softmax(logits, dim)

    monkeypatch.setattr("pymixunlearn.evaluation.changes.BLOCK", 100)
    monkeypatch.setattr(torch.Tensor, "softmax", counting)
    assert most_changed(before, after, count=count) == whole
    looked_at.clear()
    most_changed(before, after, count=2)
    assert max(looked_at) == 100
