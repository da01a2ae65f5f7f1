"""MixBlock's cross-attention: the function, compiled where a library serves the device, and its dispatcher rules.

Its derivative serves eager calls and tracing; fake kernels give shapes, dtypes and devices without data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import _checks as checks
from pymixunlearn.ops import reference
from pymixunlearn.ops._torch.call import (
    below_autograd,
    compiled,
    eager_function,
    in_autocast_dtype,
    ops,
    run,
    twice_differentiable,
)
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
    reference.check_mixblock_attention(q_f, k_f, v_f, q_r, k_r, v_r, "grid" if grid else "zip")
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


def tf32_allowed() -> bool:
    """Whether float32 matrix products on GPUs may use TF32, by whichever of PyTorch's switches it was said.

    ``allow_tf32`` itself cannot be read: it raises once ``fp32_precision`` has been set.
    """
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


# What torch.compiler.assume_constant_result does. That decorator imports torch._dynamo, which takes seconds.
tf32_allowed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, *, pairing: str = "zip"
) -> Tensor:
    """Mask logits of MixBlock: cross-attention with scalar values, in both directions.

        l_f = softmax(q_f k_r^T / sqrt(d)) v_f,   l_r = softmax(q_r k_f^T / sqrt(d)) v_r,   returned: l_f - l_r

    Memory grows with the number of positions, not with its square: scores live in tiles and are computed again in the
    backward. Products of bfloat16 and float16 are summed in float32; float32 on a GPU uses TF32 if PyTorch's own
    matrix products may (``torch.backends.cuda.matmul.fp32_precision``, ``torch.set_float32_matmul_precision``).

    Args:
        q_f: Queries of the forget features [N_f, d, h, w], float32, float64, bfloat16 or float16. Differentiable, as
            all six are. Under autocast the inputs are cast to its dtype first.
        k_f: Keys of the forget features [N_f, d, h, w].
        v_f: Values of the forget features [N_f, h, w].
        q_r: Queries of the retain features [N_r, d, h, w].
        k_r: Keys of the retain features [N_r, d, h, w].
        v_r: Values of the retain features [N_r, h, w].
        pairing: ``"zip"`` (N_f = N_r pairs) or ``"grid"`` (N_f * N_r pairs, row i * N_r + j).

    Returns:
        [P, h, w], one map of mask logits per pair, in the dtype of the inputs (under autocast, in its dtype).

    Raises:
        ValueError: A shape, device or pairing that does not fit.
        TypeError: A dtype that does not fit.

    Example:
        >>> import torch
        >>> from pymixunlearn import ops
        >>> forget = torch.randn(2, 8, 7, 7), torch.randn(2, 8, 7, 7), torch.randn(2, 7, 7)  # queries, keys, values
        >>> retain = torch.randn(3, 8, 7, 7), torch.randn(3, 8, 7, 7), torch.randn(3, 7, 7)
        >>> ops.mixblock_attention(*forget, *retain, pairing="grid").shape
        torch.Size([6, 7, 7])
    """
    tensors = (q_f, k_f, v_f, q_r, k_r, v_r)
    if not compiled(*tensors) or pairing not in checks.PAIRINGS:
        return reference.mixblock_attention(*tensors, pairing=pairing)
    if torch.is_autocast_enabled(q_f.device.type):
        tensors = tuple(in_autocast_dtype(tensor) for tensor in tensors)  # type: ignore[assignment]
    output = run(
        ops.mixblock_attention.default,
        MixblockAttention,
        any(tensor.requires_grad for tensor in tensors),
        (*tensors, pairing == "grid", q_f.is_cuda and q_f.dtype == torch.float32 and tf32_allowed()),
        lambda: reference.check_mixblock_attention(*tensors, pairing),
    )
    mask_logits: Tensor = output[0] if isinstance(output, tuple) else output
    return mask_logits
