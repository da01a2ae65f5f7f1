"""The derivative of MixBlock's attention, written once for eager calls and for tracing (as for the losses)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import reference
from pymixunlearn.ops._call import below_autograd, eager_function, ops, twice_differentiable
from pymixunlearn.ops._register import register_autocast, register_derivative, register_no_derivative

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


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, grid, allow_tf32 = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.options = (grid, allow_tf32)


MixblockAttention = eager_function("mixblock_attention", _gradients, _keep)


def register() -> None:
    """Register the formula and autocast with the dispatcher; the state, the second output, has no gradient."""
    register_derivative("mixblock_attention", 6, lambda ctx, grad, _: _gradients(ctx, grad), _keep)
    register_no_derivative("mixblock_attention_backward")
    register_autocast("mixblock_attention")
