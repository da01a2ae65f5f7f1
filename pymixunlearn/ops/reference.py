"""The operators in plain PyTorch: the definition that every kernel is measured against.

Each function has the signature of its namesake in :mod:`pymixunlearn.ops` and runs on any device and dtype that
PyTorch knows, differentiated by autograd. Targets, mixing ratios and temperatures are constants of the losses, as in
the paper, where they come from a frozen model or from labels: no gradient flows into them.

Equation numbers are those of "Adversarial Mixup Unlearning" (ICLR 2025).

Example:
    >>> import torch
    >>> from pymixunlearn import ops
    >>> logits, labels = torch.randn(4, 10), torch.tensor([3, 1, 4, 1])
    >>> torch.allclose(ops.sim_loss(logits, labels), ops.reference.sim_loss(logits, labels), atol=1e-6)
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.ops import _checks as checks


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Reductions over classes and rows run in float32 or better, whatever the input dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_sharpen(logits: Tensor, T: float) -> None:
    """Arguments of ``sharpen``."""
    checks.check_floating("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits must have shape [..., C], got a 0-d tensor")
    checks.check_classes("logits", logits)
    if isinstance(T, bool) or not isinstance(T, (int, float)):
        raise TypeError(f"T must be a float, got {type(T).__name__}")
    checks.check_positive("T", T)


def sharpen(logits: Tensor, T: float = 0.3) -> Tensor:
    """``softmax(logits / T)``; see :func:`pymixunlearn.ops.sharpen`."""
    check_sharpen(logits, T)
    probabilities = torch.softmax(logits.to(_compute_dtype(logits.dtype)) / T, dim=-1)
    return probabilities.to(logits.dtype)


def _cosine(logits: Tensor, target: Tensor, sharpen_T: float | None) -> Tensor:
    """Cosine between ``softmax(logits)`` and a target direction along the last axis.

    ``target`` holds probabilities, labels (int64, one dimension fewer than ``logits``) or, with ``sharpen_T``, the
    teacher's logits. A zero target has no direction, nor has one whose norm is below the smallest normal number: its
    cosine is 0.
    """
    dtype = _compute_dtype(logits.dtype)
    probabilities = torch.softmax(logits.to(dtype), dim=-1)
    norm = torch.linalg.vector_norm(probabilities, dim=-1)
    if target.dtype == torch.int64:
        index = target.unsqueeze(-1).expand(*logits.shape[:-1], 1)
        valid = (index >= 0) & (index < logits.shape[-1])
        labelled: Tensor = (
            torch.gather(probabilities, logits.dim() - 1, torch.where(valid, index, 0)).squeeze(-1) / norm
        )
        return torch.where(valid.squeeze(-1), labelled, math.nan)
    direction = target.detach().to(dtype)
    if sharpen_T is not None:
        direction = torch.softmax(direction / sharpen_T, dim=-1)
    length = torch.linalg.vector_norm(direction, dim=-1)
    # Squares of the elements leave the range of the dtype long before they do: a power of two brings them back.
    limit, power = (1e125, 2.0**800) if dtype == torch.float64 else (1e15, 2.0**100)
    scale = torch.where(length > limit, 1 / power, torch.where(length < 1 / limit, power, torch.ones_like(length)))
    direction = direction * scale.unsqueeze(-1)
    length = torch.linalg.vector_norm(direction, dim=-1)
    directed = ~(length < torch.finfo(dtype).tiny * scale)  # taken by a NaN too
    inner = (probabilities * direction).sum(dim=-1)
    # The inner `where` keeps the division finite, the outer one defines the value: both are needed for the gradient.
    cosine = inner / (norm * torch.where(directed, length, torch.ones_like(length)))
    return torch.where(directed, cosine, torch.zeros_like(cosine))


def _number(value: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """A mixing ratio or temperature as it enters the formulas.

    Numbers stay numbers, and a 0-d CPU tensor stays where it is: bringing one to a GPU would wait for the device, and
    cannot be captured in a CUDA graph.
    """
    return value.to(dtype) if isinstance(value, Tensor) else value


def _column_lse(terms: Tensor) -> Tensor:
    """Log-sum-exp over dim 0; 0 where there is nothing to sum, so that an empty forget set contributes nothing."""
    # A sum over nothing is 0 too, and keeps the tie to the logits that second derivatives ask for.
    return torch.logsumexp(terms, dim=0) if terms.shape[0] else terms.sum(dim=0)


def check_sim_loss(logits: Tensor, target: Tensor, sharpen_T: float | None) -> None:
    """Arguments of ``sim_loss``."""
    checks.check_floating("logits", logits)
    checks.check_dims("logits", logits, "[N, C]")
    checks.check_classes("logits", logits)
    checks.check_target("target", target, logits.shape[0], logits.shape[1], logits, sharpen_T)


def sim_loss(logits: Tensor, target: Tensor, *, sharpen_T: float | None = None) -> Tensor:
    """``1 - cos(softmax(logits), target)`` per row; see :func:`pymixunlearn.ops.sim_loss`."""
    check_sim_loss(logits, target, sharpen_T)
    return (1 - _cosine(logits, target, sharpen_T)).to(logits.dtype)


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
    checks.check_choice("pairing", pairing, checks.PAIRINGS)
    checks.check_choice("reduction", reduction, checks.REDUCTIONS)
    checks.check_floating("logits", logits)
    checks.check_dims("logits", logits, "[N, C]" if pairing == "zip" else "[N_f, N_r, C]")
    checks.check_classes("logits", logits)
    n_forget, n_retain = logits.shape[0], logits.shape[0] if pairing == "zip" else logits.shape[1]
    checks.check_target("target_forget", target_forget, n_forget, logits.shape[-1], logits, sharpen_T)
    checks.check_target("target_retain", target_retain, n_retain, logits.shape[-1], logits, sharpen_T)
    checks.check_target_kinds(target_forget, target_retain)
    checks.check_ratio("lam", lam, logits)
    checks.check_temperature("tau", tau, "logits", logits)


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
    """Eq. 5 on mixed samples; see :func:`pymixunlearn.ops.mix_contrastive_loss`."""
    check_mix_contrastive_loss(logits, target_forget, target_retain, lam, tau, pairing, reduction, sharpen_T)
    dtype = _compute_dtype(logits.dtype)
    ratio, temperature = _number(lam, dtype), _number(tau, dtype)
    if pairing == "zip":
        s_forget = 1 - _cosine(logits, target_forget, sharpen_T)
        s_retain = 1 - _cosine(logits, target_retain, sharpen_T)
        retain_rows = logits.shape[0]
        numerator = ((1 - ratio) * s_retain).sum()
        loss = numerator - retain_rows * _column_lse(ratio * s_forget / temperature)
    else:
        s_forget = 1 - _cosine(logits, target_forget.unsqueeze(1), sharpen_T)
        s_retain = 1 - _cosine(logits, target_retain.unsqueeze(0), sharpen_T)
        retain_rows = logits.shape[1]
        numerator = ((1 - ratio) * s_retain).sum(dim=0) / max(logits.shape[0], 1)
        loss = (numerator - _column_lse(ratio * s_forget / temperature)).sum()
    if reduction == "mean":
        loss = loss / max(retain_rows, 1)
    return loss.to(logits.dtype)


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
    checks.check_choice("reduction", reduction, checks.REDUCTIONS)
    checks.check_floating("logits_forget", logits_forget)
    checks.check_floating("logits_retain", logits_retain)
    checks.check_dims("logits_forget", logits_forget, "[N_f, C]")
    checks.check_dims("logits_retain", logits_retain, "[N_r, C]")
    checks.check_classes("logits_retain", logits_retain)
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
    checks.check_same_device("logits_forget", logits_forget, "logits_retain", logits_retain)
    classes = logits_retain.shape[1]
    checks.check_target("target_forget", target_forget, logits_forget.shape[0], classes, logits_retain, sharpen_T)
    checks.check_target("target_retain", target_retain, logits_retain.shape[0], classes, logits_retain, sharpen_T)
    checks.check_target_kinds(target_forget, target_retain)
    checks.check_temperature("tau", tau, "logits_retain", logits_retain)


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
    """Eq. 6 on real samples; see :func:`pymixunlearn.ops.real_contrastive_loss`."""
    check_real_contrastive_loss(logits_forget, logits_retain, target_forget, target_retain, tau, reduction, sharpen_T)
    dtype = _compute_dtype(logits_retain.dtype)
    temperature = _number(tau, dtype)
    s_forget = 1 - _cosine(logits_forget, target_forget, sharpen_T)
    s_retain = 1 - _cosine(logits_retain, target_retain, sharpen_T)
    retain_rows = logits_retain.shape[0]
    loss = s_retain.sum() - retain_rows * _column_lse(s_forget / temperature)
    if reduction == "mean":
        loss = loss / max(retain_rows, 1)
    return loss.to(logits_retain.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(q kᵀ / sqrt(d)) v`` with scalar values: q [P, d, n], k [P, d, m], v [P, m] -> [P, n]."""
    scores = query.transpose(-1, -2) @ key / math.sqrt(query.shape[-2])
    return (torch.softmax(scores, dim=-1) * value.unsqueeze(-2)).sum(dim=-1)


