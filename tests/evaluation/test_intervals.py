from __future__ import annotations

import pytest
from scipy.stats import binomtest

from pymixunlearn.evaluation.intervals import wilson


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (50, 100), (0, 36), (36, 36), (975, 1000), (1, 10000)])
def test_wilson_is_scipys(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(100 * hits / count, count) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)


def test_an_interval_holds_its_value_and_narrows_with_more_samples() -> None:
    for percent in (0.0, 1e-9, 33.3, 99.9, 100.0):
        widths = []
        for count in (1, 10, 1000, 10**6):
            low, high = wilson(percent, count)
            assert 0 <= low <= percent <= high <= 100
            widths.append(high - low)
        assert widths == sorted(widths, reverse=True)
