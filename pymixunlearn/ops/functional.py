"""The operators as functions: compiled where a library serves the device, the reference elsewhere.

Calls are kept lean, because at small sizes they are the operator's cost: the happy path checks a handful of Python
values and leaves shapes to the guards of the compiled code. Only when that refuses does :mod:`._checks` run, to say
which argument was wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pymixunlearn.ops import _autograd, _library, reference
from pymixunlearn.ops import _checks as checks

_HALVES = (torch.bfloat16, torch.float16)


def _compiled(*tensors: object) -> bool:
    return all(isinstance(t, Tensor) and t.device.type in _library.COMPILED_DEVICES for t in tensors)


def _in_float32(logits: Tensor) -> Tensor:
    """Under autocast the losses run in float32, as PyTorch's own losses do."""
    if logits.dtype in _HALVES and torch.is_autocast_enabled(logits.device.type):
        return logits.float()
    return logits


def _scalar(value: float | Tensor, like: Tensor) -> tuple[Tensor | None, float]:
    """Split a scalar argument into the schema's two: a tensor on the device, or a number.

    A 0-d CPU tensor beside CUDA logits is read here: it is host memory, nothing waits for the device.
    """
    if not isinstance(value, Tensor):
        return None, value
    if value.dim() == 0 and value.device != like.device and value.device.type == "cpu":
        return None, float(value)
    return value, 0.0


def _run(
    operator: Any, function: Any, differentiable: bool, arguments: tuple[Any, ...], check: Callable[[], None]
) -> Any:
    """Call a compiled operator by the shortest route that serves this call."""
    try:
        if torch.compiler.is_compiling():
            return operator(*arguments)
        if differentiable and torch.is_grad_enabled():
            return function.apply(*arguments)
        with _autograd.below_autograd():
            return operator(*arguments)
    except RuntimeError:
        check()
        raise


def _first(output: Any) -> Tensor:
    """The loss of an operator that also returns its state."""
    return output[0] if isinstance(output, tuple) else output


def sharpen(logits: Tensor, T: float = 0.3) -> Tensor:
    """Sharpen a classifier's distribution: ``softmax(logits / T)`` (Eq. 8 applied to ``softmax(logits)``).

    Args:
        logits: [..., C], float32, float64, bfloat16 or float16. Differentiable.
        T: Temperature above 0; below 1 it sharpens.

    Returns:
        Probabilities of the shape and dtype of ``logits``.

    Raises:
        ValueError: A temperature or shape out of range.
        TypeError: A dtype that is not floating.
    """
    if not _compiled(logits) or not isinstance(T, (int, float)) or not T > 0:
        return reference.sharpen(logits, T)
    logits = _in_float32(logits)
    result: Tensor = _run(
        _autograd.ops.sharpen.default,
        _autograd.Sharpen,
        logits.requires_grad,
        (logits, T),
        lambda: checks.check_sharpen(logits, T),
    )
    return result


def sim_loss(logits: Tensor, target: Tensor, *, sharpen_T: float | None = None) -> Tensor:
    """Cosine dissimilarity of each row, ``1 - cos(softmax(logits), target)``: the paper's SimLoss.

    Args:
        logits: [N, C], float32, float64, bfloat16 or float16. Differentiable.
        target: Directions [N, C] (only the direction of a row matters; a row of zeros has cosine 0), or int64 labels
            [N] (a label outside [0, C) makes its row NaN). A constant of the loss: no gradient flows into it.
        sharpen_T: If given, ``target`` holds a teacher's logits and the direction is ``softmax(target / sharpen_T)``.

    Returns:
        [N] in the dtype of ``logits``, in [0, 1] for probability targets.

    Raises:
        ValueError: A shape, device or temperature that does not fit.
        TypeError: A dtype that does not fit.
    """
    if not _compiled(logits, target) or target.requires_grad or not (sharpen_T is None or sharpen_T > 0):
        return reference.sim_loss(logits, target, sharpen_T=sharpen_T)
    logits = _in_float32(logits)
    output = _run(
        _autograd.ops.sim_loss.default,
        _autograd.SimLoss,
        logits.requires_grad,
        (logits, target, sharpen_T),
        lambda: checks.check_sim_loss(logits, target, sharpen_T),
    )
    return _first(output)


