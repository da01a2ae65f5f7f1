"""The operators and their rivals under pytest-benchmark: the cases of ``mixunlearn-cli bench ops``.

    pytest benchmarks/test_bench_ops.py -k small-float32 --benchmark-group-by=group
    pytest benchmarks/test_bench_ops.py -m "not large"

The command compares providers within one run and is what docs/performance.md is made with; this suite is for looking at
single ones, and for pytest-benchmark's own comparisons between versions. Set OMP_NUM_THREADS to fix the threads.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from pymixunlearn import ops
from pymixunlearn.benchmarking.memory import available_memory
from pymixunlearn.benchmarking.ops import PROVIDERS, SIZES, Case, grid
from pymixunlearn.benchmarking.ops.agreement import check_agreement
from pymixunlearn.benchmarking.ops.cases import MODES
from pymixunlearn.benchmarking.ops.problems import build, runnable

DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
CASES = [
    pytest.param(
        case, provider, id=f"{case.name}-{provider}", marks=[pytest.mark.large] if case.size == "large" else []
    )
    for case in grid(SIZES, ("float32", "bfloat16"))
    for provider in PROVIDERS
    if not provider.startswith("sdpa") or case.op == "mixblock_attention"
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("case", "provider"), CASES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_op(benchmark: BenchmarkFixture, device: torch.device, case: Case, provider: str, mode: str) -> None:
    free = available_memory(device)
    need = case.memory(fused=provider == "fused")
    if free is not None and need > free:
        pytest.skip(f"may need {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
    benchmark.group = f"{case.name} {mode} {device}"
    benchmark.extra_info.update(threads=torch.get_num_threads(), torch=torch.__version__, **ops.status().facts)
    torch.compiler.reset()
    problem = build(case, device)
    fused, job = runnable(problem, "fused"), runnable(problem, provider)
    expected, actual = ((value := each.forward(), *each.backward(value)) for each in (fused, job))
    check_agreement(provider, expected, actual)
    del expected, actual

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def forward() -> Any:
        result = job.forward()
        wait()
        return result

    def backward(result: Any) -> None:
        job.backward(result)
        wait()

    if mode == "forward":
        benchmark(forward)
    elif mode == "both":
        benchmark(lambda: backward(job.forward()))
    else:
        benchmark.pedantic(backward, setup=lambda: ((forward(),), {}), rounds=20, warmup_rounds=3)
