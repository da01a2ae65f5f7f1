"""MixBlock's blending of images as a function."""

from __future__ import annotations

from torch import Tensor

from pymixunlearn.ops import reference


def mask_mix(x_forget: Tensor, x_retain: Tensor, mask_logits: Tensor, *, pairing: str = "zip") -> Tensor:
    """Blend each pair of images by its mask: ``x_f * M + x_r * (1 - M)`` with ``M = sigmoid(upsample(mask_logits))``.

    Args:
        x_forget: Images [N_f, C, H, W], floating. Differentiable.
        x_retain: Images [N_r, C, H, W], same dtype and image shape. Differentiable.
        mask_logits: [P, h, w], floating; upsampled bilinearly (``align_corners=False``) to H x W. Differentiable.
        pairing: ``"zip"`` (P = N_f = N_r) or ``"grid"`` (P = N_f * N_r, row i * N_r + j).

    Returns:
        Mixed images [P, C, H, W] in the dtype of the images.

    Raises:
        ValueError: A shape, device or pairing that does not fit.
        TypeError: A dtype that does not fit.
    """
    return reference.mask_mix(x_forget, x_retain, mask_logits, pairing=pairing)
