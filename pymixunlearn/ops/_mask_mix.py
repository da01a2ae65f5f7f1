"""MixBlock's blending of images: the function, compiled where a library serves the device, and its dispatcher rules.

Its derivative serves eager calls and tracing; fake kernels give shapes, dtypes and devices without data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import _checks as checks
from pymixunlearn.ops import reference
from pymixunlearn.ops._torch.call import below_autograd, compiled, eager_function, ops, run, twice_differentiable
from pymixunlearn.ops._torch.register import register_derivative, register_fakes, register_no_derivative


def _dense(images: Tensor, order: tuple[int, ...]) -> bool:
    """Whether each image lies without gaps, ``order`` naming its dimensions from the innermost on."""
    step: int | torch.SymInt = 1
    for dim in order:
        if images.shape[dim] != 1 and images.stride(dim) != step:
            return False
        step = step * images.shape[dim]
    return True


def channels_last(x_forget: Tensor, x_retain: Tensor) -> bool:
    """Whether the kernels mix in channels_last: both images are, and in no other way (csrc/bindings)."""
    return all(not _dense(x, (3, 2, 1)) and _dense(x, (1, 3, 2)) for x in (x_forget, x_retain))


def mask_mix_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of ``mask_mix`` for its images and mask logits, each only where it is needed."""
    x_forget, x_retain, mask_logits = ctx.saved_tensors
    grid, mean, std, dtype = ctx.settings
    constants = (None,) * 4
    if torch.is_grad_enabled():  # the kernels have no second derivative
        twice = twice_differentiable(
            lambda *tensors: reference.mask_mix(
                *tensors, pairing="grid" if grid else "zip", mean=mean or None, std=std or None, dtype=dtype
            ),
            (x_forget, x_retain, mask_logits),
            grad,
        )
        return *twice, *constants
    need_forget, need_retain, need_mask = ctx.needs_input_grad[:3]
    sizes = x_forget.shape[0], x_retain.shape[0], x_forget.dtype
    last = (need_forget or need_retain) and channels_last(x_forget, x_retain)
    by_image, by_mask = ops.mask_mix_backward_image.default, ops.mask_mix_backward_mask.default
    with below_autograd():
        grads = (
            by_image(grad, mask_logits, grid, False, *sizes, last) if need_forget else None,
            by_image(grad, mask_logits, grid, True, *sizes, last) if need_retain else None,
            by_mask(grad, x_forget, x_retain, mask_logits, grid, mean, std) if need_mask else None,
        )
    return *grads, *constants


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


MaskMix = eager_function("mask_mix", mask_mix_gradients, _save)


# Fake kernels: shapes, dtypes and devices of the outputs, for tracing without data.


def _images(like: Tensor, sizes: Sequence[int], dtype: torch.dtype, last: bool) -> Tensor:
    count, channels, height, width = sizes
    if last:
        return like.new_empty((count, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)
    return like.new_empty((count, channels, height, width), dtype=dtype)


def _mask_mix(
    x_forget: Tensor,
    x_retain: Tensor,
    mask_logits: Tensor,
    grid: bool,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    # The numbers of mean and std were checked in Python: here they may be symbols.
    reference.check_mask_mix(x_forget, x_retain, mask_logits, "grid" if grid else "zip", None, None, dtype)
    pairs = x_forget.shape[0] * x_retain.shape[0] if grid else x_forget.shape[0]
    return _images(x_forget, (pairs, *x_forget.shape[1:]), dtype, channels_last(x_forget, x_retain))


def _mask_mix_backward_mask(
    grad: Tensor,
    x_forget: Tensor,
    x_retain: Tensor,
    mask_logits: Tensor,
    grid: bool,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    return mask_logits.new_empty(mask_logits.shape)


def _mask_mix_backward_image(
    grad: Tensor,
    mask_logits: Tensor,
    grid: bool,
    retain_side: bool,
    n_forget: int,
    n_retain: int,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    return _images(grad, (n_retain if retain_side else n_forget, *grad.shape[1:]), dtype, channels_last)


FAKES = (_mask_mix, _mask_mix_backward_mask, _mask_mix_backward_image)


def register() -> None:
    """Register fake kernels and the derivative. Autocast changes nothing: the images decide the dtype."""
    register_fakes(FAKES)
    register_derivative("mask_mix", 3, mask_mix_gradients, _save)
    for name in ("mask_mix_backward_mask", "mask_mix_backward_image"):
        register_no_derivative(name)


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
        reference.check_mask_mix(x_forget, x_retain, mask_logits, pairing, mean, std, dtype)

    if mean is not None:
        check()  # numbers that the compiled code would divide by, or misread
    result: Tensor = run(
        ops.mask_mix.default,
        MaskMix,
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
