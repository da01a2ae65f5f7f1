"""Fake kernels of the losses: shapes, dtypes and devices of their outputs, for tracing without data."""

from __future__ import annotations

import torch
from torch import Tensor


def _state(like: Tensor, size: int) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return like.new_empty((size,), dtype=dtype)


def _state_width(targets: int) -> int:
    """Scalars per row, as ``state_width`` in csrc/core/contrastive.h."""
    return 1 + 4 * targets


def _sharpen(logits: Tensor, T: float) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _sharpen_backward(grad: Tensor, logits: Tensor, T: float) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _sim_loss(logits: Tensor, target: Tensor, sharpen_T: float | None) -> tuple[Tensor, Tensor]:
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


def register() -> None:
    """Register every fake kernel under its operator's name."""
    for fake in (
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
    ):
        torch.library.register_fake(f"pymixunlearn::{fake.__name__.removeprefix('_')}", fake)
