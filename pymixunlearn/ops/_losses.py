"""The loss operators as functions: compiled where a library serves the device, the reference elsewhere."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pymixunlearn.ops import _checks as checks
from pymixunlearn.ops import _losses_rules as functions
from pymixunlearn.ops import reference
from pymixunlearn.ops._losses_rules import FAKES as FAKES
from pymixunlearn.ops._losses_rules import register as register
from pymixunlearn.ops._torch.call import compiled, in_float32, ops, run, scalar


def _first(output: Any) -> Tensor:
    """The loss of an operator that also returns its state."""
    loss: Tensor = output[0] if isinstance(output, tuple) else output
    return loss


def _is_temperature(value: object) -> bool:
    """Whether a temperature is a plain number that is in range, which needs no further check."""
    number = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))
    return number and 0 < value < math.inf  # type: ignore[operator]


def _is_read_there(lam: float | Tensor, logits: Tensor) -> bool:
    """Whether a lam needs no check here: the compiled operators of the CPU look at its numbers as they read them."""
    return isinstance(lam, Tensor) and lam.is_cpu and logits.is_cpu and not lam.requires_grad


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

    Example:
        >>> import torch
        >>> from pymixunlearn import ops
        >>> ops.sharpen(torch.tensor([[0.0, 0.3]]), T=0.3)
        tensor([[0.2689, 0.7311]])
    """
    if not compiled(logits) or not _is_temperature(T):
        return reference.sharpen(logits, T)
    logits = in_float32(logits)
    result: Tensor = run(
        ops.sharpen.default,
        functions.Sharpen,
        logits.requires_grad,
        (logits, T),
        lambda: reference.check_sharpen(logits, T),
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

    Example:
        >>> import torch
        >>> from pymixunlearn import ops
        >>> logits = torch.tensor([[9.0, 0.0], [0.0, 0.0]])
        >>> ops.sim_loss(logits, torch.tensor([0, 0]))  # sure of its label; undecided
        tensor([0.0000, 0.2929])
    """
    if not compiled(logits, target) or target.requires_grad or not (sharpen_T is None or _is_temperature(sharpen_T)):
        return reference.sim_loss(logits, target, sharpen_T=sharpen_T)
    logits = in_float32(logits)
    output = run(
        ops.sim_loss.default,
        functions.SimLoss,
        logits.requires_grad,
        (logits, target, sharpen_T),
        lambda: reference.check_sim_loss(logits, target, sharpen_T),
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

    Example:
        >>> import torch
        >>> from pymixunlearn import ops
        >>> logits = torch.zeros(2, 3, 10, requires_grad=True)  # 2 forget and 3 retain samples, all pairs, 10 classes
        >>> forget, retain = torch.tensor([0, 0]), torch.tensor([1, 2, 3])
        >>> loss = ops.mix_contrastive_loss(logits, forget, retain, lam=0.3, tau=10.0, pairing="grid")
        >>> loss.backward()
        >>> logits.grad.shape
        torch.Size([2, 3, 10])
    """
    if not (
        compiled(logits, target_forget, target_retain)
        and pairing in checks.PAIRINGS
        and reduction in checks.REDUCTIONS
        and not target_forget.requires_grad
        and not target_retain.requires_grad
        and (sharpen_T is None or _is_temperature(sharpen_T))
    ):
        return reference.mix_contrastive_loss(
            logits, target_forget, target_retain, lam, tau, pairing=pairing, reduction=reduction, sharpen_T=sharpen_T
        )
    if not (isinstance(lam, float) and 0 <= lam <= 1) and not _is_read_there(lam, logits):
        checks.check_ratio("lam", lam, logits)
    if not _is_temperature(tau):
        checks.check_temperature("tau", tau, "logits", logits)
    logits = in_float32(logits)
    output = run(
        ops.mix_contrastive_loss.default,
        functions.MixContrastiveLoss,
        logits.requires_grad,
        (
            logits,
            target_forget,
            target_retain,
            *scalar(lam, logits),
            *scalar(tau, logits),
            pairing == "grid",
            reduction == "mean",
            sharpen_T,
        ),
        lambda: reference.check_mix_contrastive_loss(
            logits, target_forget, target_retain, lam, tau, pairing, reduction, sharpen_T
        ),
        functions.MixAtOnce,
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

    Example:
        >>> import torch
        >>> from pymixunlearn import ops
        >>> teacher_forget, teacher_retain = torch.randn(2, 10), torch.randn(3, 10)
        >>> logits_forget, logits_retain = torch.randn(2, 10), torch.randn(3, 10)
        >>> loss = ops.real_contrastive_loss(
        ...     logits_forget, logits_retain, teacher_forget, teacher_retain, tau=5.0, sharpen_T=0.3
        ... )
        >>> loss.shape
        torch.Size([])
    """
    if not (
        compiled(logits_forget, logits_retain, target_forget, target_retain)
        and reduction in checks.REDUCTIONS
        and not target_forget.requires_grad
        and not target_retain.requires_grad
        and (sharpen_T is None or _is_temperature(sharpen_T))
    ):
        return reference.real_contrastive_loss(
            logits_forget, logits_retain, target_forget, target_retain, tau, reduction=reduction, sharpen_T=sharpen_T
        )
    if not _is_temperature(tau):
        checks.check_temperature("tau", tau, "logits_retain", logits_retain)
    logits_forget, logits_retain = in_float32(logits_forget), in_float32(logits_retain)
    output = run(
        ops.real_contrastive_loss.default,
        functions.RealContrastiveLoss,
        logits_forget.requires_grad or logits_retain.requires_grad,
        (
            logits_forget,
            logits_retain,
            target_forget,
            target_retain,
            *scalar(tau, logits_retain),
            reduction == "mean",
            sharpen_T,
        ),
        lambda: reference.check_real_contrastive_loss(
            logits_forget, logits_retain, target_forget, target_retain, tau, reduction, sharpen_T
        ),
        functions.RealAtOnce,
    )
    return _first(output)