def mix_contrastive_loss(
    logits: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    lam: float | Tensor,
    tau: float | Tensor,
    *,
    pairing: str = "zip",
    reduction: str = "sum",
    sharpen_T: float | None = None,
) -> Tensor:
    """Contrastive loss of the unlearner on mixed samples (Eq. 5); the generator's (Eq. 3) is its negative.

    With s_f and s_r the :func:`sim_loss` of a row against its forget and its retain target, zip pairing computes

        sum_n (1 - lam_n) s_r[n]  -  N logsumexp_n(lam_n s_f[n] / tau)

    and grid pairing, where row (i, j) mixes forget sample i with retain sample j,

        sum_j ( mean_i (1 - lam_ij) s_r[i, j]  -  logsumexp_i(lam_ij s_f[i, j] / tau) ).

    Args:
        logits: Of the mixed samples, [N, C] in zip and [N_f, N_r, C] in grid pairing; float32, float64, bfloat16 or
            float16. Differentiable.
        target_forget: What the forget samples were: [N_f, C] directions or int64 labels [N_f] (as in ``sim_loss``).
        target_retain: What the retain samples are: [N_r, C] or [N_r], of the same kind.
        lam: Mixing ratio in [0, 1]: a float, a 0-d tensor or one value per row ([N], or [N_f, N_r]).
        tau: Temperature above 0: a float or a 0-d tensor.
        pairing: ``"zip"`` or ``"grid"``.
        reduction: ``"sum"``, or ``"mean"`` to divide by N_r.
        sharpen_T: If given, the targets are a teacher's logits, sharpened at this temperature.

    Returns:
        0-d tensor in the dtype of ``logits``; 0 for an empty batch.

    Raises:
        ValueError: A shape, device, pairing, reduction or range that does not fit.
        TypeError: A dtype that does not fit.
    """
    constants_ok = (
        _compiled(logits, target_forget, target_retain)
        and pairing in checks.PAIRINGS
        and reduction in checks.REDUCTIONS
        and not target_forget.requires_grad
        and not target_retain.requires_grad
        and (not lam.requires_grad if isinstance(lam, Tensor) else 0 <= lam <= 1)
        and (not tau.requires_grad if isinstance(tau, Tensor) else tau > 0)
        and (sharpen_T is None or sharpen_T > 0)
    )
    if not constants_ok:
        return reference.mix_contrastive_loss(
            logits, target_forget, target_retain, lam, tau, pairing=pairing, reduction=reduction, sharpen_T=sharpen_T
        )
    logits = _in_float32(logits)
    output = _run(
        _autograd.ops.mix_contrastive_loss.default,
        _autograd.MixContrastiveLoss,
        logits.requires_grad,
        (
            logits,
            target_forget,
            target_retain,
            *_scalar(lam, logits),
            *_scalar(tau, logits),
            pairing == "grid",
            reduction == "mean",
            sharpen_T,
        ),
        lambda: checks.check_mix_contrastive_loss(
            logits, target_forget, target_retain, lam, tau, pairing, reduction, sharpen_T
        ),
    )
    return _first(output)


def real_contrastive_loss(
    logits_forget: Tensor,
    logits_retain: Tensor,
    target_forget: Tensor,
    target_retain: Tensor,
    tau: float | Tensor,
    *,
    reduction: str = "sum",
    sharpen_T: float | None = None,
) -> Tensor:
    """Contrastive loss of the unlearner on real samples (Eq. 6).

        sum_j s_r[j]  -  N_r logsumexp_i(s_f[i] / tau)

    with s_f, s_r the :func:`sim_loss` of the forget and the retain samples against their own targets.

    Args:
        logits_forget: [N_f, C], float32, float64, bfloat16 or float16. Differentiable.
        logits_retain: [N_r, C], same dtype. Differentiable.
        target_forget: [N_f, C] directions or int64 labels [N_f] (as in ``sim_loss``).
        target_retain: [N_r, C] or [N_r], of the same kind.
        tau: Temperature above 0: a float or a 0-d tensor.
        reduction: ``"sum"``, or ``"mean"`` to divide by N_r.
        sharpen_T: If given, the targets are a teacher's logits, sharpened at this temperature.

    Returns:
        0-d tensor in the dtype of the logits. Without forget samples the second term is 0.

    Raises:
        ValueError: A shape, device, reduction or range that does not fit.
        TypeError: A dtype that does not fit.
    """
    constants_ok = (
        _compiled(logits_forget, logits_retain, target_forget, target_retain)
        and reduction in checks.REDUCTIONS
        and not target_forget.requires_grad
        and not target_retain.requires_grad
        and (not tau.requires_grad if isinstance(tau, Tensor) else tau > 0)
        and (sharpen_T is None or sharpen_T > 0)
    )
    if not constants_ok:
        return reference.real_contrastive_loss(
            logits_forget, logits_retain, target_forget, target_retain, tau, reduction=reduction, sharpen_T=sharpen_T
        )
    logits_forget, logits_retain = _in_float32(logits_forget), _in_float32(logits_retain)
    output = _run(
        _autograd.ops.real_contrastive_loss.default,
        _autograd.RealContrastiveLoss,
        logits_forget.requires_grad or logits_retain.requires_grad,
        (
            logits_forget,
            logits_retain,
            target_forget,
            target_retain,
            *_scalar(tau, logits_retain),
            reduction == "mean",
            sharpen_T,
        ),
        lambda: checks.check_real_contrastive_loss(
            logits_forget, logits_retain, target_forget, target_retain, tau, reduction, sharpen_T
        ),
    )
    return _first(output)


def mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, *, pairing: str = "zip"
) -> Tensor:
    """Mask logits of MixBlock: cross-attention with scalar values, in both directions.

        l_f = softmax(q_f k_r^T / sqrt(d)) v_f,   l_r = softmax(q_r k_f^T / sqrt(d)) v_r,   returned: l_f - l_r

    Args:
        q_f: Queries of the forget features [N_f, d, h, w], floating. Differentiable, as all six are.
        k_f: Keys of the forget features [N_f, d, h, w].
        v_f: Values of the forget features [N_f, h, w].
        q_r: Queries of the retain features [N_r, d, h, w].
        k_r: Keys of the retain features [N_r, d, h, w].
        v_r: Values of the retain features [N_r, h, w].
        pairing: ``"zip"`` (N_f = N_r pairs) or ``"grid"`` (N_f * N_r pairs, row i * N_r + j).

    Returns:
        [P, h, w], one map of mask logits per pair.

    Raises:
        ValueError: A shape, device or pairing that does not fit.
        TypeError: A dtype that does not fit.
    """
    return reference.mixblock_attention(q_f, k_f, v_f, q_r, k_r, v_r, pairing=pairing)


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
