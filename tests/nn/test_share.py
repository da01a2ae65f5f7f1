"""Masks held to a share: the shift against bisection, and gradients through it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pymixunlearn.nn.share import SMALLEST, hold_share


def _bisected(logits: Tensor, share: Tensor) -> Tensor:
    """The shifted logits, by halving: the mean rises with the shift."""
    low = torch.full((len(logits), 1, 1), -1e3, dtype=logits.dtype)
    high = -low
    for _ in range(200):
        middle = (low + high) / 2
        below = torch.sigmoid(logits + middle).mean((1, 2), keepdim=True) < share.reshape(-1, 1, 1)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return logits + middle


def _logits(scale: float, masks: int = 16) -> Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randn(masks, 7, 7, generator=stream, dtype=torch.float64) * scale


@pytest.mark.parametrize("scale", [0, 1e-4, 0.1, 1, 5, 50])
@pytest.mark.parametrize("share", [SMALLEST, 0.02, 0.3, 0.5, 0.98])
def test_the_mean_is_the_share_at_every_scale(scale: float, share: float) -> None:
    logits = _logits(scale)
    held = hold_share(logits, share)
    assert (held.sigmoid().mean((1, 2)) - share).abs().max() < 1e-9
    shifts = held - logits
    torch.testing.assert_close(shifts, shifts[:, :1, :1].expand_as(shifts), rtol=0, atol=1e-9)  # one per mask
    # Where a mask is 0 or 1 almost everywhere, its mean says little about the shift.
    if scale <= 5:
        torch.testing.assert_close(
            held, _bisected(logits, torch.full((16,), share, dtype=torch.float64)), rtol=0, atol=1e-6
        )
    in_float32 = hold_share(logits.float(), share)
    assert (in_float32.double().sigmoid().mean((1, 2)) - share).abs().max() < 1e-5


def test_every_mask_may_have_a_share_of_its_own() -> None:
    logits, shares = _logits(2.0), torch.linspace(0.05, 0.9, 16, dtype=torch.float64)
    torch.testing.assert_close(hold_share(logits, shares), _bisected(logits, shares), rtol=0, atol=1e-8)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_none_and_all_stay_finite(share: float) -> None:
    logits = _logits(3.0).requires_grad_()
    held = hold_share(logits, share)
    held.sum().backward()
    assert held.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()
    assert (held.sigmoid().mean((1, 2)) - share).abs().max().item() == pytest.approx(SMALLEST, rel=1e-3)


def test_gradients_are_those_of_the_shifted_logits() -> None:
    logits = _logits(2.0, masks=2)[:, :2, :3].clone().requires_grad_()
    shares = torch.tensor([0.2, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: hold_share(values, shares), logits)


def test_the_type_stays() -> None:
    held = hold_share(_logits(1.0).bfloat16(), torch.tensor(0.3))
    assert held.dtype == torch.bfloat16 and (held.float().sigmoid().mean((1, 2)) - 0.3).abs().max() < 0.01
