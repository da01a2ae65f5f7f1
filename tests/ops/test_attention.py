"""MixBlock's attention against the reference in float64: shapes, layouts, dtypes, and numerical corners."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.agreement import TOLERANCE, compare_with_truth, gradients
from tests.ops.problem import Problem, Refusal

DTYPES = list(TOLERANCE)
# Positions: one, a part of a vector, MixBlock's own, a multiple of every tile, one more, more than a chunk of keys.
MAPS = [(1, 1), (1, 3), (4, 4), (7, 7), (8, 12), (14, 14), (17, 17), (16, 25)]
DIMS = [1, 3, 16, 40, 128]
#: What may be lost of the largest element on a GPU, whose tensor cores take weights rounded to halves: where many of
#: them cancel, that is more than a share of what is left (as in tests/cpp/test_attention.cpp).
ROUNDED_WEIGHTS = {torch.bfloat16: 1.5e-2, torch.float16: 2e-3}


def inputs_of(
    n_f: int, n_r: int, d: int, h: int, w: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> list[Tensor]:
    """Queries, keys and values of both sides, as MixBlock has them: slices of one stacked projection."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for n in (n_f, n_r):
        stacked = torch.randn(n, 2 * d + 1, h, w, generator=generator, dtype=torch.float64).to(dtype).to(device)
        inputs += [stacked[:, :d], stacked[:, d:-1], stacked[:, -1]]
    return inputs


def compare(inputs: list[Tensor], pairing: str) -> None:
    compare_with_truth(
        lambda *x: ops.mixblock_attention(*x, pairing=pairing),
        lambda *x: reference.mixblock_attention(*x, pairing=pairing),
        inputs,
    )


@pytest.mark.parametrize("pairing", ["zip", "grid"])
@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_gradients(device: str, dtype: torch.dtype, d: int, pairing: str) -> None:
    for h, w in MAPS:
        for n_f, n_r in [(3, 3)] if pairing == "zip" else [(2, 3), (3, 1)]:
            compare(inputs_of(n_f, n_r, d, h, w, dtype, device, seed=h + w), pairing)


def test_many_channels_take_small_chunks_of_keys(device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        compare(inputs_of(2, 2, 1100, 6, 7, dtype, device), "zip")
    compare(inputs_of(1, 2, 520, 9, 9, device=device), "grid")


def test_is_the_equation_written_out() -> None:
    q_f, k_f, v_f, q_r, k_r, v_r = (x.double() for x in inputs_of(2, 2, 3, 2, 2))
    out = ops.mixblock_attention(q_f, k_f, v_f, q_r, k_r, v_r)
    for p in range(2):
        maps = []
        for q, k, v in ((q_f, k_r, v_f), (q_r, k_f, v_r)):
            query, key, value = q[p].flatten(1), k[p].flatten(1), v[p].flatten()
            scores = [
                [sum(query[c, n] * key[c, m] for c in range(3)).item() / math.sqrt(3) for m in range(4)]
                for n in range(4)
            ]
            weights = [[math.exp(s) / sum(math.exp(other) for other in row) for s in row] for row in scores]
            maps.append([sum(w * value[m].item() for m, w in enumerate(row)) for row in weights])
        assert out[p].flatten().tolist() == pytest.approx([f - r for f, r in zip(*maps, strict=True)], rel=1e-12)


def test_grid_is_all_pairs(device: str) -> None:
    inputs = inputs_of(3, 2, 16, 5, 5, device=device)
    grid = ops.mixblock_attention(*inputs, pairing="grid")
    assert grid.shape == (6, 5, 5)
    for i in range(3):
        for j in range(2):
            pair = ops.mixblock_attention(*(x[i : i + 1] for x in inputs[:3]), *(x[j : j + 1] for x in inputs[3:]))
            assert torch.equal(grid[i * 2 + j], pair[0])


# --- numerical corners -----------------------------------------------------------------------------------------------


def value_and_gradients(inputs: list[Tensor], pairing: str = "zip", grad: Tensor | None = None) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = ops.mixblock_attention(*leaves, pairing=pairing)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out) if grad is None else grad)]


