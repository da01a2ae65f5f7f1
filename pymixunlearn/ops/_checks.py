"""What argument checks share. The checks of an operator stand beside its definition in :mod:`.reference`.

The compiled operators check only what memory safety asks for. When they refuse a call, the wrapper runs the checks to
say in one sentence which argument was wrong, what it was and what was expected. Shape problems raise ``ValueError``,
dtype problems ``TypeError``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, float16, float32, float64, int64
from torch import bfloat16 as bf16

FLOATING = (float32, float64, bf16, float16)
TARGETS = (*FLOATING, int64)
PAIRINGS = ("zip", "grid")
REDUCTIONS = ("sum", "mean")
NORMALISED_CHANNELS = 64  # as max_normalised_channels in csrc/core/mask_mix.h


def shape_of(tensor: Tensor) -> list[int]:
    """Shape as messages show it."""
    return list(tensor.shape)


def check_tensor(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else f"layout {value.layout}"
        raise TypeError(f"{name} must be a dense tensor, got {kind}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ``TypeError`` unless ``tensor`` has one of the four floating dtypes of the operators."""
    check_tensor(name, tensor)
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{name} must be float32, float64, bfloat16 or float16, got {tensor.dtype}")


def check_dims(name: str, tensor: Tensor, layout: str) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the dimensions of ``layout``, for example ``"[N, C]"``."""
    if tensor.dim() != layout.count(",") + 1:
        raise ValueError(f"{name} must have shape {layout}, got {shape_of(tensor)}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_temperature(name: str, value: object, logits_name: str, logits: Tensor) -> None:
    """Raise unless ``value`` is a finite number above 0, or a floating 0-d tensor of one."""
    if isinstance(value, Tensor):
        check_floating(name, value)
        if value.dim() != 0:
            raise ValueError(f"{name} must be a float or a 0-d tensor, got shape {shape_of(value)}")
        _check_beside(name, value, logits_name, logits)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a float or a 0-d tensor, got {type(value).__name__}")
    for number in _extremes(value):
        check_positive(name, number)


def check_ratio(name: str, value: object, logits: Tensor) -> None:
    """Raise unless ``value`` is a number in [0, 1], or a floating tensor of one, or of one for each row of logits."""
    if isinstance(value, Tensor):
        check_floating(name, value)
        if value.dim() != 0 and value.shape != logits.shape[:-1]:
            raise ValueError(f"{name} must be one value or have shape {shape_of(logits)[:-1]}, got {shape_of(value)}")
        _check_beside(name, value, "logits", logits)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a float or a tensor, got {type(value).__name__}")
    for number in _extremes(value):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {number}")


def check_positive(name: str, number: float) -> None:
    """Raise ``ValueError`` unless ``number`` is finite and above 0."""
    if not number > 0:
        raise ValueError(f"{name} must be above 0, got {number}")
    if number == math.inf:
        raise ValueError(f"{name} must be finite, got {number}")


def _extremes(value: float | Tensor) -> tuple[float, ...]:
    """The number, or the smallest and the largest of a CPU tensor; nothing where reading is impossible or would wait.

    That is on every device but the CPU, while tracing, and under function transforms.
    """
    if not isinstance(value, Tensor):
        return (value,)
    if torch.compiler.is_compiling() or not value.is_cpu or type(value) is not Tensor or value.numel() == 0:
        return ()
    try:
        return tuple(extreme.item() for extreme in value.detach().aminmax())
    except RuntimeError:
        return ()


def _check_beside(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless a lam or tau is on the device of the logits, or a 0-d CPU tensor, and needs no gradient."""
    if value.dim() != 0 or value.device.type != "cpu":
        check_same_device(name, value, other_name, other)
    _check_constant(name, value)


def _check_constant(name: str, value: Tensor) -> None:
    if value.requires_grad:
        raise ValueError(f"{name} is a constant of the loss but requires grad; pass {name}.detach()")


def check_same_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ``ValueError`` unless both tensors are on one device."""
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name} ({other.device}), got {tensor.device}")


def check_classes(name: str, logits: Tensor) -> None:
    """Raise ``ValueError`` unless there is a class."""
    if logits.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one class in its last dimension, got shape {shape_of(logits)}")


def check_sharpen_T(sharpen_T: float | None, target: Tensor | None = None) -> None:
    """Raise unless ``sharpen_T`` is None or above 0, and is not combined with labels."""
    if sharpen_T is None:
        return
    if isinstance(sharpen_T, bool) or not isinstance(sharpen_T, (int, float)):
        raise TypeError(f"sharpen_T must be a float or None, got {type(sharpen_T).__name__}")
    check_positive("sharpen_T", sharpen_T)
    if target is not None and target.dtype == int64:
        raise ValueError("sharpen_T needs the teacher's logits as target, got int64 labels")


def check_target(
    name: str, target: object, rows: int, classes: int, logits: Tensor, sharpen_T: float | None = None
) -> None:
    """Raise unless ``target`` is floating [rows, classes] or int64 labels [rows] beside ``logits``."""
    check_tensor(name, target)
    assert isinstance(target, Tensor)
    if target.dtype == int64:
        if shape_of(target) != [rows]:
            raise ValueError(f"{name} must have shape [{rows}] (labels), got {shape_of(target)}")
    elif target.dtype in FLOATING:
        if shape_of(target) != [rows, classes]:
            raise ValueError(
                f"{name} must have shape [{rows}, {classes}] (probabilities) or be int64 labels [{rows}], "
                f"got {shape_of(target)}"
            )
    else:
        raise TypeError(f"{name} must be floating probabilities or int64 labels, got {target.dtype}")
    check_same_device(name, target, "logits", logits)
    _check_constant(name, target)
    check_sharpen_T(sharpen_T, target)


def check_target_kinds(target_forget: Tensor, target_retain: Tensor) -> None:
    """Raise ``TypeError`` unless both are labels or both are floating."""
    if (target_forget.dtype == int64) != (target_retain.dtype == int64):
        raise TypeError(
            "target_forget and target_retain must both be labels or both be floating, "
            f"got {target_forget.dtype} and {target_retain.dtype}"
        )


def check_pairing(n_forget: int, n_retain: int, pairing: str) -> int:
    """Number of pairs; raise ``ValueError`` where there is none."""
    check_choice("pairing", pairing, PAIRINGS)
    if pairing == "grid":
        return n_forget * n_retain
    if n_forget != n_retain:
        raise ValueError(f"zip pairing needs as many forget as retain samples, got {n_forget} and {n_retain}")
    return n_forget
