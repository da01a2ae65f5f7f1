"""The derivative of MixBlock's attention, written once for eager calls and for tracing (as for the losses)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import reference
from pymixunlearn.ops._call import eager_function, ops

_CONSTANTS = (None, None)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients for the six inputs, None where none is needed."""
    *inputs, state = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:6]
    grid, allow_tf32 = ctx.options
    if torch.is_grad_enabled():  # a graph of the backward is asked for: the kernels have no second derivative
        with torch.enable_grad():
            output = reference.mixblock_attention(*inputs, pairing="grid" if grid else "zip")
            leaves = [tensor for tensor, needed in zip(inputs, wanted, strict=True) if needed]
            grads = iter(torch.autograd.grad(output, leaves, grad, create_graph=True))
        return *(next(grads) if needed else None for needed in wanted), *_CONSTANTS
    bits = sum(1 << i for i, needed in enumerate(wanted) if needed)
    outputs = ops.mixblock_attention_backward.default(grad, *inputs, state, grid, allow_tf32, bits)
    return *(output if needed else None for output, needed in zip(outputs, wanted, strict=True)), *_CONSTANTS


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, grid, allow_tf32 = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.options = (grid, allow_tf32)


MixblockAttention = eager_function("mixblock_attention", _gradients, _keep)


def register() -> None:
    """Register the formula with the dispatcher; the state, the second output, has no gradient."""
    torch.library.register_autograd(
        "pymixunlearn::mixblock_attention", lambda ctx, grad, _: _gradients(ctx, grad), setup_context=_keep
    )