@pytest.mark.parametrize("size", [1e3, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_scores_pick_one_key(device: str, dtype: torch.dtype, size: float) -> None:
    inputs = inputs_of(2, 2, 8, 5, 5, dtype, device)
    inputs = [x * size if i % 3 != 2 else x for i, x in enumerate(inputs)]
    out, *grads = value_and_gradients(inputs)
    q_f, k_f, v_f, q_r, k_r, v_r = (x.flatten(-2) for x in inputs)
    forget = v_f.gather(1, (q_f.transpose(1, 2) @ k_r).argmax(2))
    retain = v_r.gather(1, (q_r.transpose(1, 2) @ k_f).argmax(2))
    torch.testing.assert_close(out.flatten(1), forget - retain)
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_inf_propagate_within_their_pair(device: str, value: float) -> None:
    inputs = inputs_of(3, 3, 8, 5, 5, device=device)
    inputs[0][1, 4, 2, 2] = value  # a query: its row alone
    out, *grads = value_and_gradients(inputs)
    bad = torch.isnan(out)
    assert bad[1, 2, 2] and bad.sum() == 1
    assert torch.isnan(grads[0][1]).any() and all(torch.isfinite(grad[[0, 2]]).all() for grad in grads)
    inputs = inputs_of(3, 3, 8, 5, 5, device=device)
    inputs[4][1, 4, 2, 2] = math.nan  # a key: every query of the pair
    assert torch.isnan(ops.mixblock_attention(*inputs)).flatten(1).all(1).tolist() == [False, True, False]


def test_a_key_at_minus_infinity_is_masked(device: str) -> None:
    inputs = inputs_of(2, 2, 4, 3, 3, device=device)
    inputs[0], inputs[4] = inputs[0].abs() + 0.1, inputs[4].clone()
    inputs[4][..., 1, 1] = -math.inf
    out = ops.mixblock_attention(*inputs)
    torch.testing.assert_close(out, reference.mixblock_attention(*inputs))
    assert torch.isfinite(out).all()


# --- shapes, strides, dtypes at random -------------------------------------------------------------------------------

LAYOUTS = ["stacked", "channels last", "transposed", "sliced", "expanded", "stepped"]


def laid_out(dense: Tensor, layout: str) -> Tensor:
    """The same values (those of the first image, if expanded) in another memory layout; [N, ..., h, w]."""
    if layout == "channels last" and dense.dim() == 4:
        return dense.to(memory_format=torch.channels_last)
    if layout == "transposed":
        return dense.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "sliced":
        padded = dense.new_full((*dense.shape[:-2], dense.shape[-2] + 2, dense.shape[-1] + 3), math.nan)
        padded[..., 1:-1, 2:-1] = dense
        return padded[..., 1:-1, 2:-1]
    if layout == "expanded":
        return dense[:1].expand_as(dense)
    if layout == "stepped":
        wide = dense.new_full((*dense.shape[:-1], 2 * dense.shape[-1]), math.nan)
        wide[..., ::2] = dense
        return wide[..., ::2]
    return dense


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    pairing = draw(st.sampled_from(["zip", "grid"]))
    n_f = draw(st.integers(1, 4))
    return {
        "sizes": (n_f, n_f if pairing == "zip" else draw(st.integers(1, 4)), draw(st.integers(1, 40))),
        "map": (draw(st.integers(1, 12)), draw(st.integers(1, 12))),
        "pairing": pairing,
        "layouts": [draw(st.sampled_from(LAYOUTS)) for _ in range(7)],
        "dtype": draw(st.sampled_from(DTYPES)),
    }


@settings(max_examples=100, deadline=None)
@given(problems())
def test_any_layout_gives_what_the_contiguous_one_gives(device: str, problem: dict[str, Any]) -> None:
    (n_f, n_r, d), (h, w), pairing = problem["sizes"], problem["map"], problem["pairing"]
    dense = inputs_of(n_f, n_r, d, h, w, problem["dtype"], device, seed=h * w)
    pairs = n_f * n_r if pairing == "grid" else n_f
    grad = torch.randn(pairs, h, w, generator=torch.Generator().manual_seed(1)).to(dense[0])
    laid = [laid_out(x, layout) for x, layout in zip([*dense, grad], problem["layouts"], strict=True)]
    own = value_and_gradients(laid[:6], pairing, laid[6])
    contiguous = [x.contiguous() for x in laid]
    expected = value_and_gradients(contiguous[:6], pairing, contiguous[6])
    assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_random_problems_agree_with_the_reference(device: str, problem: dict[str, Any]) -> None:
    (n_f, n_r, d), (h, w), dtype = problem["sizes"], problem["map"], problem["dtype"]
    inputs = inputs_of(n_f, n_r, d, h, w, dtype, device, seed=d)
    if device == "cpu" or dtype not in ROUNDED_WEIGHTS:
        return compare(inputs, problem["pairing"])
    pairing = problem["pairing"]
    value, grads = gradients(lambda *x: ops.mixblock_attention(*x, pairing=pairing), inputs, None)
    true_value, true_grads = gradients(
        lambda *x: reference.mixblock_attention(*x, pairing=pairing), [x.double() for x in inputs], None
    )
    for own, truth in zip([value, *grads], [true_value, *true_grads], strict=True):
        assert (own.double() - truth).abs().max() <= ROUNDED_WEIGHTS[dtype] * truth.abs().max().clamp(min=1e-3)


# --- what all operators are tested for ------------------------------------------------------------------------------


def _attention(pairing: str) -> Problem:
    def tensors(size: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> list[Tensor]:
        n_forget, n_retain, *rest = size
        n_retain = n_retain if pairing == "grid" else n_forget
        return inputs_of(n_forget, n_retain, *rest, dtype=dtype, device=device, seed=seed)

    def call(module: Any, *x: Tensor) -> Tensor:
        logits: Tensor = module.mixblock_attention(*x, pairing=pairing)
        return logits

    sizes = ((2, 3, 3, 2, 3), (3, 4, 5, 6, 7), (5, 6, 8, 7, 9), (8, 9, 6, 4, 3), (7, 8, 19, 12, 5), (3, 3, 16, 7, 7))
    empty = ((0, 0, 4, 3, 3), (0, 2, 4, 3, 3), (2, 0, 4, 3, 3)) if pairing == "grid" else ((0, 0, 4, 3, 3),)
    return Problem(f"attention-{pairing}", 6, sizes, empty, tensors, call)


PROBLEMS = [_attention("zip"), _attention("grid")]
NAMES = ("q_f", "k_f", "v_f", "q_r", "k_r", "v_r")


def attend(module: Any, change: dict[str, Any]) -> Tensor:
    """The attention of two pairs, with some arguments exchanged."""
    own = {name: torch.zeros((2, 4, 4) if name[0] == "v" else (2, 3, 4, 4)) for name in NAMES}
    mask_logits: Tensor = module.mixblock_attention(**(own | change))
    return mask_logits


BAD_ARGUMENTS: list[Refusal] = [
    (lambda f: attend(f, {"q_r": [1.0]}), TypeError, "q_r must be a tensor, got list"),
    (lambda f: attend(f, {"q_f": torch.zeros(2, 3, 4, 4).int()}), TypeError, "q_f must be float32, .* got torch.int32"),
    (
        lambda f: attend(f, {"k_r": torch.zeros(2, 3, 4, 4).double()}),
        TypeError,
        r"k_r must have the dtype of q_f \(torch.float32\)",
    ),
    (
        lambda f: attend(f, {"k_r": torch.zeros(2, 3, 16)}),
        ValueError,
        r"k_r must have shape \[N, d, h, w\], got \[2, 3, 16\]",
    ),
    (
        lambda f: attend(f, {"v_f": torch.zeros(2, 1, 4, 4)}),
        ValueError,
        r"v_f must have shape \[N, h, w\], got \[2, 1, 4, 4\]",
    ),
    (
        lambda f: attend(f, {"k_f": torch.zeros(2, 5, 4, 4)}),
        ValueError,
        r"k_f must have shape \[2, 3, 4, 4\], got \[2, 5, 4, 4\]",
    ),
    (
        lambda f: attend(f, {"v_r": torch.zeros(2, 2, 8)}),
        ValueError,
        r"v_r must have shape \[2, 4, 4\], got \[2, 2, 8\]",
    ),
    (
        lambda f: attend(f, {"q_r": torch.zeros(3, 3, 4, 4)}),
        ValueError,
        "as many forget as retain samples, got 2 and 3",
    ),
    (
        lambda f: attend(f, {"v_r": torch.zeros(2, 4, 4, device="meta")}),
        ValueError,
        r"v_r must be on the device of q_f \(cpu\)",
    ),
    (lambda f: attend(f, {"pairing": "all"}), ValueError, "pairing must be one of 'zip', 'grid', got 'all'"),
    (
        lambda f: attend(f, {name: torch.zeros((2, 3, 0, 4) if name[0] != "v" else (2, 0, 4)) for name in NAMES}),
        ValueError,
        r"q_f must have d, h and w of at least 1, got shape \[2, 3, 0, 4\]",
    ),
    (
        lambda f: attend(f, {"k_f": torch.zeros(2, 3, 4, 4).to_sparse()}),
        TypeError,
        "k_f must be a dense tensor, got layout torch.sparse",
    ),
]
