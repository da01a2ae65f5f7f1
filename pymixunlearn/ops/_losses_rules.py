"""The loss operators in the dispatcher: their derivatives and fake kernels.

Each formula is written once, as a function from the saved context to gradients, and used twice: by an
``autograd.Function`` for eager calls, and registered with the dispatcher for ``torch.compile`` and ``torch.export``.
The first costs about 20 microseconds less per call, which at a batch of 32 rows is most of the operator's time; the
second is what tracing needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import reference
from pymixunlearn.ops._torch.call import AtOnce, below_autograd, eager_function, ops, twice_differentiable
from pymixunlearn.ops._torch.register import (
    register_derivative,
    register_fakes,
    register_float32_autocast,
    register_no_derivative,
)

# The engine runs a backward with gradients enabled exactly when it is asked for a graph of it (create_graph=True). The
# kernels have no second derivative; the reference then takes over.


def sharpen_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    """Gradient of ``sharpen`` for its logits."""
    (logits,) = ctx.saved_tensors
    if torch.is_grad_enabled():
        return *twice_differentiable(lambda z: reference.sharpen(z, ctx.T), (logits,), grad), None
    with below_autograd():
        return ops.sharpen_backward.default(grad, logits, ctx.T), None


def sim_loss_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    """Gradient of ``sim_loss`` for its logits."""
    logits, target, state = ctx.saved_tensors
    if torch.is_grad_enabled():
        twice = twice_differentiable(lambda z: reference.sim_loss(z, target, sharpen_T=ctx.sharpen_T), (logits,), grad)
        return *twice, None, None
    with below_autograd():
        return ops.sim_loss_backward.default(grad, logits, target, state, ctx.sharpen_T), None, None


def mix_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient of ``mix_contrastive_loss`` for its logits."""
    logits, target_forget, target_retain, lam, tau, state = ctx.saved_tensors
    lam_value, tau_value, grid, mean, sharpen_T = ctx.numbers
    constants = (None,) * 9
    if torch.is_grad_enabled():
        twice = twice_differentiable(
            lambda z: reference.mix_contrastive_loss(
                z,
                target_forget,
                target_retain,
                lam_value if lam is None else lam,
                tau_value if tau is None else tau,
                pairing=_pairing(grid),
                reduction="mean" if mean else "sum",
                sharpen_T=sharpen_T,
            ),
            (logits,),
            grad,
        )
        return *twice, *constants
    with below_autograd():
        grad_logits = ops.mix_contrastive_loss_backward.default(
            grad, logits, target_forget, target_retain, state, lam, lam_value, tau, tau_value, grid, mean, sharpen_T
        )
    return grad_logits, *constants


