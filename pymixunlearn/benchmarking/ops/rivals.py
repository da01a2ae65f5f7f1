"""Rivals: the formulas written with PyTorch's own operators, at their leanest.

Softmax, cosine similarity and log-sum-exp for the losses; interpolate, sigmoid and lerp for the mix; batched products,
or PyTorch's fused attention, for MixBlock. Losses of half-precision logits are computed in float32, which is also what
autocast does to these functions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LAM, TAU, SHARPEN_T = 0.3, 10.0, 0.3


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def sharpen(logits: Tensor) -> Tensor:
    """``softmax(logits / T)``."""
    return torch.softmax(_full(logits) / SHARPEN_T, dim=-1).to(logits.dtype)


def sim_loss(logits: Tensor, target: Tensor) -> Tensor:
    """``1 - cos(softmax(logits), target)``, [N]."""
    return (1 - F.cosine_similarity(torch.softmax(_full(logits), dim=-1), _full(target), dim=-1)).to(logits.dtype)


def mix_contrastive_loss(logits: Tensor, target_forget: Tensor, target_retain: Tensor, *, pairing: str) -> Tensor:
    """Eq. 5; logits are [N, C] in zip and [N_f, N_r, C] in grid pairing."""
    probabilities = torch.softmax(_full(logits), dim=-1)
    forget, retain = _full(target_forget), _full(target_retain)
    if pairing == "zip":
        s_forget = 1 - F.cosine_similarity(probabilities, forget, dim=-1)
        s_retain = 1 - F.cosine_similarity(probabilities, retain, dim=-1)
        loss = ((1 - LAM) * s_retain).sum() - len(logits) * torch.logsumexp(LAM * s_forget / TAU, dim=0)
    else:
        s_forget = 1 - F.cosine_similarity(probabilities, forget.unsqueeze(1), dim=-1)
        s_retain = 1 - F.cosine_similarity(probabilities, retain.unsqueeze(0), dim=-1)
        loss = ((1 - LAM) * s_retain.mean(dim=0) - torch.logsumexp(LAM * s_forget / TAU, dim=0)).sum()
    return loss.to(logits.dtype)


def real_contrastive_loss(
    logits_forget: Tensor, logits_retain: Tensor, target_forget: Tensor, target_retain: Tensor
) -> Tensor:
    """Eq. 6."""
    s_forget = 1 - F.cosine_similarity(torch.softmax(_full(logits_forget), dim=-1), _full(target_forget), dim=-1)
    s_retain = 1 - F.cosine_similarity(torch.softmax(_full(logits_retain), dim=-1), _full(target_retain), dim=-1)
    loss = s_retain.sum() - len(logits_retain) * torch.logsumexp(s_forget / TAU, dim=0)
    return loss.to(logits_retain.dtype)


def mask_mix(x_forget: Tensor, x_retain: Tensor, mask_logits: Tensor, *, pairing: str) -> Tensor:
    """``lerp(x_r, x_f, sigmoid(upsample(mask_logits)))``, which is faster than two products and a sum."""
    size = x_forget.shape[-2:]
    mask = torch.sigmoid(F.interpolate(mask_logits.unsqueeze(1), size=size, mode="bilinear", align_corners=False))
    if pairing == "zip":
        return torch.lerp(x_retain, x_forget, mask)
    mask = mask.view(len(x_forget), len(x_retain), 1, *size)
    return torch.lerp(x_retain.unsqueeze(0), x_forget.unsqueeze(1), mask).flatten(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query.transpose(-1, -2) @ key / math.sqrt(query.shape[-2])
    return (torch.softmax(scores, dim=-1) @ value.unsqueeze(-1)).squeeze(-1)


def _attend_sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attended = F.scaled_dot_product_attention(query.transpose(-1, -2), key.transpose(-1, -2), value.unsqueeze(-1))
    return attended.squeeze(-1)


def mixblock_attention(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, *, pairing: str, sdpa: bool = False
) -> Tensor:
    """Both cross-attentions of MixBlock, by batched products or by ``scaled_dot_product_attention``.

    That takes its unfused path for these tensors: their last stride is not 1, and the values have another width.
    """
    forget = [tensor.flatten(-2).unsqueeze(1) for tensor in (q_f, k_f, v_f)]
    retain = [tensor.flatten(-2).unsqueeze(0 if pairing == "grid" else 1) for tensor in (q_r, k_r, v_r)]
    (qf, kf, vf), (qr, kr, vr) = _pairs(forget, retain, pairing)
    attend = _attend_sdpa if sdpa else _attend
    return (attend(qf, kr, vf) - attend(qr, kf, vr)).reshape(-1, *q_f.shape[-2:])


def mixblock_attention_padded(
    q_f: Tensor, k_f: Tensor, v_f: Tensor, q_r: Tensor, k_r: Tensor, v_r: Tensor, *, pairing: str
) -> Tensor:
    """The same as ``scaled_dot_product_attention`` has fused kernels for it.

    Queries and keys are brought to [N, h * w, d], and values, which are numbers, are padded with zeros to d of them.
    """

    def laid_out(query: Tensor, key: Tensor, value: Tensor, at: int) -> list[Tensor]:
        rows = [tensor.flatten(-2).transpose(-1, -2).contiguous() for tensor in (query, key)]
        return [
            tensor.unsqueeze(at) for tensor in (*rows, F.pad(value.flatten(-2).unsqueeze(-1), (0, query.shape[1] - 1)))
        ]

    forget = laid_out(q_f, k_f, v_f, 1)
    retain = laid_out(q_r, k_r, v_r, 0 if pairing == "grid" else 1)
    (qf, kf, vf), (qr, kr, vr) = _pairs(forget, retain, pairing)
    attend = F.scaled_dot_product_attention
    return (attend(qf, kr, vf) - attend(qr, kf, vr))[..., 0].reshape(-1, *q_f.shape[-2:])


def _pairs(forget: list[Tensor], retain: list[Tensor], pairing: str) -> tuple[list[Tensor], list[Tensor]]:
    """In grid pairing every image with every partner, without copies."""
    if pairing == "zip":
        return forget, retain
    pairs = (len(forget[0]), retain[0].shape[1])
    expanded = [[tensor.expand(*pairs, *tensor.shape[2:]) for tensor in side] for side in (forget, retain)]
    return expanded[0], expanded[1]
