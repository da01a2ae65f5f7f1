"""MixBlock: its size, its equation, and that a grid is nothing but all pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pymixunlearn.errors import UserError
from pymixunlearn.nn import MixBlock, mixup


def _inputs(n_f: int, n_r: int, channels: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features [n, channels, 4, 5] and images [n, 3, 8, 10] of both sides, float64."""
    stream = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, dtype=torch.float64)

    return draw(n_f, channels, 4, 5), draw(n_r, channels, 4, 5), draw(n_f, 3, 8, 10), draw(n_r, 3, 8, 10)


def _block(channels: int = 6) -> MixBlock:
    """A block with weights large enough for its mask to be far from uniform."""
    block = MixBlock(channels, seed=1).double()
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return block


def _literal_mix(block: MixBlock, f_f: Tensor, f_r: Tensor, lam: Tensor, x_f: Tensor, x_r: Tensor) -> Tensor:
    """Section 4 of the equations with the constant channel, the two-channel softmax and every map written out."""
    d = block.dim

    def project(features: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        constant = ratio.view(-1, 1, 1, 1).expand(len(features), 1, *features.shape[2:])
        maps = F.conv2d(torch.cat([features, constant], 1), block.weight[:, :, None, None], block.bias).flatten(2)
        return maps[:, :d], maps[:, d : 2 * d], maps[:, 2 * d]

    q_f, k_f, v_f = project(f_f, lam)
    q_r, k_r, v_r = project(f_r, 1 - lam)
    l_f = torch.stack([torch.softmax(q.T @ k / math.sqrt(d), 1) @ v for q, k, v in zip(q_f, k_r, v_f, strict=True)])
    l_r = torch.stack([torch.softmax(q.T @ k / math.sqrt(d), 1) @ v for q, k, v in zip(q_r, k_f, v_r, strict=True)])
    maps = torch.stack([l_f, l_r], 1).unflatten(2, f_f.shape[2:])
    masks = torch.softmax(F.interpolate(maps, x_f.shape[2:], mode="bilinear", align_corners=False), 1)
    return x_f * masks[:, :1] + x_r * masks[:, 1:]


def test_parameter_count_is_the_papers() -> None:
    block = MixBlock(256)
    assert sum(parameter.numel() for parameter in block.parameters()) == 66_306 == 2 * (257 * 128 + 128) + 257 + 1


def test_initial_weights_are_small_and_seeded() -> None:
    state = torch.get_rng_state()
    first, again, other = MixBlock(256, seed=3), MixBlock(256, seed=3), MixBlock(256, seed=4)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert first.bias.count_nonzero() == 0
    assert torch.equal(torch.get_rng_state(), state)  # the caller's own randomness is left alone


@pytest.mark.parametrize("kind", ["float", "scalar", "per pair"])
def test_zip_is_the_equation(kind: str) -> None:
    block, (f_f, f_r, x_f, x_r) = _block(), _inputs(3, 3)
    rows = torch.tensor([0.2, 0.9, 0.5] if kind == "per pair" else [0.3] * 3, dtype=torch.float64)
    lam = {"float": 0.3, "scalar": rows[0], "per pair": rows}[kind]
    mixed = block(f_f, f_r, lam, x_f, x_r)
    torch.testing.assert_close(mixed, _literal_mix(block, f_f, f_r, rows, x_f, x_r), rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_the_equation() -> None:
    block, (f_f, f_r, x_f, x_r) = _block(), _inputs(3, 3)
    lam = torch.tensor(0.3, dtype=torch.float64)
    parameters = list(block.parameters())
    got = torch.autograd.grad(block(f_f, f_r, lam, x_f, x_r).square().sum(), parameters)
    literal = _literal_mix(block, f_f, f_r, lam.expand(3), x_f, x_r)
    for mine, theirs in zip(got, torch.autograd.grad(literal.square().sum(), parameters), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_grid_is_all_pairs() -> None:
    block, (f_f, f_r, x_f, x_r) = _block(), _inputs(3, 2)
    grid = block(f_f, f_r, 0.7, x_f, x_r, "grid")
    assert grid.shape == (6, 3, 8, 10)
    for i in range(3):
        for j in range(2):
            pair = block(f_f[i : i + 1], f_r[j : j + 1], 0.7, x_f[i : i + 1], x_r[j : j + 1])
            torch.testing.assert_close(grid[i * 2 + j], pair[0], rtol=1e-10, atol=1e-12)


def test_mask_is_one_matrix_product_a_side_and_one_attention_without_copies() -> None:
    called: list[str] = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    block, (f_f, f_r, _, _) = _block(), _inputs(3, 3)
    with Calls():
        mask = block.mask_logits(f_f, f_r, torch.tensor(0.3, dtype=torch.float64))
    assert [name for name in called if "mm" in name or "pymixunlearn" in name] == [
        "aten.baddbmm.default",
        "aten.baddbmm.default",
        "pymixunlearn.mixblock_attention.default",
    ]
    assert not [name for name in called if "copy" in name or "clone" in name or "cat" in name]
    called.clear()
    with Calls():
        mask.sum().backward()
    assert called.count("pymixunlearn.mixblock_attention_backward.default") == 1
    assert called.count("aten.cat.default") == 2


def test_untrained_mask_is_even_for_every_ratio() -> None:
    block, (f_f, f_r, _, _) = MixBlock(6).double(), _inputs(3, 3)
    for lam in (0.0, 0.5, 1.0):
        assert block.mask_logits(f_f, f_r, lam).abs().max() < 0.1


def test_mixup_zip_and_grid() -> None:
    _, _, x_f, x_r = _inputs(3, 2)
    grid = mixup(x_f, x_r, torch.tensor(0.25), "grid")
    torch.testing.assert_close(grid[1 * 2 + 0], 0.25 * x_f[1] + 0.75 * x_r[0])
    lam = torch.tensor([0.25, 1.0], dtype=torch.float64)
    mixed = mixup(x_f[:2], x_r, lam)
    torch.testing.assert_close(mixed[0], 0.25 * x_f[0] + 0.75 * x_r[0])
    torch.testing.assert_close(mixed[1], x_f[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lam": 1.5}, "lam is 1.5"),
        ({"lam": torch.ones(2)}, r"lam has shape \[2\].*shape \[3\]"),
        ({"lam": torch.ones(3), "pairing": "grid"}, "a number or a 0-d tensor in grid"),
        ({"pairing": "gird"}, "Did you mean 'grid'"),
        ({"feat_r": torch.zeros(3, 5, 4, 5)}, r"feat_r has shape \[3, 5, 4, 5\]"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], words: str) -> None:
    f_f, f_r, x_f, x_r = _inputs(3, 3)
    arguments = {"feat_f": f_f, "feat_r": f_r, "lam": 0.5, "x_f": x_f, "x_r": x_r, **change}
    with pytest.raises(UserError, match=words):
        _block()(**arguments)
    with pytest.raises(UserError, match="in_channels is 1"):
        MixBlock(1)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_a_held_mask_shows_the_share_whatever_the_features_scale(pairing: str) -> None:
    block = MixBlock(6, normalize="layer", share="lam", seed=1).double()
    block.load_state_dict(_block().state_dict())
    f_f, f_r, x_f, x_r = _inputs(3, 3)
    masks = [block.mask_logits(scale * f_f, scale * f_r, 0.3, pairing) for scale in (1, 1e-3, 1e3)]
    for mask in masks:
        torch.testing.assert_close(mask.sigmoid().mean((1, 2)), torch.full((len(mask),), 0.3, dtype=torch.float64))
        torch.testing.assert_close(mask, masks[0], rtol=1e-4, atol=1e-4)
    assert masks[0].sigmoid().std((1, 2)).min() > 0.01
    mixed = block(f_f, f_r, 0.3, x_f, x_r, pairing)
    (gradient,) = torch.autograd.grad(mixed.square().sum(), [block.weight])
    assert gradient.abs().max() > 1e-6


def test_normalised_features_have_mean_zero_and_deviation_one() -> None:
    block, paper = MixBlock(6, normalize="layer").double(), _block()
    block.load_state_dict(paper.state_dict())
    f_f, f_r, _, _ = _inputs(3, 3)

    def unit(features: Tensor) -> Tensor:
        mean, deviation = features.mean((1, 2, 3), keepdim=True), features.std((1, 2, 3), correction=0, keepdim=True)
        return (features - mean) / deviation

    expected = paper.mask_logits(unit(f_f), unit(f_r), 0.3)
    torch.testing.assert_close(block.mask_logits(f_f, f_r, 0.3), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["normalize", "share"])
def test_unknown_forms_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown {name} 'lamb'"):
        MixBlock(6, **{name: "lamb"})  # type: ignore[arg-type]
