"""Fake kernels of ``mask_mix``: shapes, dtypes, devices and memory formats of its outputs, for tracing without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _dense(images: Tensor, order: tuple[int, ...]) -> bool:
    """Whether each image lies without gaps, ``order`` naming its dimensions from the innermost on."""
    step: int | torch.SymInt = 1
    for dim in order:
        if images.shape[dim] != 1 and images.stride(dim) != step:
            return False
        step = step * images.shape[dim]
    return True


def channels_last(x_forget: Tensor, x_retain: Tensor) -> bool:
    """Whether the kernels mix in channels_last: both images are, and in no other way (csrc/bindings/mix.h)."""
    return all(not _dense(x, (3, 2, 1)) and _dense(x, (1, 3, 2)) for x in (x_forget, x_retain))


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


def register() -> None:
    """Register every fake kernel under its operator's name."""
    for fake in (_mask_mix, _mask_mix_backward_mask, _mask_mix_backward_image):
        torch.library.register_fake(f"pymixunlearn::{fake.__name__.removeprefix('_')}", fake)
