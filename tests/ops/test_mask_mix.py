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
from tests.ops.agreement import TOLERANCE, agree_with_truth, assert_close, compare_with_truth
from tests.ops.problem import Problem, Refusal

DTYPES = list(TOLERANCE)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
#: (channels, image size, mask size): integer and fractional ratios, the image's own size, down-sampling, single cells.
SHAPES = [
    (3, (32, 32), (8, 8)),
    (1, (28, 28), (7, 7)),
    (3, (56, 40), (14, 14)),
    (4, (13, 11), (5, 3)),
    (2, (9, 17), (1, 1)),
    (3, (6, 6), (6, 6)),
    (3, (5, 7), (11, 20)),
    (5, (1, 1), (3, 2)),
    (1, (1, 70), (2, 33)),
]


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu", scale: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).to(device)


def operands(
    n_forget: int,
    n_retain: int,
    shape: tuple[int, tuple[int, int], tuple[int, int]],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    layout: str = "contiguous",
) -> list[Tensor]:
    """Forget images, retain images and mask logits; grid unless both sides have as many images."""
    channels, size, mask_size = shape
    images = [
        draw(n, channels, *size, seed=n + i, dtype=dtype, device=device).contiguous(memory_format=LAYOUTS[layout])
        for i, n in enumerate((n_forget, n_retain))
    ]
    pairs = n_forget if n_forget == n_retain else n_forget * n_retain
    return [*images, draw(pairs, *mask_size, seed=7, dtype=dtype, device=device, scale=3)]


