"""Results that differ are found, wherever they differ."""

from __future__ import annotations

import pytest
import torch

from pymixunlearn.benchmarking.ops import agreement
from pymixunlearn.benchmarking.ops.agreement import Mismatch, check_agreement


def test_rounding_is_accepted() -> None:
    exact = torch.linspace(-3, 3, 1000, dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        noisy = (exact + 0.1 * agreement.TOLERANCE[dtype]).to(dtype)
        check_agreement("rival", [exact.to(dtype)], [noisy])


@pytest.mark.parametrize("place", [0, 3, 10])
def test_a_difference_is_found_in_any_block(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_BLOCK", 4)
    ours = torch.ones(11)
    theirs = ours.clone()
    theirs[place] = 1.01
    with pytest.raises(Mismatch, match=r"the value of rival differs .* by up to 0\.01"):
        check_agreement("rival", [ours], [theirs])
    with pytest.raises(Mismatch, match="gradient 1 of rival differs"):
        check_agreement("rival", [ours, ours], [ours, theirs])


def test_nan_is_a_difference_and_equal_infinities_are_none() -> None:
    infinite = torch.tensor([1.0, torch.inf])
    check_agreement("rival", [infinite], [infinite.clone()])
    for wrong in (torch.nan, -torch.inf):
        with pytest.raises(Mismatch):
            check_agreement("rival", [infinite], [torch.tensor([1.0, wrong])])


def test_another_shape_or_dtype_is_a_mismatch() -> None:
    with pytest.raises(Mismatch, match=r"has shape \[1, 2\]"):
        check_agreement("rival", [torch.ones(2)], [torch.ones(1, 2)])
    with pytest.raises(Mismatch, match=r"dtype torch\.float64"):
        check_agreement("rival", [torch.ones(2)], [torch.ones(2).double()])
