"""MixBlock's cross-attention as a function."""

from __future__ import annotations

from torch import Tensor

from pymixunlearn.ops import reference


def mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, *, pairing: str = "zip"
) -> Tensor:
    """Mask logits of MixBlock: cross-attention with scalar values, in both directions.

        l_f = softmax(q_f k_r^T / sqrt(d)) v_f,   l_r = softmax(q_r k_f^T / sqrt(d)) v_r,   returned: l_f - l_r

    Args:
        q_f: Queries of the forget features [N_f, d, h, w], floating. Differentiable, as all six are.
        k_f: Keys of the forget features [N_f, d, h, w].
        v_f: Values of the forget features [N_f, h, w].
        q_r: Queries of the retain features [N_r, d, h, w].
        k_r: Keys of the retain features [N_r, d, h, w].
        v_r: Values of the retain features [N_r, h, w].
        pairing: ``"zip"`` (N_f = N_r pairs) or ``"grid"`` (N_f * N_r pairs, row i * N_r + j).

    Returns:
        [P, h, w], one map of mask logits per pair.

    Raises:
        ValueError: A shape, device or pairing that does not fit.
        TypeError: A dtype that does not fit.
    """
    return reference.mixblock_attention(q_f, k_f, v_f, q_r, k_r, v_r, pairing=pairing)
