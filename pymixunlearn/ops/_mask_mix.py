"""MixBlock's blending of images as a function: compiled where a library serves the device, the reference elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pymixunlearn.ops import _checks as checks
from pymixunlearn.ops import reference
from pymixunlearn.ops._torch import mask_mix as functions
from pymixunlearn.ops._torch.call import compiled, ops, run


def mask_mix(
    x_forget: Tensor,
    x_retain: Tensor,
    mask_logits: Tensor,
    *,
    pairing: str = "zip",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Blend each pair of images by its mask: ``x_f * M + x_r * (1 - M)`` with ``M = sigmoid(upsample(mask_logits))``.

    One pass over the images: neither the upsampled mask nor, in grid pairing, repeated images exist in memory, and the
    backward needs nothing but the arguments. Only gradients that are needed are computed.

    Args:
        x_forget: Images [N_f, C, H, W]: float32, float64, bfloat16 or float16, differentiable; or uint8, which stand
            for v / 255.
        x_retain: Images [N_r, C, H, W], same dtype and image shape. Differentiable, unless uint8.
        mask_logits: [P, h, w], floating, of any size: upsampled (or downsampled) bilinearly to H x W, as
            ``torch.nn.functional.interpolate`` by size with ``align_corners=False``. Differentiable. Its dtype need not
            be that of the images.
        pairing: ``"zip"`` (P = N_f = N_r) or ``"grid"`` (P = N_f * N_r, row i * N_r + j).
        mean: For uint8 images of up to 64 channels, one number per channel: pixels stand for (v / 255 - mean) / std.
        std: One number above 0 per channel, given together with ``mean``.
        dtype: Of the result, floating. By default that of floating images, and float32 for uint8 images.

    Returns:
        Mixed images [P, C, H, W], in channels_last if both images are, else contiguous. Computed in float64 if the
        images or the result are, otherwise in float32; autocast changes nothing.

    Raises:
        ValueError: A shape, device, pairing, mean or std that does not fit.
        TypeError: A dtype that does not fit, or mean and std beside floating images.

    Example:
        >>> import torch
        >>> from pymixunlearn import ops
        >>> forget, retain = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> ops.mask_mix(forget, retain, torch.zeros(1, 1, 1))  # a mask logit of 0: half of each
        tensor([[[[0.5000, 0.5000],
                  [0.5000, 0.5000]]]])
    """
    if not (
        compiled(x_forget, x_retain, mask_logits)
        and pairing in checks.PAIRINGS
        and (mean is None) == (std is None)
        and (dtype is None or dtype in checks.FLOATING)
    ):
        return reference.mask_mix(x_forget, x_retain, mask_logits, pairing=pairing, mean=mean, std=std, dtype=dtype)

    def check() -> None:
        checks.check_mask_mix(x_forget, x_retain, mask_logits, pairing, mean, std, dtype)

    if mean is not None:
        check()  # numbers that the compiled code would divide by, or misread
    result: Tensor = run(
        ops.mask_mix.default,
        functions.MaskMix,
        x_forget.requires_grad or x_retain.requires_grad or mask_logits.requires_grad,
        (
            x_forget,
            x_retain,
            mask_logits,
            pairing == "grid",
            mean or (),
            std or (),
            dtype or reference.mixed_dtype(x_forget, None),
        ),
        check,
    )
    return result