def real_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of ``real_contrastive_loss`` for its two logits."""
    logits_forget, logits_retain, target_forget, target_retain, tau, *state = ctx.saved_tensors
    tau_value, mean, sharpen_T = ctx.numbers
    constants = (None,) * 6
    if torch.is_grad_enabled():
        twice = twice_differentiable(
            lambda z_forget, z_retain: reference.real_contrastive_loss(
                z_forget,
                z_retain,
                target_forget,
                target_retain,
                tau_value if tau is None else tau,
                reduction="mean" if mean else "sum",
                sharpen_T=sharpen_T,
            ),
            (logits_forget, logits_retain),
            grad,
        )
        return *twice, *constants
    wanted = ctx.needs_input_grad[:2]
    inputs = (logits_forget, logits_retain, target_forget, target_retain)
    with below_autograd():
        grads = ops.real_contrastive_loss_backward.default(
            grad, *inputs, *state, tau, tau_value, mean, sharpen_T, *wanted
        )
    return *(one if want else None for one, want in zip(grads, wanted, strict=True)), *constants


# What the backward needs: the inputs and, last, the state or, where the forward computed them, the gradients. The
# dispatcher learns that these have no gradient of their own; eager functions do not return them.


def _save_sharpen(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.T = inputs[1]


def _save_sim_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.sharpen_T = inputs[2]


def _save_mix(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target_forget, target_retain, lam, lam_value, tau, tau_value, grid, mean, sharpen_T = inputs
    ctx.save_for_backward(logits, target_forget, target_retain, lam, tau, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.numbers = (lam_value, tau_value, grid, mean, sharpen_T)


def _save_real(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits_forget, logits_retain, target_forget, target_retain, tau, tau_value, mean, sharpen_T = inputs
    ctx.save_for_backward(logits_forget, logits_retain, target_forget, target_retain, tau, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.numbers = (tau_value, mean, sharpen_T)


Sharpen = eager_function("sharpen", sharpen_gradients, _save_sharpen)
SimLoss = eager_function("sim_loss", sim_loss_gradients, _save_sim_loss)
MixContrastiveLoss = eager_function("mix_contrastive_loss", mix_gradients, _save_mix)
RealContrastiveLoss = eager_function("real_contrastive_loss", real_gradients, _save_real)
MixAtOnce = AtOnce("mix_contrastive_loss_and_gradient", 1, mix_gradients, _save_mix)
RealAtOnce = AtOnce("real_contrastive_loss_and_gradients", 2, real_gradients, _save_real)


def _of_loss(gradients: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor, Tensor], Any]:
    """Drop the gradient of the state, which has none."""
    return lambda ctx, grad, _: gradients(ctx, grad)


# Fake kernels: shapes, dtypes and devices of the outputs, for tracing without data. While tracing they are the first to
# see the arguments, so those of the forward name the one that is wrong.


def _pairing(grid: bool) -> str:
    return "grid" if grid else "zip"


def _state(like: Tensor, size: int) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return like.new_empty((size,), dtype=dtype)


def _state_width(targets: int) -> int:
    """Scalars per row, as ``state_width`` in csrc/core/losses.h."""
    return 1 + 4 * targets


def _sharpen(logits: Tensor, T: float) -> Tensor:
    reference.check_sharpen(logits, T)
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _sharpen_backward(grad: Tensor, logits: Tensor, T: float) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _sim_loss(logits: Tensor, target: Tensor, sharpen_T: float | None) -> tuple[Tensor, Tensor]:
    reference.check_sim_loss(logits, target, sharpen_T)
    rows = logits.shape[0]
    return logits.new_empty((rows,)), _state(logits, rows * _state_width(1))


def _sim_loss_backward(grad: Tensor, logits: Tensor, target: Tensor, state: Tensor, sharpen_T: float | None) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _mix_contrastive_loss(
    logits: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    lam: Tensor | None,
    lam_value: float,
    tau: Tensor | None,
    tau_value: float,
    grid: bool,
    mean: bool,
    sharpen_T: float | None,
) -> tuple[Tensor, Tensor]:
    reference.check_mix_contrastive_loss(
        logits,
        target_forget,
        target_retain,
        lam_value if lam is None else lam,
        tau_value if tau is None else tau,
        _pairing(grid),
        "sum",
        sharpen_T,
    )
    rows = logits.shape[0] * logits.shape[1] if grid else logits.shape[0]
    columns = logits.shape[1] if grid else 1
    return logits.new_empty(()), _state(logits, rows * _state_width(2) + columns)


def _mix_contrastive_loss_and_gradient(
    logits: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    lam: Tensor | None,
    lam_value: float,
    tau: Tensor | None,
    tau_value: float,
    grid: bool,
    mean: bool,
    sharpen_T: float | None,
) -> tuple[Tensor, Tensor]:
    return logits.new_empty(()), torch.empty_like(logits, memory_format=torch.contiguous_format)


def _mix_contrastive_loss_backward(
    grad: Tensor,
    logits: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    state: Tensor,
    lam: Tensor | None,
    lam_value: float,
    tau: Tensor | None,
    tau_value: float,
    grid: bool,
    mean: bool,
    sharpen_T: float | None,
) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _real_contrastive_loss(
    logits_forget: Tensor,
    logits_retain: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    tau: Tensor | None,
    tau_value: float,
    mean: bool,
    sharpen_T: float | None,
) -> tuple[Tensor, Tensor]:
    reference.check_real_contrastive_loss(
        logits_forget,
        logits_retain,
        target_forget,
        target_retain,
        tau_value if tau is None else tau,
        "sum",
        sharpen_T,
    )
    rows = logits_forget.shape[0] + logits_retain.shape[0]
    return logits_retain.new_empty(()), _state(logits_retain, rows * _state_width(1) + 1)


def _real_contrastive_loss_and_gradients(
    logits_forget: Tensor,
    logits_retain: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    tau: Tensor | None,
    tau_value: float,
    mean: bool,
    sharpen_T: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    contiguous = torch.contiguous_format
    return (
        logits_retain.new_empty(()),
        torch.empty_like(logits_forget, memory_format=contiguous),
        torch.empty_like(logits_retain, memory_format=contiguous),
    )


def _real_contrastive_loss_backward(
    grad: Tensor,
    logits_forget: Tensor,
    logits_retain: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    state: Tensor,
    tau: Tensor | None,
    tau_value: float,
    mean: bool,
    sharpen_T: float | None,
    want_forget: bool,
    want_retain: bool,
) -> tuple[Tensor, Tensor]:
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(logits_forget, memory_format=contiguous) if want_forget else logits_forget.new_empty((0,)),
        torch.empty_like(logits_retain, memory_format=contiguous) if want_retain else logits_retain.new_empty((0,)),
    )


FAKES = (
    _sharpen,
    _sharpen_backward,
    _sim_loss,
    _sim_loss_backward,
    _mix_contrastive_loss,
    _mix_contrastive_loss_and_gradient,
    _mix_contrastive_loss_backward,
    _real_contrastive_loss,
    _real_contrastive_loss_and_gradients,
    _real_contrastive_loss_backward,
)


def register() -> None:
    """Register fake kernels, derivatives, and autocast to float32 with the dispatcher."""
    register_fakes(FAKES)
    for name, differentiable, gradients, save in (
        ("sharpen", 1, sharpen_gradients, _save_sharpen),
        ("sim_loss", 1, _of_loss(sim_loss_gradients), _save_sim_loss),
        ("mix_contrastive_loss", 1, _of_loss(mix_gradients), _save_mix),
        ("real_contrastive_loss", 2, _of_loss(real_gradients), _save_real),
    ):
        register_derivative(name, differentiable, gradients, save)
        register_float32_autocast(name)
    for name in (
        "sharpen_backward",
        "sim_loss_backward",
        "mix_contrastive_loss_backward",
        "mix_contrastive_loss_and_gradient",
        "real_contrastive_loss_backward",
        "real_contrastive_loss_and_gradients",
    ):
        register_no_derivative(name)
