"""One small case for each way that the CUDA kernels are launched: what csrc/tools/cuda_sanitizer.sh runs.

Inputs are made on the host and the comparison is there too, so that compute-sanitizer watches little but our kernels.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.agreement import assert_close
from tests.ops.problem import Problem
from tests.ops.problems import PROBLEMS

F, R = 3, 5  # forget and retain images

# Part of a warp for each row; a warp, in packs and element by element; a whole block.
CLASSES = [10, 96, 101, 8200]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def random(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def target(kind: str, rows: int, classes: int, seed: int) -> Tensor:
    if kind == "labels":
        return torch.arange(seed, seed + rows) % classes
    return random(rows, classes, seed=seed) if kind == "teacher" else random(rows, classes, seed=seed).softmax(1)


def losses(kind: str, classes: int, inputs: torch.dtype, compute: torch.dtype, device: str) -> list[Tensor]:
    """Values and gradients of every loss, from inputs rounded to ``inputs`` and computed in ``compute``."""

    def place(x: Tensor) -> Tensor:
        return (x if x.dtype == torch.int64 else x.to(inputs).to(compute)).to(device)

    def with_gradients(loss: Tensor, weight: Tensor, *logits: Tensor) -> list[Tensor]:
        return [loss.detach(), *torch.autograd.grad(loss, logits, place(weight))]

    sharpen_T = 0.5 if kind == "teacher" else None
    forget, retain = (place(target(kind, n, classes, seed=n)) for n in (F, R))
    if kind == "wide" and compute.itemsize == 2:  # half-precision logits with float32 targets
        forget, retain = forget.float(), retain.float()
    zip_z, grid_z = place(random(R, classes, seed=1)), place(random(F, R, classes, seed=2))
    forget_z = place(random(F, classes, seed=3))
    lam, one = place(torch.linspace(0, 1, F * R).to(torch.float64).reshape(F, R)), torch.ones(())
    for z in (zip_z, grid_z, forget_z):
        z.requires_grad_()
    results = with_gradients(ops.sim_loss(zip_z, retain, sharpen_T=sharpen_T), torch.arange(R).double(), zip_z)
    zipped = ops.mix_contrastive_loss(zip_z, retain, retain.flip(0), 0.4, 0.5, sharpen_T=sharpen_T)
    grid = ops.mix_contrastive_loss(grid_z, forget, retain, lam, 0.5, pairing="grid", sharpen_T=sharpen_T)
    real = ops.real_contrastive_loss(forget_z, zip_z, forget, retain, 0.5, sharpen_T=sharpen_T)
    results += with_gradients(zipped, one, zip_z) + with_gradients(grid, one, grid_z)
    results += with_gradients(real, one, forget_z, zip_z)
    if kind == "probabilities":
        results += with_gradients(ops.sharpen(grid_z, 0.5), random(F, R, classes, seed=4), grid_z)
    return results


@pytest.mark.parametrize("problem", PROBLEMS, ids=[problem.name for problem in PROBLEMS])
def test_every_operator(device: str, problem: Problem) -> None:
    """A new operator is here by itself; the tests below reach every launch of those that there are."""
    tensors = problem.draw(problem.sizes[1], grad=False)
    truth = problem.results(*(x.double() if x.is_floating_point() else x for x in tensors), module=reference)
    actual = problem.results(*(x.to(device) for x in tensors))
    for n, (result, expected) in enumerate(zip(actual, truth, strict=True)):
        assert_close(f"result {n}", result, expected, torch.float32)


@pytest.mark.parametrize("kind", ["probabilities", "wide", "labels", "teacher"])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_loss_launch(device: str, dtype: torch.dtype, classes: int, kind: str) -> None:
    truth = losses(kind, classes, dtype, torch.float64, "cpu")
    for n, (actual, expected) in enumerate(zip(losses(kind, classes, dtype, dtype, device), truth, strict=True)):
        assert_close(f"result {n}", actual, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_too_many_for_one_block(device: str, dtype: torch.dtype) -> None:
    """The loss is then a kernel of its own, which adds up in several stretches, and the gradient waits for it."""
    rows, classes = 5000, 10

    def loss(compute: torch.dtype, where: str) -> list[Tensor]:
        targets = [random(rows, classes, seed=n).softmax(1).to(dtype).to(compute).to(where) for n in (1, 2)]
        z = random(rows, classes, seed=3).to(dtype).to(compute).to(where).requires_grad_()
        mixed = ops.mix_contrastive_loss(z, *targets, 0.4, 0.5, reduction="mean")
        real = ops.real_contrastive_loss(z, z.flip(0), *targets, 0.5, reduction="mean")
        return [mixed.detach(), real.detach(), *torch.autograd.grad(mixed + real, z)]

    for n, (actual, expected) in enumerate(zip(loss(dtype, device), loss(torch.float64, "cpu"), strict=True)):
        assert_close(f"result {n}", actual, expected, dtype)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "odd", "tiles", "bytes"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_mix_launch(device: str, dtype: torch.dtype, layout: str, pairing: str) -> None:
    """Images in packs, with interleaved channels, element by element, in several tiles, of 8 bits; all gradients."""
    height, width = {"odd": (7, 9), "tiles": (9, 520)}.get(layout, (16, 24))
    n_forget, n_retain, pairs = (F, R, F * R) if pairing == "grid" else (R, R, R)
    grad = random(pairs, 3, height, width, seed=4).to(dtype)

    def mix(compute: torch.dtype, where: str) -> list[Tensor]:
        images = [random(n, 3, height, width, seed=n).to(dtype) for n in (n_forget, n_retain)]
        keywords: dict[str, object] = {"pairing": pairing}
        if layout == "bytes":
            images = [(50 * image.float() + 128).clamp(0, 255).to(torch.uint8).to(where) for image in images]
            keywords |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "dtype": compute}
        else:
            memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            images = [image.to(compute).contiguous(memory_format=memory).to(where) for image in images]
        masks = random(pairs, 3, 4, seed=3).to(dtype).to(compute).to(where).requires_grad_()
        inputs = [masks] if layout == "bytes" else [masks, *(image.requires_grad_() for image in images)]
        mixed = ops.mask_mix(*images, masks, **keywords)  # type: ignore[arg-type]
        return [mixed.detach(), *torch.autograd.grad(mixed, inputs, grad.to(compute).to(where))]

    for n, (actual, expected) in enumerate(zip(mix(dtype, device), mix(torch.float64, "cpu"), strict=True)):
        assert_close(f"result {n}", actual, expected, dtype)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
@pytest.mark.parametrize("channels", [5, 64, 150])
@pytest.mark.parametrize(("height", "width"), [(6, 13), (8, 12)])
@pytest.mark.parametrize("dtype", [*DTYPES, "tf32"])
def test_every_attention_launch(
    device: str, dtype: torch.dtype | str, height: int, width: int, channels: int, pairing: str
) -> None:
    """Fewer channels than a tile, one chunk of them, several; more tokens than a tile; values and all six gradients.

    Rows of 6 x 13 halves begin where copies of 8 bytes cannot, those of 8 x 12 where they can.
    """
    counts = (F, R) if pairing == "grid" else (R, R)
    rounded = torch.float32 if isinstance(dtype, str) else dtype
    grad = random(F * R if pairing == "grid" else R, height, width, seed=9).to(rounded)

    def attend(compute: torch.dtype, where: str) -> list[Tensor]:
        inputs = []
        for n, count in enumerate(counts):
            maps = random(count, 2 * channels + 1, height, width, seed=n).div(2).to(rounded).to(compute).to(where)
            inputs += [maps[:, :channels], maps[:, channels:-1], maps[:, -1]]
        inputs = [x.detach().requires_grad_() for x in inputs]
        mask = ops.mixblock_attention(*inputs, pairing=pairing)
        return [mask.detach(), *torch.autograd.grad(mask, inputs, grad.to(compute).to(where))]

    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = isinstance(dtype, str)
        found = attend(rounded, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    for n, (actual, expected) in enumerate(zip(found, attend(torch.float64, "cpu"), strict=True)):
        assert_close(f"result {n}", actual, expected, torch.bfloat16 if isinstance(dtype, str) else dtype)
