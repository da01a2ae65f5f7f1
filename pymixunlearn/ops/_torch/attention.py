"""MixBlock's attention in the dispatcher: its derivative, for eager calls and for tracing, and fake kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import _checks as checks
from pymixunlearn.ops import reference
from pymixunlearn.ops._torch.call import below_autograd, eager_function, ops, twice_differentiable
from pymixunlearn.ops._torch.register import (
    register_autocast,
    register_derivative,
    register_fakes,
    register_no_derivative,
)

#: Numbers per query and direction, as ``state_parts`` in csrc/core/attention.h.
STATE_PARTS = 3
_CONSTANTS = (None, None)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients for the six inputs, None where none is needed."""
    *inputs, state = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:6]
    grid, allow_tf32 = ctx.options
    if torch.is_grad_enabled():  # a graph of the backward is asked for: the kernels have no second derivative
        twice = twice_differentiable(
            lambda *tensors: reference.mixblock_attention(*tensors, pairing="grid" if grid else "zip"),
            tuple(inputs),
            grad,
        )
        return *twice, *_CONSTANTS
    bits = sum(1 << i for i, needed in enumerate(wanted) if needed)
    with below_autograd():
        outputs = ops.mixblock_attention_backward.default(grad, *inputs, state, grid, allow_tf32, bits)
    return *(output if needed else None for output, needed in zip(outputs, wanted, strict=True)), *_CONSTANTS


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, grid, allow_tf32 = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.options = (grid, allow_tf32)


MixblockAttention = eager_function("mixblock_attention", _gradients, _save)


# Fake kernels: shapes, dtypes and devices of the outputs, for tracing without data.


def _mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, grid: bool, allow_tf32: bool
) -> tuple[Tensor, Tensor]:
    checks.check_mixblock_attention(q_f, k_f, v_f, q_r, k_r, v_r, "grid" if grid else "zip")
    height, width = q_f.shape[2:]
    pairs = q_f.shape[0] * q_r.shape[0] if grid else q_f.shape[0]
    dtype = torch.float64 if q_f.dtype == torch.float64 else torch.float32
    state = q_f.new_empty((pairs * 2 * STATE_PARTS * height * width,), dtype=dtype)
    return q_f.new_empty((pairs, height, width)), state


def _mixblock_attention_backward(
    grad: Tensor,
    q_f: Tensor,
    k_f: Tensor,
    v_f: Tensor,
    q_r: Tensor,
    k_r: Tensor,
    v_r: Tensor,
    state: Tensor,
    grid: bool,
    allow_tf32: bool,
    wanted: int,
) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format) if wanted >> i & 1 else tensor.new_empty((0,))
        for i, tensor in enumerate((q_f, k_f, v_f, q_r, k_r, v_r))
    )


FAKES = (_mixblock_attention, _mixblock_attention_backward)


def register() -> None:
    """Register fake kernels, the derivative and autocast; the state, the second output, has no gradient."""
    register_fakes(FAKES)
    register_derivative("mixblock_attention", 6, lambda ctx, grad, _: _gradients(ctx, grad), _save)
    register_no_derivative("mixblock_attention_backward")
    register_autocast("mixblock_attention")