def pixels(n: int, channels: int, size: tuple[int, int], seed: int, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, *size), generator=generator, dtype=torch.uint8).to(device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_value_and_gradients(
    device: str, pairing: str, dtype: torch.dtype, shape: tuple[int, tuple[int, int], tuple[int, int]], layout: str
) -> None:
    inputs = operands(4, 4 if pairing == "zip" else 3, shape, dtype, device, layout)
    compare_with_truth(
        lambda *x: ops.mask_mix(*x, pairing=pairing), lambda *x: reference.mask_mix(*x, pairing=pairing), inputs
    )


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_many_pixels(device: str, pairing: str) -> None:
    """Images of more than one chunk of rows, masks of more than one block, and one pair alone."""
    for n_forget, n_retain in ((1, 1), (17, 17)) if pairing == "zip" else ((1, 2), (2, 3)):
        compare_with_truth(
            lambda *x: ops.mask_mix(*x, pairing=pairing),
            lambda *x: reference.mask_mix(*x, pairing=pairing),
            operands(n_forget, n_retain, (3, (224, 224), (14, 14)), device=device),
        )


@pytest.mark.parametrize("image_dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_mask_logits_of_another_dtype(device: str, image_dtype: torch.dtype) -> None:
    x_f, x_r, _ = operands(3, 3, SHAPES[0], image_dtype, device)
    for mask_dtype in DTYPES:
        mask = draw(3, 8, 8, seed=7, dtype=mask_dtype, device=device, scale=3).requires_grad_()
        mixed = ops.mask_mix(x_f, x_r, mask)
        leaf = mask.detach().double().requires_grad_()
        truth = reference.mask_mix(x_f.double(), x_r.double(), leaf)
        assert mixed.dtype == image_dtype
        assert_close("value", mixed, truth, image_dtype)
        (grad,) = torch.autograd.grad(mixed.float().sum(), mask)
        (true_grad,) = torch.autograd.grad(truth.sum(), leaf)
        assert grad.dtype == mask_dtype
        # The gradient is rounded to the dtype of the mask alone, whatever the images are.
        computed = torch.float64 if image_dtype == torch.float64 else torch.float32
        coarser = max((mask_dtype, computed), key=lambda dtype: torch.finfo(dtype).eps)
        assert_close("gradient", grad, true_grad, coarser)


@pytest.mark.parametrize("dtype", [None, *DTYPES])
@pytest.mark.parametrize("image_dtype", DTYPES)
def test_result_of_another_dtype(device: str, image_dtype: torch.dtype, dtype: torch.dtype | None) -> None:
    inputs = operands(3, 3, (3, (12, 20), (4, 5)), image_dtype, device)
    leaves = [x.clone().requires_grad_() for x in inputs]
    truths = [x.double().requires_grad_() for x in inputs]
    mixed, truth = ops.mask_mix(*leaves, dtype=dtype), reference.mask_mix(*truths)
    assert mixed.dtype == (dtype or image_dtype)
    assert_close("value", mixed, truth, max((mixed.dtype, image_dtype), key=lambda d: torch.finfo(d).eps))
    grads = torch.autograd.grad(mixed, leaves, torch.ones_like(mixed))
    true_grads = torch.autograd.grad(truth, truths, torch.ones_like(truth))
    for index, (grad, true_grad) in enumerate(zip(grads, true_grads, strict=True)):
        assert_close(f"gradient {index}", grad, true_grad, image_dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_8_bit_images_are_normalised_on_the_way(
    device: str, pairing: str, dtype: torch.dtype | None, layout: str
) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    n_retain = 3 if pairing == "grid" else 2
    x_f, x_r = (pixels(n, 3, (11, 21), n + i, device) for i, n in enumerate((2, n_retain)))
    x_f, x_r = (x.contiguous(memory_format=LAYOUTS[layout]) for x in (x_f, x_r))
    mask = draw(2 * n_retain if pairing == "grid" else 2, 4, 5, seed=0, device=device, scale=3).requires_grad_()
    for extra in ({}, {"mean": mean, "std": std}):
        mixed = ops.mask_mix(x_f, x_r, mask, pairing=pairing, dtype=dtype, **extra)  # type: ignore[arg-type]
        scaled = [x.double().cpu() / 255 for x in (x_f, x_r)]
        if extra:
            shift, scale = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
            scaled = [(x - shift) / scale for x in scaled]
        leaf = mask.detach().cpu().double().requires_grad_()
        truth = reference.mask_mix(*scaled, leaf, pairing=pairing)
        assert mixed.dtype == (dtype or torch.float32)
        assert mixed.is_contiguous(memory_format=LAYOUTS[layout])
        assert_close("value", mixed, truth, mixed.dtype)
        cotangent = draw(*mixed.shape, seed=1).to(mixed)
        (grad,) = torch.autograd.grad(mixed, mask, cotangent)
        (true_grad,) = torch.autograd.grad(truth, leaf, cotangent.double().cpu())
        assert_close("gradient", grad, true_grad, torch.float32)
        own = reference.mask_mix(x_f, x_r, mask, pairing=pairing, dtype=dtype, **extra)  # type: ignore[arg-type]
        assert own.dtype == mixed.dtype
        assert_close("reference", own, truth, mixed.dtype)


def test_is_the_equation_written_out() -> None:
    """Eq. 2 with the bilinear weights of align_corners=False, pixel by pixel."""
    x_f, x_r, mask = (x.double() for x in operands(2, 2, (2, (5, 7), (2, 3))))

    def taps(at: int, size: int, mask_size: int) -> list[tuple[int, float]]:
        source = min(max((at + 0.5) * mask_size / size - 0.5, 0.0), mask_size - 1.0)
        first = math.floor(source)
        return [(first, 1 - (source - first)), (min(first + 1, mask_size - 1), source - first)]

    mixed = ops.mask_mix(x_f, x_r, mask)
    for n in range(2):
        for y in range(5):
            for x in range(7):
                logit = sum(a * b * mask[n, i, j].item() for i, a in taps(y, 5, 2) for j, b in taps(x, 7, 3))
                share = 1 / (1 + math.exp(-logit))
                for c in range(2):
                    expected = share * x_f[n, c, y, x].item() + (1 - share) * x_r[n, c, y, x].item()
                    assert mixed[n, c, y, x].item() == pytest.approx(expected, rel=1e-12)


def test_grid_is_all_pairs(device: str) -> None:
    x_f, x_r, mask = operands(3, 2, SHAPES[3], device=device)
    grid = ops.mask_mix(x_f, x_r, mask, pairing="grid")
    pairs = ops.mask_mix(x_f.repeat_interleave(2, 0), x_r.repeat(3, 1, 1, 1), mask)
    assert torch.equal(grid, pairs)


# --- numerical corners -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_inf_of_an_image_stay_in_their_pixel(device: str, value: float) -> None:
    for index in (0, 1):
        inputs = operands(2, 2, (3, (8, 8), (2, 2)), device=device)
        inputs[index][1, 2, 3, 4] = value
        mixed, expected = ops.mask_mix(*inputs), reference.mask_mix(*inputs)
        torch.testing.assert_close(mixed, expected, equal_nan=True)
        finite = torch.isfinite(mixed)
        assert not finite[1, 2, 3, 4] and finite.sum() == finite.numel() - 1
        mask = inputs[2].requires_grad_()
        (grad,) = torch.autograd.grad(ops.mask_mix(*inputs).sum(), mask)
        assert torch.isfinite(grad[0]).all() and not torch.isfinite(grad[1]).all()


def test_nan_of_a_mask_reaches_the_pixels_that_read_it(device: str) -> None:
    x_f, x_r, mask = operands(2, 2, (3, (16, 16), (4, 4)), device=device)
    mask[1, 0, 3] = math.nan
    mixed, expected = ops.mask_mix(x_f, x_r, mask), reference.mask_mix(x_f, x_r, mask)
    assert torch.equal(torch.isnan(mixed), torch.isnan(expected)) and torch.isnan(mixed[1, 0, 0, 15])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], SHAPES[4], SHAPES[5], SHAPES[6]], ids=str)
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_mask_logit_shows_one_image_where_it_has_weight(
    device: str, value: float, shape: tuple[int, tuple[int, int], tuple[int, int]], dtype: torch.dtype
) -> None:
    """And nothing is NaN where the interpolation gives it none."""
    x_f, x_r, mask = operands(2, 2, shape, dtype, device)
    for at in (0, -1):
        own = mask.clone()
        own[0].view(-1)[at] = value
        results = []
        for module in (ops, reference):
            leaves = [x.clone().requires_grad_() for x in (x_f, x_r, own)]
            mixed = module.mask_mix(*leaves)
            results.append([mixed.detach(), *torch.autograd.grad(mixed, leaves, torch.ones_like(mixed))])
            assert all(torch.isfinite(x).all() for x in results[-1])
            corner = (0, ..., 0, 0) if at == 0 else (0, ..., -1, -1)
            assert torch.equal(mixed[corner], (x_f if value > 0 else x_r)[corner])
        for name, mine, theirs in zip(("value", "forget", "retain", "mask"), *results, strict=True):
            assert_close(name, mine, theirs, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_mask_logits(device: str, dtype: torch.dtype) -> None:
    x_f, x_r, _ = operands(4, 4, SHAPES[0], dtype, device)
    mask = torch.tensor([1e4, -1e4, 1e30, 60.0], dtype=dtype, device=device).view(4, 1, 1).expand(4, 8, 8)
    leaves = [x.clone().requires_grad_() for x in (x_f, x_r, mask)]
    mixed = ops.mask_mix(*leaves)
    assert torch.equal(mixed[0], x_f[0]) and torch.equal(mixed[1], x_r[1]) and torch.equal(mixed[2], x_f[2])
    grads = torch.autograd.grad(mixed, leaves, torch.ones_like(mixed))
    assert all(torch.isfinite(grad).all() for grad in grads)
    # Where 1 - sigmoid rounds to 0, the share of the retain image is still known to all digits.
    assert grads[1][3, 0, 0, 0].item() == pytest.approx(math.exp(-60), rel=1e-5)
    assert grads[2][3].abs().sum() > 0


# --- shapes, strides, dtypes at random -------------------------------------------------------------------------------


def laid_out(dense: Tensor, layout: str) -> Tensor:
    """The same values (the same first image, if expanded) in another memory layout."""
    if layout == "channels_last" and dense.dim() == 4:
        return dense.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return dense.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "sliced":
        padded = dense.new_full([n + 2 for n in dense.shape], math.nan)
        inner = padded[tuple(slice(1, -1) for _ in dense.shape)]
        inner.copy_(dense)
        return inner
    if layout == "stepped":
        wide = dense.new_full((2 * dense.shape[0], *dense.shape[1:]), math.nan)
        wide[::2] = dense
        return wide[::2]
    if layout == "expanded":
        return dense[:1].expand_as(dense)
    return dense


MEMORY = ["contiguous", "channels_last", "transposed", "sliced", "stepped", "expanded"]
side = st.integers(1, 20)


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shape=st.tuples(st.integers(1, 5), st.tuples(side, side), st.tuples(side, side)),
    dtype=st.sampled_from(DTYPES),
    layouts=st.tuples(*[st.sampled_from(MEMORY)] * 4),
    zipped=st.booleans(),
)
def test_any_layout_agrees_with_the_reference(
    device: str,
    pairs: tuple[int, int],
    shape: tuple[int, tuple[int, int], tuple[int, int]],
    dtype: torch.dtype,
    layouts: tuple[str, ...],
    zipped: bool,
) -> None:
    n_forget, n_retain = (pairs[0], pairs[0]) if zipped else pairs
    channels, size, mask_size = shape
    extra: dict[str, Any] = {"pairing": "zip" if zipped else "grid"}
    count = n_forget if zipped else n_forget * n_retain
    shapes = [(n_forget, channels, *size), (n_retain, channels, *size), (count, *mask_size), (count, channels, *size)]
    *inputs, cotangent = (
        laid_out(draw(*s, seed=i, dtype=dtype, device=device, scale=2), layout)
        for i, (s, layout) in enumerate(zip(shapes, layouts, strict=True))
    )
    agree_with_truth(
        lambda *x: ops.mask_mix(*x, **extra), lambda *x: reference.mask_mix(*x, **extra), inputs, cotangent
    )


