"""Agreement of rivals: their values and gradients are compared with the fused ones before any timing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Largest error as a share of the largest magnitude: plain PyTorch rounds intermediate results to the input's dtype.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_BLOCK = 1 << 22


class Mismatch(RuntimeError):
    """A provider's result is not the fused operator's."""


def check_agreement(provider: str, fused: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Compare a provider's value and gradients, in this order, with the fused operator's.

    Raises:
        Mismatch: Shapes or dtypes differ, or an error exceeds :data:`TOLERANCE`; says where and by how much.
    """
    for index, (expected, actual) in enumerate(zip(fused, theirs, strict=True)):
        what = f"the value of {provider}" if index == 0 else f"gradient {index} of {provider}"
        if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
            raise Mismatch(
                f"{what} has shape {list(actual.shape)} and dtype {actual.dtype}; "
                f"the fused one's are {list(expected.shape)} and {expected.dtype}"
            )
        error, magnitude = _worst(expected.detach(), actual.detach())
        bound = TOLERANCE[expected.dtype] * magnitude
        # A NaN anywhere makes the error NaN, which no bound admits.
        if not error <= bound:
            raise Mismatch(
                f"{what} differs from the fused one by up to {error:.3g}, "
                f"where the largest magnitude is {magnitude:.3g} and {bound:.3g} would do"
            )


def _blocks(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor.flatten(), _BLOCK)


def _worst(expected: Tensor, actual: Tensor) -> tuple[float, float]:
    """Largest difference and largest finite magnitude, block by block to need little memory."""
    errors, magnitudes = [expected.new_zeros((), dtype=torch.float64)], [expected.new_zeros((), dtype=torch.float64)]
    for block, other in zip(_blocks(expected), _blocks(actual), strict=True):
        ours, theirs = block.double(), other.double()
        # Equal infinities agree: a sum over many rows may leave the range of float16.
        errors.append(torch.where(ours == theirs, 0.0, ours - theirs).abs().amax())
        magnitudes.append(torch.where(ours.isfinite(), ours, 0.0).abs().amax())
    return float(torch.stack(errors).amax()), float(torch.stack(magnitudes).amax())
