"""MixBlock's cross-attention as a function: compiled where a library serves the device, the reference elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from pymixunlearn.ops import _checks as checks
from pymixunlearn.ops import reference
from pymixunlearn.ops._torch import attention as functions
from pymixunlearn.ops._torch.call import compiled, in_autocast_dtype, ops, run


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
        functions.MixblockAttention,
        any(tensor.requires_grad for tensor in tensors),
        (*tensors, pairing == "grid", q_f.is_cuda and q_f.dtype == torch.float32 and tf32_allowed()),
        lambda: checks.check_mixblock_attention(*tensors, pairing),
    )
    mask_logits: Tensor = output[0] if isinstance(output, tuple) else output
    return mask_logits