@pytest.mark.parametrize("x_f_layout", LAYOUTS)
@pytest.mark.parametrize("x_r_layout", LAYOUTS)
def test_channels_last_out_where_both_images_are(device: str, x_f_layout: str, x_r_layout: str) -> None:
    x_f, x_r, mask = operands(2, 2, SHAPES[0], device=device)
    x_f, x_r = x_f.contiguous(memory_format=LAYOUTS[x_f_layout]), x_r.contiguous(memory_format=LAYOUTS[x_r_layout])
    leaves = [x.detach().requires_grad_() for x in (x_f, x_r)]
    mixed = ops.mask_mix(*leaves, mask)
    both = x_f_layout == x_r_layout == "channels_last"
    grads = torch.autograd.grad(mixed, leaves, torch.ones_like(mixed))
    for tensor in (mixed, *grads):
        assert tensor.is_contiguous(memory_format=LAYOUTS["channels_last" if both else "contiguous"])


# --- what all operators are tested for ------------------------------------------------------------------------------


def _mask_mix(pairing: str, images: str) -> Problem:
    grid = pairing == "grid"

    def tensors(
        size: tuple[int, int, tuple[int, int], tuple[int, int]], dtype: torch.dtype, device: str, seed: int
    ) -> list[Tensor]:
        n_forget, n_retain, image, mask = size
        counts = (n_forget, n_retain if grid else n_forget)
        pairs = counts[0] * counts[1] if grid else n_forget
        logits = draw(pairs, *mask, seed=seed, dtype=dtype, device=device, scale=3)
        if images == "bytes":
            return [logits, *(pixels(n, 3, image, seed + i, device) for i, n in enumerate(counts, 1))]
        both = [
            draw(n, 3, *image, seed=seed + i, dtype=dtype, device=device).contiguous(memory_format=LAYOUTS[images])
            for i, n in enumerate(counts, 1)
        ]
        return [*both, logits]

    def mix(module: Any, *x: Tensor) -> Tensor:
        mixed: Tensor = module.mask_mix(*x, pairing=pairing)
        return mixed

    def mix_bytes(module: Any, logits: Tensor, x_f: Tensor, x_r: Tensor) -> Tensor:
        # Numbers written out, as above.
        mixed: Tensor = module.mask_mix(
            x_f, x_r, logits, pairing=pairing, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), dtype=logits.dtype
        )
        return mixed

    sizes = (
        (2, 3, (4, 3), (2, 2)),
        # Sizes that are all different: equal ones would be traced as one and the same.
        (4, 5, (12, 10), (6, 7)),
        (6, 7, (16, 14), (8, 9)),
        (7, 8, (20, 22), (5, 11)),
        (9, 10, (31, 18), (12, 13)),
        (4, 5, (32, 32), (8, 8)),
    )
    sizeless = ((4, 4), (2, 2))
    empty = ((0, 0, *sizeless), (0, 3, *sizeless), (3, 0, *sizeless)) if grid else ((0, 0, *sizeless),)
    names = f"mask_mix-{pairing}-{images}"
    if images == "bytes":
        return Problem(names, 1, sizes, empty, tensors, mix_bytes)
    return Problem(names, 3, sizes, empty, tensors, mix)


