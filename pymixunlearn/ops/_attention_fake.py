"""Fake kernels of MixBlock's attention: shapes, dtypes and devices of its outputs, for tracing without data."""

from __future__ import annotations

import torch
from torch import Tensor

#: Numbers per query and direction, as ``state_parts`` in csrc/core/attention.h.
STATE_PARTS = 3


def _mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, grid: bool, allow_tf32: bool
) -> tuple[Tensor, Tensor]:
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


def register() -> None:
    """Register both fake kernels under their operators' names."""
    torch.library.register_fake("pymixunlearn::mixblock_attention", _mixblock_attention)
    torch.library.register_fake("pymixunlearn::mixblock_attention_backward", _mixblock_attention_backward)
