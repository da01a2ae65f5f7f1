"""The derivative of ``mask_mix``, used by eager calls and registered with the dispatcher as those of the losses are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import reference
from pymixunlearn.ops._call import below_autograd, eager_function, ops, twice_differentiable
from pymixunlearn.ops._mixing_fake import channels_last
from pymixunlearn.ops._register import register_derivative, register_no_derivative


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


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


MaskMix = eager_function("mask_mix", mask_mix_gradients, _keep)


def register() -> None:
    """Register the formula with the dispatcher. Autocast changes nothing: the images decide the dtype."""
    register_derivative("mask_mix", 3, mask_mix_gradients, _keep)
    for name in ("mask_mix_backward_mask", "mask_mix_backward_image"):
        register_no_derivative(name)
