"""The loss modules against Equations 3, 5 and 6 written out with loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pymixunlearn.errors import UserError
from pymixunlearn.nn import GeneratorLoss, MixContrastiveLoss, RealContrastiveLoss

N_F, N_R, C = 3, 4, 5


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _sim(logits: Tensor, target: Tensor) -> float:
    """SimLoss of one row: one minus the cosine similarity of two distributions."""
    p, t = torch.softmax(logits, 0).tolist(), target.tolist()
    inner = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - inner / math.sqrt(sum(a * a for a in p)) / math.sqrt(sum(b * b for b in t))


def _distributions(target: Tensor, sharpen_T: float | None) -> Tensor:
    """p(x) of Equation 4, row by row: one-hot labels, sharpened teacher answers (Eq. 8), or what was given."""
    if target.dtype == torch.int64:
        return torch.eye(C, dtype=torch.float64)[target]
    if sharpen_T is None:
        return target
    powers = torch.softmax(target, 1) ** (1 / sharpen_T)
    return powers / powers.sum(1, keepdim=True)


def _targets(kind: str, rows: int, seed: int) -> tuple[Tensor, float | None]:
    if kind == "labels":
        return torch.randint(C, (rows,), generator=torch.Generator().manual_seed(seed)), None
    logits = _draw(rows, C, seed=seed)
    return (logits, 0.3) if kind == "teacher logits" else (torch.softmax(logits, 1), None)


KINDS = ["labels", "probabilities", "teacher logits"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_mix_and_generator_loss_zip(kind: str, reduction: str) -> None:
    (t_f, T), (t_r, _) = _targets(kind, N_R, 1), _targets(kind, N_R, 2)
    z, lam, tau = 2 * _draw(N_R, C), 0.3, 0.7
    p_f, p_r = _distributions(t_f, T), _distributions(t_r, T)
    denominator = sum(math.exp(lam * _sim(z[i], p_f[i]) / tau) for i in range(N_R))
    expected = sum(math.log(math.exp((1 - lam) * _sim(z[j], p_r[j])) / denominator) for j in range(N_R))
    expected /= N_R if reduction == "mean" else 1
    loss = MixContrastiveLoss(tau, reduction=reduction, sharpen_T=T)
    assert loss(z, t_f, t_r, lam).item() == pytest.approx(expected, rel=1e-12)
    generator_loss = GeneratorLoss(tau, reduction=reduction, sharpen_T=T)
    assert generator_loss(z, t_f, t_r, torch.tensor(lam, dtype=torch.float64)).item() == pytest.approx(
        -expected, rel=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_mix_loss_grid(kind: str, reduction: str) -> None:
    (t_f, T), (t_r, _) = _targets(kind, N_F, 1), _targets(kind, N_R, 2)
    z, lam, tau = 2 * _draw(N_F, N_R, C), 0.6, 10.0
    p_f, p_r = _distributions(t_f, T), _distributions(t_r, T)
    expected = 0.0
    for j in range(N_R):
        numerator = sum((1 - lam) * _sim(z[i, j], p_r[j]) for i in range(N_F)) / N_F
        denominator = sum(math.exp(lam * _sim(z[i, j], p_f[i]) / tau) for i in range(N_F))
        expected += math.log(math.exp(numerator) / denominator)
    expected /= N_R if reduction == "mean" else 1
    loss = MixContrastiveLoss(tau, "grid", reduction, sharpen_T=T)
    assert loss(z, t_f, t_r, lam).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_real_loss(kind: str, reduction: str) -> None:
    (t_f, T), (t_r, _) = _targets(kind, N_F, 1), _targets(kind, N_R, 2)
    z_f, z_r, tau = 2 * _draw(N_F, C), 2 * _draw(N_R, C, seed=3), 5.0
    p_f, p_r = _distributions(t_f, T), _distributions(t_r, T)
    denominator = sum(math.exp(_sim(z_f[i], p_f[i]) / tau) for i in range(N_F))
    expected = sum(math.log(math.exp(_sim(z_r[j], p_r[j])) / denominator) for j in range(N_R))
    expected /= N_R if reduction == "mean" else 1
    loss = RealContrastiveLoss(tau, reduction, sharpen_T=T)
    assert loss(z_f, z_r, t_f, t_r).item() == pytest.approx(expected, rel=1e-12)


def test_generator_gradient_opposes_the_unlearners() -> None:
    (t_f, _), (t_r, _) = _targets("labels", N_R, 1), _targets("labels", N_R, 2)
    z = _draw(N_R, C).requires_grad_()
    (up,) = torch.autograd.grad(GeneratorLoss(0.5)(z, t_f, t_r, 0.4), z)
    (down,) = torch.autograd.grad(MixContrastiveLoss(0.5)(z, t_f, t_r, 0.4), z)
    assert up.abs().max() > 1e-3
    torch.testing.assert_close(up, -down)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MixContrastiveLoss(0.0), "tau is 0.0"),
        (lambda: GeneratorLoss(math.inf), "tau is inf"),
        (lambda: RealContrastiveLoss(5.0, "total"), "unknown reduction 'total'"),
        (lambda: MixContrastiveLoss(1.0, "zap"), "unknown pairing 'zap'"),
        (lambda: RealContrastiveLoss(1.0, sharpen_T=-1.0), "sharpen_T is -1.0"),
    ],
)
def test_bad_settings_are_refused(build: type, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build()