PROBLEMS = [
    _mask_mix(*each) for each in (("zip", "contiguous"), ("grid", "channels_last"), ("zip", "bytes"), ("grid", "bytes"))
]

B = torch.zeros(2, 3, 8, 6, dtype=torch.uint8)
X, M = torch.zeros(2, 3, 8, 6), torch.zeros(2, 2, 3)
WIDE = torch.zeros(2, 65, 2, 2, dtype=torch.uint8)

BAD_ARGUMENTS: list[Refusal] = [
    (lambda f: f.mask_mix([1.0], X, M), TypeError, "x_forget must be a tensor, got list"),
    (lambda f: f.mask_mix(X.int(), X, M), TypeError, "x_forget must be float32, .* or uint8, got torch.int32"),
    (lambda f: f.mask_mix(X[0], X, M), ValueError, r"x_forget must have shape \[N, C, H, W\], got \[3, 8, 6\]"),
    (lambda f: f.mask_mix(X, X.double(), M), TypeError, "x_retain must have the dtype of x_forget"),
    (lambda f: f.mask_mix(X, B, M), TypeError, "x_retain must have the dtype of x_forget"),
    (lambda f: f.mask_mix(X, X[..., :5], M), ValueError, r"images of shape \[3, 8, 6\], got \[3, 8, 5\]"),
    (lambda f: f.mask_mix(X[..., :0], X[..., :0], M), ValueError, "x_forget must have C, H and W of at least 1"),
    (lambda f: f.mask_mix(X, X[:1], M), ValueError, "zip pairing needs as many .* got 2 and 1"),
    (lambda f: f.mask_mix(X, X, M, pairing="grid"), ValueError, "mask_logits must have 4 rows, .* got 2"),
    (lambda f: f.mask_mix(X, X, M, pairing="all"), ValueError, "pairing must be one of 'zip', 'grid', got 'all'"),
    (lambda f: f.mask_mix(X, X, M[0]), ValueError, r"mask_logits must have shape \[P, h, w\], got \[2, 3\]"),
    (lambda f: f.mask_mix(X, X, M.int()), TypeError, "mask_logits must be float32, .* got torch.int32"),
    (lambda f: f.mask_mix(X, X, M[:, :0]), ValueError, "mask_logits must have h and w of at least 1"),
    (lambda f: f.mask_mix(X, X, M.to("meta")), ValueError, "x_forget must be on the device of mask_logits"),
    (lambda f: f.mask_mix(X, X, M, mean=(0,) * 3), ValueError, "mean and std must be given together"),
    (lambda f: f.mask_mix(X, X, M, mean=(0,) * 3, std=(1,) * 3), TypeError, "mean and std are for uint8 images"),
    (lambda f: f.mask_mix(B, B, M, mean=(0, 0), std=(1,) * 3), ValueError, "mean must have 3 values, .* got 2"),
    (lambda f: f.mask_mix(B, B, M, mean=(0,) * 3, std=(1, 0, 1)), ValueError, r"std must be above 0, got \[1, 0"),
    (lambda f: f.mask_mix(B, B, M, mean=M[0, 0], std=(1,) * 3), TypeError, "mean must be a sequence of numbers"),
    (lambda f: f.mask_mix(B, B, M, mean=("a",) * 3, std=(1,) * 3), TypeError, "mean must be a sequence of numbers"),
    (lambda f: f.mask_mix(B, B, M, dtype=torch.uint8), TypeError, "dtype must be float32, .* got torch.uint8"),
    (
        lambda f: f.mask_mix(WIDE, WIDE, M, mean=(0.0,) * 65, std=(1.0,) * 65),
        ValueError,
        "up to 64 channels, got 65",
    ),
    *(
        (lambda f, call=call: call(f), TypeError, f"{name} must be a dense tensor, got layout torch.sparse")
        for name, call in (
            ("x_retain", lambda f: f.mask_mix(X, X.to_sparse(), M)),
            ("mask_logits", lambda f: f.mask_mix(X, X, M.to_sparse())),
        )
    ),
]
