from __future__ import annotations

import numpy as np
import pytest

from pymixunlearn import data, evaluation, models, tasks
from pymixunlearn.errors import UserError


@pytest.mark.parametrize("task", ["class", "indices"])
def test_arrays_give_what_the_model_gives(task: str) -> None:
    digits = data.load("digits@400")
    split = tasks.class_split(digits, [3]) if task == "class" else tasks.index_split(digits, range(0, 60, 2))
    first, second = (models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=seed) for seed in (0, 1))
    retrain = evaluation.evaluate(second, split, device="cpu")
    expected = evaluation.evaluate(first, split, reference=retrain, device="cpu")

    def of_arrays(metrics: evaluation.Metrics, reference: evaluation.Metrics | None) -> evaluation.Metrics:
        predictions = metrics.predictions
        assert predictions is not None
        return evaluation.evaluate_arrays(
            predictions.train.numpy(),
            predictions.train_targets.numpy(),
            predictions.test.double().numpy(),
            predictions.test_targets.numpy(),
            forget=split.forget_indices if task == "indices" else None,
            forget_classes=[3] if task == "class" else (),
            reference=reference,
        )

    found = of_arrays(expected, of_arrays(retrain, None))
    assert set(expected) - set(found) == {"zrf"}
    assert dict(found) == {key: expected[key] for key in found}
    assert found.gap is not None and found.details["intervals"] == expected.details["intervals"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_targets": [0, 1]},
            r"train_targets of shape \[N\], got torch.float64 of shape \[30, 3\] and shape \[2\]",
        ),
        ({"test_logits": np.full((30, 3), np.nan)}, "test_logits must be finite"),
        ({"test_logits": np.zeros((30, 4))}, "train_logits have 3 classes and test_logits 4"),
        ({"test_targets": np.full(30, 0.5)}, "test_targets must be class indices, got torch.float64"),
        ({"test_targets": np.full(30, 7)}, "targets must lie in 0..2"),
        ({"forget": [40]}, "index out of range: expected 0..29"),
        ({"forget": None}, "the forget set must have at least one training sample"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    labels = np.arange(30) % 3
    given = {"train_logits": np.eye(3)[labels], "train_targets": labels, "test_logits": np.eye(3)[labels]}
    given |= {"test_targets": labels, "forget": [0, 1]}
    with pytest.raises(UserError, match=message):
        evaluation.evaluate_arrays(**{**given, **change})
