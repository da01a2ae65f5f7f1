"""The losses, forward and backward together, beside PyTorch's own formulation, plain and under torch.compile.

    pytest benchmarks/test_bench_losses.py --benchmark-group-by=group

The rivals compute the same numbers from softmax, cosine_similarity and logsumexp; this is checked before timing.
Set OMP_NUM_THREADS to compare at a given number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn import ops

LAM, TAU_MIX, TAU_REAL = 0.3, 10.0, 5.0
SIZES = [(32, 10), (1024, 1000)]


def lean_mix(logits: Tensor, target_forget: Tensor, target_retain: Tensor) -> Tensor:
    probabilities = torch.softmax(logits, dim=1)
    s_forget = 1 - F.cosine_similarity(probabilities, target_forget)
    s_retain = 1 - F.cosine_similarity(probabilities, target_retain)
    return ((1 - LAM) * s_retain).sum() - len(logits) * torch.logsumexp(LAM * s_forget / TAU_MIX, 0)


def fused_mix(logits: Tensor, target_forget: Tensor, target_retain: Tensor) -> Tensor:
    return ops.mix_contrastive_loss(logits, target_forget, target_retain, LAM, TAU_MIX)


def lean_real(logits: Tensor, target_forget: Tensor, target_retain: Tensor) -> Tensor:
    s_forget = 1 - F.cosine_similarity(torch.softmax(logits, dim=1), target_forget)
    s_retain = 1 - F.cosine_similarity(torch.softmax(logits, dim=1), target_retain)
    return s_retain.sum() - len(logits) * torch.logsumexp(s_forget / TAU_REAL, 0)


def fused_real(logits: Tensor, target_forget: Tensor, target_retain: Tensor) -> Tensor:
    return ops.real_contrastive_loss(logits, logits, target_forget, target_retain, TAU_REAL)


PROVIDERS: dict[str, dict[str, Callable[..., Tensor]]] = {
    "mix": {"fused": fused_mix, "pytorch": lean_mix, "compile": lean_mix},
    "real": {"fused": fused_real, "pytorch": lean_real, "compile": lean_real},
}


@pytest.mark.parametrize("provider", ["fused", "pytorch", "compile"])
@pytest.mark.parametrize(("rows", "classes"), SIZES, ids=[f"{n}x{c}" for n, c in SIZES])
@pytest.mark.parametrize("loss", ["mix", "real"])
def test_forward_and_backward(benchmark: BenchmarkFixture, loss: str, rows: int, classes: int, provider: str) -> None:
    benchmark.group = f"{loss} loss, {rows} x {classes}, forward + backward"
    benchmark.extra_info.update(threads=torch.get_num_threads(), torch=torch.__version__, **ops.status().facts)
    generator = torch.Generator().manual_seed(0)
    logits, forget, retain = (torch.randn(rows, classes, generator=generator) for _ in range(3))
    arguments = (logits.requires_grad_(), forget.softmax(1), retain.softmax(1))
    function = PROVIDERS[loss][provider]
    torch.testing.assert_close(function(*arguments), PROVIDERS[loss]["pytorch"](*arguments))
    if provider == "compile":
        function = torch.compile(function)

    def step() -> None:
        logits.grad = None
        function(*arguments).backward()

    for _ in range(20):
        step()
    benchmark(step)
