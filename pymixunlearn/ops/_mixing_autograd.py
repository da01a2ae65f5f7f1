"""The derivative of ``mask_mix``, used by eager calls and registered with the dispatcher as those of the losses are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import reference
from pymixunlearn.ops._call import eager_function, ops, twice_differentiable
from pymixunlearn.ops._mixing_fake import channels_last


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
    grads: list[Tensor | None] = []
    for needed, retain_side in zip(ctx.needs_input_grad[:2], (False, True), strict=True):
        if needed:
            sizes = x_forget.shape[0], x_retain.shape[0]
            last = channels_last(x_forget, x_retain)
            grads.append(
                ops.mask_mix_backward_image.default(grad, mask_logits, grid, retain_side, *sizes, x_forget.dtype, last)
            )
        else:
            grads.append(None)
    if ctx.needs_input_grad[2]:
        grads.append(ops.mask_mix_backward_mask.default(grad, x_forget, x_retain, mask_logits, grid, mean, std))
    else:
        grads.append(None)
    return *grads, *constants


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


MaskMix = eager_function("mask_mix", mask_mix_gradients, _keep)


def register() -> None:
    """Register the formula with the dispatcher."""
    torch.library.register_autograd("pymixunlearn::mask_mix", mask_mix_gradients, setup_context=_keep)
