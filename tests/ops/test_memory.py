"""What the operators promise of memory: nothing of the size that the equations' intermediates would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.benchmarking.memory import Peaks, peak_memory, peak_resident
from pymixunlearn.benchmarking.ops.problems import Job
from tests.ops.test_attention import inputs_of
from tests.ops.test_losses import KINDS, LOSSES, keywords, logits_for, loss_of, targets_of
from tests.ops.test_mask_mix import draw, pixels

# Sizes are such that what a GPU's allocator hands out beyond what is asked for, up to 1 MiB each time, does not count.


def with_gradients(operator: Callable[..., Tensor], leaves: list[Tensor]) -> Job:
    """The operator and the gradients for its arguments, as training has them."""
    own = [leaf.detach().requires_grad_() for leaf in leaves]

    def backward(result: Tensor) -> Any:
        return torch.autograd.grad(result, own, result.detach())

    return Job(lambda: operator(*own), backward)


def peaks_of(operator: Callable[..., Tensor], leaves: list[Tensor]) -> Peaks:
    return peak_memory(with_gradients(operator, leaves), leaves[0].device)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_materialise_no_target(device: str, loss: str, kind: str, dtype: torch.dtype) -> None:
    """Neither one-hot rows, nor sharpened ones, nor in grid pairing one for each mixed sample."""
    rows = {"grid": 64, "real": 2048}.get(loss, 4096)
    logits = logits_for(loss, rows, rows, 1000, dtype, device)
    forget, retain = (targets_of(kind, rows, 1000, seed, dtype, device) for seed in (1, 2))
    peaks = peaks_of(lambda *z: loss_of(ops, loss, z, forget, retain, **keywords(kind)), logits)
    size = sum(z.nbytes for z in logits)
    assert 0 < peaks.forward < size / 4
    assert size <= peaks.backward < 1.25 * size  # the gradients


def images_and_mask(pairing: str, images: str, size: int, device: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """``mask_mix`` of 64 pairs of images, float or of bytes, as a function of what it is differentiated for."""
    n = 8 if pairing == "grid" else 64
    if images == "bytes":
        x_f, x_r = (pixels(n, 3, (size, size), seed, device) for seed in (0, 1))
        extra: dict[str, Any] = {"pairing": pairing, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
        return lambda mask: ops.mask_mix(x_f, x_r, mask, **extra), [draw(64, 14, 14, seed=0, device=device)]
    dtype = torch.bfloat16 if images == "bfloat16" else torch.float32
    x_f, x_r = (draw(n, 3, size, size, seed=seed, dtype=dtype, device=device) for seed in (0, 1))
    return lambda *x: ops.mask_mix(*x, pairing=pairing), [x_f, x_r, draw(64, 14, 14, seed=0, device=device)]


@pytest.mark.parametrize("images", ["float32", "bfloat16", "bytes"])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_mask_mix_has_no_intermediate_of_the_size_of_images(device: str, pairing: str, images: str) -> None:
    """Neither upsampled masks, nor repeated images, nor floating ones of bytes: nothing but results."""
    operator, leaves = images_and_mask(pairing, images, 224, device)
    peaks = peaks_of(operator, leaves)
    mixed = 64 * 3 * 224 * 224 * (2 if images == "bfloat16" else 4)
    mask = 64 * 224 * 224 * 2  # one upsampled in half precision
    assert mixed <= peaks.forward < mixed + mask / 2
    assert peaks.backward < mixed + sum(leaf.nbytes for leaf in leaves) + mask / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_attention_has_no_scores_of_all_positions(device: str, pairing: str, dtype: torch.dtype) -> None:
    height, width = 48, 48
    leaves = inputs_of(2, 2, 8, height, width, dtype, device)
    peaks = peaks_of(lambda *x: ops.mixblock_attention(*x, pairing=pairing), leaves)
    scores = (height * width) ** 2 * dtype.itemsize  # of one pair in one direction
    assert 0 < peaks.both < scores / 4


def test_kernels_of_the_cpu_allocate_no_such_thing_for_themselves() -> None:
    """The same where PyTorch does not see it: in the memory of the process."""
    mix, mix_leaves = images_and_mask("grid", "float32", 512, "cpu")
    mixed, mask = (64 * channels * 512 * 512 * 4 for channels in (3, 1))
    results = mixed + sum(leaf.nbytes for leaf in mix_leaves)
    positions = 100 * 100
    attention = with_gradients(ops.mixblock_attention, inputs_of(1, 1, 2, 100, 100))
    for job, bound in ((with_gradients(mix, mix_leaves), results + mask / 2), (attention, positions**2 * 4 / 4)):
        _, peak = peak_resident(lambda job=job: job.backward(job.forward()), torch.device("cpu"))  # type: ignore[misc]
        assert peak is None or peak < bound
