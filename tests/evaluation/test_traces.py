"""What is told beside the acceptance test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pymixunlearn.evaluation.traces import PROBED, auc_estimate, difference_of_shares, probe


def test_an_interval_of_the_auc_holds_the_true_one_in_nineteen_of_twenty_cases() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        estimate = auc_estimate(chance.normal(0.5, 1, 60), chance.normal(0, 1, 200))
        held += estimate.low <= 0.6382 <= estimate.high  # Phi(0.5 / sqrt(2))
    assert 0.92 * 400 <= held <= 0.98 * 400


@pytest.mark.parametrize("area", [0.75, 0.95, 0.99, 0.999])
@pytest.mark.parametrize(("members", "others", "spread"), [(10, 10, 1), (20, 60, 3), (60, 20, 1)])
def test_an_interval_holds_the_auc_also_where_nearly_all_samples_are_told_apart(
    members: int, others: int, spread: float, area: float
) -> None:
    chance = np.random.default_rng(1)
    shift = norm.ppf(area) * (1 + spread**2) ** 0.5
    estimates = [auc_estimate(chance.normal(shift, spread, members), chance.normal(0, 1, others)) for _ in range(300)]
    assert sum(found.low <= area <= found.high for found in estimates) >= 0.92 * 300
    assert all(found.low < found.value or found.value == 0 for found in estimates)


def test_samples_that_are_all_told_apart_leave_an_interval() -> None:
    apart, mirrored = (auc_estimate(shift + np.arange(15.0), np.arange(15.0)) for shift in (100, -100))
    assert apart.value == apart.high == 1 and 0.8 < apart.low < 0.9
    assert mirrored.value == mirrored.low == 0 and mirrored.high == pytest.approx(1 - apart.low)


def test_an_interval_of_a_difference_is_that_of_two_proportions() -> None:
    found = difference_of_shares(90.0, 100, 80.0, 400)
    assert found.value == pytest.approx(10)
    # Wilson's intervals are 82.56 to 94.48 and 75.81 to 83.63; their sides add by their squares.
    assert found.low == pytest.approx(10 - (7.44**2 + 3.63**2) ** 0.5, abs=0.02)
    assert found.high == pytest.approx(10 + (4.48**2 + 4.19**2) ** 0.5, abs=0.02)
    nothing = difference_of_shares(0.0, 50, 0.0, 100)
    assert nothing.low < 0 < nothing.high


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.4, 0.6), (1.0, 0.63, 0.8)])
def test_the_probe_finds_a_direction_that_differs_and_no_other(shift: float, low: float, high: float) -> None:
    stream = torch.Generator().manual_seed(1)
    forget, unseen = torch.randn(150, 40, generator=stream), torch.randn(300, 40, generator=stream)
    forget[:, 7] += shift
    found = probe(forget, unseen, seed=0)
    assert low < found.value < high and found.low < found.value < found.high
    assert (found.low > 0.5) is bool(shift)


def test_the_probe_looks_at_so_many_samples_and_no_more() -> None:
    """Beyond that the interval no longer narrows."""
    stream = torch.Generator().manual_seed(2)
    many = [torch.randn(2 * PROBED, 3, generator=stream) for _ in range(2)]
    found = probe(*many, seed=0)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt((2 * PROBED + 1) / (12 * PROBED**2)), rel=0.1)
