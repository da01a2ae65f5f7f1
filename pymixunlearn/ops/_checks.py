"""Argument checks of the operators, shared by the reference, the fake kernels and the error path of the fast ones.

The compiled operators check only what memory safety asks for. When they refuse a call, the wrapper runs these checks to
say in one sentence which argument was wrong, what it was and what was expected. Shape problems raise ``ValueError``,
dtype problems ``TypeError``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, dtype, float16, float32, float64, int64, uint8
from torch import bfloat16 as bf16

FLOATING = (float32, float64, bf16, float16)
TARGETS = (*FLOATING, int64)
PAIRINGS = ("zip", "grid")
REDUCTIONS = ("sum", "mean")
NORMALISED_CHANNELS = 64  # as max_normalised_channels in csrc/core/mask_mix.h


def _shape(tensor: Tensor) -> list[int]:
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
        raise ValueError(f"{name} must have shape {layout}, got {_shape(tensor)}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_temperature(name: str, value: object, logits_name: str, logits: Tensor) -> None:
    """Raise unless ``value`` is a finite number above 0, or a floating 0-d tensor of one."""
    if isinstance(value, Tensor):
        check_floating(name, value)
        if value.dim() != 0:
            raise ValueError(f"{name} must be a float or a 0-d tensor, got shape {_shape(value)}")
        _check_beside(name, value, logits_name, logits)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a float or a 0-d tensor, got {type(value).__name__}")
    for number in _extremes(value):
        _check_positive(name, number)


def check_ratio(name: str, value: object, logits: Tensor) -> None:
    """Raise unless ``value`` is a number in [0, 1], or a floating tensor of one, or of one for each row of logits."""
    if isinstance(value, Tensor):
        check_floating(name, value)
        if value.dim() != 0 and value.shape != logits.shape[:-1]:
            raise ValueError(f"{name} must be one value or have shape {_shape(logits)[:-1]}, got {_shape(value)}")
        _check_beside(name, value, "logits", logits)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a float or a tensor, got {type(value).__name__}")
    for number in _extremes(value):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {number}")


def _check_positive(name: str, number: float) -> None:
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
        _check_same_device(name, value, other_name, other)
    _check_constant(name, value)


def _check_constant(name: str, value: Tensor) -> None:
    if value.requires_grad:
        raise ValueError(f"{name} is a constant of the loss but requires grad; pass {name}.detach()")


def _check_same_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name} ({other.device}), got {tensor.device}")


def _check_classes(name: str, logits: Tensor) -> None:
    if logits.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one class in its last dimension, got shape {_shape(logits)}")


def check_sharpen_T(sharpen_T: float | None, target: Tensor | None = None) -> None:
    """Raise unless ``sharpen_T`` is None or above 0, and is not combined with labels."""
    if sharpen_T is None:
        return
    if isinstance(sharpen_T, bool) or not isinstance(sharpen_T, (int, float)):
        raise TypeError(f"sharpen_T must be a float or None, got {type(sharpen_T).__name__}")
    _check_positive("sharpen_T", sharpen_T)
    if target is not None and target.dtype == int64:
        raise ValueError("sharpen_T needs the teacher's logits as target, got int64 labels")


def check_target(
    name: str, target: object, rows: int, classes: int, logits: Tensor, sharpen_T: float | None = None
) -> None:
    """Raise unless ``target`` is floating [rows, classes] or int64 labels [rows] beside ``logits``."""
    check_tensor(name, target)
    assert isinstance(target, Tensor)
    if target.dtype == int64:
        if _shape(target) != [rows]:
            raise ValueError(f"{name} must have shape [{rows}] (labels), got {_shape(target)}")
    elif target.dtype in FLOATING:
        if _shape(target) != [rows, classes]:
            raise ValueError(
                f"{name} must have shape [{rows}, {classes}] (probabilities) or be int64 labels [{rows}], "
                f"got {_shape(target)}"
            )
    else:
        raise TypeError(f"{name} must be floating probabilities or int64 labels, got {target.dtype}")
    _check_same_device(name, target, "logits", logits)
    _check_constant(name, target)
    check_sharpen_T(sharpen_T, target)


def check_sharpen(logits: Tensor, T: float) -> None:
    """Arguments of ``sharpen``."""
    check_floating("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits must have shape [..., C], got a 0-d tensor")
    _check_classes("logits", logits)
    if isinstance(T, bool) or not isinstance(T, (int, float)):
        raise TypeError(f"T must be a float, got {type(T).__name__}")
    _check_positive("T", T)


def check_sim_loss(logits: Tensor, target: Tensor, sharpen_T: float | None) -> None:
    """Arguments of ``sim_loss``."""
    check_floating("logits", logits)
    check_dims("logits", logits, "[N, C]")
    _check_classes("logits", logits)
    check_target("target", target, logits.shape[0], logits.shape[1], logits, sharpen_T)


def check_mix_contrastive_loss(
    logits: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    lam: float | Tensor,
    tau: float | Tensor,
    pairing: str,
    reduction: str,
    sharpen_T: float | None,
) -> None:
    """Arguments of ``mix_contrastive_loss``."""
    check_choice("pairing", pairing, PAIRINGS)
    check_choice("reduction", reduction, REDUCTIONS)
    check_floating("logits", logits)
    check_dims("logits", logits, "[N, C]" if pairing == "zip" else "[N_f, N_r, C]")
    _check_classes("logits", logits)
    n_forget, n_retain = logits.shape[0], logits.shape[0] if pairing == "zip" else logits.shape[1]
    check_target("target_forget", target_forget, n_forget, logits.shape[-1], logits, sharpen_T)
    check_target("target_retain", target_retain, n_retain, logits.shape[-1], logits, sharpen_T)
    _check_target_kinds(target_forget, target_retain)
    check_ratio("lam", lam, logits)
    check_temperature("tau", tau, "logits", logits)


def _check_target_kinds(target_forget: Tensor, target_retain: Tensor) -> None:
    if (target_forget.dtype == int64) != (target_retain.dtype == int64):
        raise TypeError(
            "target_forget and target_retain must both be labels or both be floating, "
            f"got {target_forget.dtype} and {target_retain.dtype}"
        )


def check_real_contrastive_loss(
    logits_forget: Tensor,
    logits_retain: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    tau: float | Tensor,
    reduction: str,
    sharpen_T: float | None,
) -> None:
    """Arguments of ``real_contrastive_loss``."""
    check_choice("reduction", reduction, REDUCTIONS)
    check_floating("logits_forget", logits_forget)
    check_floating("logits_retain", logits_retain)
    check_dims("logits_forget", logits_forget, "[N_f, C]")
    check_dims("logits_retain", logits_retain, "[N_r, C]")
    _check_classes("logits_retain", logits_retain)
    if logits_forget.shape[1] != logits_retain.shape[1]:
        raise ValueError(
            "logits_forget and logits_retain must have the same number of classes, "
            f"got {logits_forget.shape[1]} and {logits_retain.shape[1]}"
        )
    if logits_forget.dtype != logits_retain.dtype:
        raise TypeError(
            f"logits_forget and logits_retain must have the same dtype, got {logits_forget.dtype} "
            f"and {logits_retain.dtype}"
        )
    _check_same_device("logits_forget", logits_forget, "logits_retain", logits_retain)
    classes = logits_retain.shape[1]
    check_target("target_forget", target_forget, logits_forget.shape[0], classes, logits_retain, sharpen_T)
    check_target("target_retain", target_retain, logits_retain.shape[0], classes, logits_retain, sharpen_T)
    _check_target_kinds(target_forget, target_retain)
    check_temperature("tau", tau, "logits_retain", logits_retain)


def _check_pairing(n_forget: int, n_retain: int, pairing: str) -> int:
    """Number of pairs."""
    check_choice("pairing", pairing, PAIRINGS)
    if pairing == "grid":
        return n_forget * n_retain
    if n_forget != n_retain:
        raise ValueError(f"zip pairing needs as many forget as retain samples, got {n_forget} and {n_retain}")
    return n_forget


def check_mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, pairing: str
) -> None:
    """Arguments of ``mixblock_attention``."""
    named = {"q_f": q_f, "k_f": k_f, "v_f": v_f, "q_r": q_r, "k_r": k_r, "v_r": v_r}
    for name, tensor in named.items():
        check_floating(name, tensor)
        check_dims(name, tensor, "[N, h, w]" if name.startswith("v") else "[N, d, h, w]")
        if tensor.dtype != q_f.dtype:
            raise TypeError(f"{name} must have the dtype of q_f ({q_f.dtype}), got {tensor.dtype}")
        _check_same_device(name, tensor, "q_f", q_f)
    _check_pairing(q_f.shape[0], q_r.shape[0], pairing)
    for name, tensor in named.items():
        samples = (q_f if name.endswith("f") else q_r).shape[0]
        expected = [samples, *q_f.shape[2:]] if name.startswith("v") else [samples, *q_f.shape[1:]]
        if _shape(tensor) != expected:
            raise ValueError(f"{name} must have shape {expected}, got {_shape(tensor)}")
    if q_f.shape[1] == 0 or q_f.shape[2] == 0 or q_f.shape[3] == 0:
        raise ValueError(f"q_f must have d, h and w of at least 1, got shape {_shape(q_f)}")


def check_mask_mix(
    x_forget: Tensor,
    x_retain: Tensor,
    mask_logits: Tensor,
    pairing: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: dtype | None,
) -> None:
    """Arguments of ``mask_mix``."""
    check_floating("mask_logits", mask_logits)
    check_dims("mask_logits", mask_logits, "[P, h, w]")
    for name, image in (("x_forget", x_forget), ("x_retain", x_retain)):
        check_tensor(name, image)
        if image.dtype not in (*FLOATING, uint8):
            raise TypeError(f"{name} must be float32, float64, bfloat16, float16 or uint8, got {image.dtype}")
        check_dims(name, image, "[N, C, H, W]")
        _check_same_device(name, image, "mask_logits", mask_logits)
        if 0 in image.shape[1:]:
            raise ValueError(f"{name} must have C, H and W of at least 1, got shape {_shape(image)}")
    if x_retain.dtype != x_forget.dtype:
        raise TypeError(f"x_retain must have the dtype of x_forget ({x_forget.dtype}), got {x_retain.dtype}")
    if x_retain.shape[1:] != x_forget.shape[1:]:
        raise ValueError(f"x_retain must have images of shape {_shape(x_forget)[1:]}, got {_shape(x_retain)[1:]}")
    pairs = _check_pairing(x_forget.shape[0], x_retain.shape[0], pairing)
    if mask_logits.shape[0] != pairs:
        raise ValueError(f"mask_logits must have {pairs} rows, one per pair, got {mask_logits.shape[0]}")
    if 0 in mask_logits.shape[1:]:
        raise ValueError(f"mask_logits must have h and w of at least 1, got shape {_shape(mask_logits)}")
    _check_normalisation(x_forget, mean, std)
    if dtype is not None and dtype not in FLOATING:
        raise TypeError(f"dtype must be float32, float64, bfloat16 or float16, got {dtype}")


def _check_normalisation(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise ValueError(f"mean and std must be given together, got mean={mean} and std={std}")
    if images.dtype != uint8:
        raise TypeError(f"mean and std are for uint8 images, got {images.dtype}")
    channels = images.shape[1]
    if channels > NORMALISED_CHANNELS:
        raise ValueError(f"mean and std serve images of up to {NORMALISED_CHANNELS} channels, got {channels}")
    for name, values in (("mean", mean), ("std", std)):
        # A tensor may live on a device, whose numbers cannot be read without waiting for it.
        if isinstance(values, Tensor) or not all(type(value) in (int, float) for value in values):
            raise TypeError(f"{name} must be a sequence of numbers, got {values!r}")
        if len(values) != channels:
            raise ValueError(f"{name} must have {channels} values, one per channel, got {len(values)}")
    if not min(std) > 0:
        raise ValueError(f"std must be above 0, got {list(std)}")