def check_mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, pairing: str
) -> None:
    """Arguments of ``mixblock_attention``."""
    named = {"q_f": q_f, "k_f": k_f, "v_f": v_f, "q_r": q_r, "k_r": k_r, "v_r": v_r}
    for name, tensor in named.items():
        checks.check_floating(name, tensor)
        checks.check_dims(name, tensor, "[N, h, w]" if name.startswith("v") else "[N, d, h, w]")
        if tensor.dtype != q_f.dtype:
            raise TypeError(f"{name} must have the dtype of q_f ({q_f.dtype}), got {tensor.dtype}")
        checks.check_same_device(name, tensor, "q_f", q_f)
    checks.check_pairing(q_f.shape[0], q_r.shape[0], pairing)
    for name, tensor in named.items():
        samples = (q_f if name.endswith("f") else q_r).shape[0]
        expected = [samples, *q_f.shape[2:]] if name.startswith("v") else [samples, *q_f.shape[1:]]
        if checks.shape_of(tensor) != expected:
            raise ValueError(f"{name} must have shape {expected}, got {checks.shape_of(tensor)}")
    if q_f.shape[1] == 0 or q_f.shape[2] == 0 or q_f.shape[3] == 0:
        raise ValueError(f"q_f must have d, h and w of at least 1, got shape {checks.shape_of(q_f)}")


def mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, *, pairing: str = "zip"
) -> Tensor:
    """Mask logits ``l_f - l_r`` of MixBlock; see :func:`pymixunlearn.ops.mixblock_attention`."""
    check_mixblock_attention(q_f, k_f, v_f, q_r, k_r, v_r, pairing)
    h, w = q_f.shape[-2:]
    forget = [tensor.flatten(-2) for tensor in (q_f, k_f, v_f)]
    retain = [tensor.flatten(-2) for tensor in (q_r, k_r, v_r)]
    if pairing == "grid":
        forget = [tensor.unsqueeze(1) for tensor in forget]
        retain = [tensor.unsqueeze(0) for tensor in retain]
    (qf, kf, vf), (qr, kr, vr) = forget, retain
    difference = _attend(qf, kr, vf) - _attend(qr, kf, vr)
    return difference.reshape(-1, h, w)


def _image_values(
    images: Tensor, dtype: torch.dtype, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Tensor:
    """Floating images as they are, uint8 images in [0, 1] and then normalised."""
    values = images.to(dtype)
    if images.dtype != torch.uint8:
        return values
    values = values / 255
    if mean is None or std is None:
        return values
    # Numbers rather than tensors of them, as for the losses: see _number.
    channels = [(values.select(-3, c) - shift) / scale for c, (shift, scale) in enumerate(zip(mean, std, strict=True))]
    return torch.stack(channels, dim=-3)


def check_mask_mix(
    x_forget: Tensor,
    x_retain: Tensor,
    mask_logits: Tensor,
    pairing: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype | None,
) -> None:
    """Arguments of ``mask_mix``."""
    checks.check_floating("mask_logits", mask_logits)
    checks.check_dims("mask_logits", mask_logits, "[P, h, w]")
    for name, image in (("x_forget", x_forget), ("x_retain", x_retain)):
        checks.check_tensor(name, image)
        if image.dtype not in (*checks.FLOATING, torch.uint8):
            raise TypeError(f"{name} must be float32, float64, bfloat16, float16 or uint8, got {image.dtype}")
        checks.check_dims(name, image, "[N, C, H, W]")
        checks.check_same_device(name, image, "mask_logits", mask_logits)
        if 0 in image.shape[1:]:
            raise ValueError(f"{name} must have C, H and W of at least 1, got shape {checks.shape_of(image)}")
    if x_retain.dtype != x_forget.dtype:
        raise TypeError(f"x_retain must have the dtype of x_forget ({x_forget.dtype}), got {x_retain.dtype}")
    if x_retain.shape[1:] != x_forget.shape[1:]:
        raise ValueError(
            f"x_retain must have images of shape {checks.shape_of(x_forget)[1:]}, got {checks.shape_of(x_retain)[1:]}"
        )
    pairs = checks.check_pairing(x_forget.shape[0], x_retain.shape[0], pairing)
    if mask_logits.shape[0] != pairs:
        raise ValueError(f"mask_logits must have {pairs} rows, one per pair, got {mask_logits.shape[0]}")
    if 0 in mask_logits.shape[1:]:
        raise ValueError(f"mask_logits must have h and w of at least 1, got shape {checks.shape_of(mask_logits)}")
    _check_normalisation(x_forget, mean, std)
    if dtype is not None and dtype not in checks.FLOATING:
        raise TypeError(f"dtype must be float32, float64, bfloat16 or float16, got {dtype}")


def _check_normalisation(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise ValueError(f"mean and std must be given together, got mean={mean} and std={std}")
    if images.dtype != torch.uint8:
        raise TypeError(f"mean and std are for uint8 images, got {images.dtype}")
    channels = images.shape[1]
    if channels > checks.NORMALISED_CHANNELS:
        raise ValueError(f"mean and std serve images of up to {checks.NORMALISED_CHANNELS} channels, got {channels}")
    for name, values in (("mean", mean), ("std", std)):
        # A tensor may live on a device, whose numbers cannot be read without waiting for it.
        if isinstance(values, Tensor) or not all(type(value) in (int, float) for value in values):
            raise TypeError(f"{name} must be a sequence of numbers, got {values!r}")
        if len(values) != channels:
            raise ValueError(f"{name} must have {channels} values, one per channel, got {len(values)}")
    if not min(std) > 0:
        raise ValueError(f"std must be above 0, got {list(std)}")


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
    """``x_f * M + x_r * (1 - M)``, ``M = sigmoid(upsample(mask_logits))``; see :func:`pymixunlearn.ops.mask_mix`."""
    check_mask_mix(x_forget, x_retain, mask_logits, pairing, mean, std, dtype)
    result = mixed_dtype(x_forget, dtype)
    compute = torch.float64 if torch.float64 in (x_forget.dtype, result) else torch.float32
    size = x_forget.shape[-2:]
    # Infinite logits count as ±1e30: as good for the sigmoid, and 0 where the interpolation gives them no weight.
    logits = mask_logits.unsqueeze(1).to(compute).clamp(-1e30, 1e30)
    upsampled = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    mask = torch.sigmoid(upsampled)
    forget, retain = (_image_values(x, compute, mean, std) for x in (x_forget, x_retain))
    if pairing == "grid":
        mask = mask.reshape(forget.shape[0], retain.shape[0], *mask.shape[1:])
        forget, retain = forget.unsqueeze(1), retain.unsqueeze(0)
    mixed = forget * mask + retain * (1 - mask)
    if pairing == "grid":
        mixed = mixed.flatten(0, 1)
    return mixed.to(result)


def mixed_dtype(images: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Dtype of the mixes of ``images``: as requested, or that of floating images, or float32."""
    if dtype is not None:
        return dtype
    return torch.float32 if images.dtype == torch.uint8 else images.dtype
