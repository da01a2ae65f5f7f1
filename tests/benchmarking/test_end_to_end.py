"""Requests are timed as they are carried out, and growth is what it says."""

from __future__ import annotations

import pytest
import torch

from pymixunlearn.benchmarking import describe_machine
from pymixunlearn.benchmarking.end_to_end.growth import fitted, measure_growth, series
from pymixunlearn.benchmarking.end_to_end.request import PROVIDERS, REPEATS, measure_request
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import Observer, UnlearnInputs, resolve_unlearning

CPU = torch.device("cpu")
QUICK = {"epochs": 2, "initial.epochs": 1, "retrain.epochs": 1}


def test_a_line_is_found_and_its_fit_told() -> None:
    exact = fitted([1, 2, 4], [5, 7, 11])
    assert exact == pytest.approx((2, 3, 1))
    assert fitted([1, 2, 3, 4], [1, -1, 1, -1]).explained < 0.3
    assert fitted([1, 2], [3, 3]).explained == 1


def test_each_series_moves_one_set() -> None:
    sizes = series([10, 20], [30, 40], forget_epochs=1, retain_epochs=2)
    assert [(size.forget, size.retain) for size in sizes if size.grows == "forget"] == [(10, 40), (20, 40)]
    for streamed in (True, False):
        own = [size for size in sizes if size.grows == "retain" and size.streamed is streamed]
        assert [(size.forget, size.retain, size.epochs) for size in own] == [(10, 30, 2), (10, 40, 2)]


@pytest.mark.slow
def test_growth_counts_images_in_memory_and_not_those_in_a_file() -> None:
    """200 000 images are 157 MB, far more than everything else here."""
    few, count = 10_000, 200_000  # both enough for images to be held out, to watch the model on
    sizes = series([64], [few, count], forget_epochs=1, retain_epochs=1)[1:]
    rows = list(measure_growth(sizes, device=CPU, machine=describe_machine(CPU)))
    assert [(row.images, row.retain) for row in rows] == [
        ("streamed", few),
        ("streamed", count),
        ("in memory", few),
        ("in memory", count),
    ]
    assert all(row.steps == 2 and row.seconds > 0 for row in rows)
    peaks = [row.peak_bytes or 0 for row in rows]
    assert peaks[1] - peaks[0] < 50e6 and peaks[3] - peaks[2] > 100e6


def test_a_request_is_carried_out_by_every_provider() -> None:
    plan = resolve_unlearning(UnlearnInputs(settings=QUICK, device="cpu"))
    rows = measure_request(plan, machine=describe_machine(CPU), observer=Observer())
    assert [row.provider for row in rows] == list(PROVIDERS)
    assert [row.runs for row in rows] == [REPEATS, 1, 1]
    unlearn, pytorch, retrain = rows
    assert unlearn.steps == pytorch.steps == 2 * -(-len(plan.split.forget) // 32)
    assert retrain.steps == -(-len(plan.split.retain) // 32)
    assert retrain.ratio == 1 and unlearn.ratio == pytest.approx(retrain.seconds / unlearn.seconds)
    assert retrain.gap == 0 and unlearn.gap is not None and unlearn.gap > 0


def test_a_request_without_retrain_has_nothing_to_compare_with() -> None:
    plan = resolve_unlearning(UnlearnInputs(retrain=False, device="cpu"))
    with pytest.raises(UserError, match="with Retrain"):
        measure_request(plan, machine=describe_machine(CPU), observer=Observer())
