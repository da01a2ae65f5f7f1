"""Rounds of training steps, the twin of ``mixunlearn-cli bench step``.

    pytest benchmarks/test_bench_step.py --benchmark-group-by=group

A round is as many steps as there are between two updates of the generator. Set OMP_NUM_THREADS to compare at a given
number of threads; ``-k cnn`` leaves the large networks out.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from pymixunlearn import ops
from pymixunlearn.benchmarking.step.measure import PROVIDERS, STEP_CASES, rounds


@pytest.mark.parametrize("provider", list(PROVIDERS))
@pytest.mark.parametrize("name", list(STEP_CASES))
def test_round(benchmark: BenchmarkFixture, name: str, provider: str) -> None:
    case = STEP_CASES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = case.batch if device.type == "cuda" else case.cpu_batch
    benchmark.group = f"{name}, batch {batch}, {device.type}"
    benchmark.extra_info.update(threads=torch.get_num_threads(), torch=torch.__version__, **ops.status().facts)
    with rounds(case, batch=batch, device=device) as (jobs, _, _):
        if provider not in jobs:
            pytest.skip("this network has no such loop")
        job = jobs[provider]

        def run() -> None:
            job.forward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        benchmark.pedantic(run, rounds=5, iterations=1, warmup_rounds=2)
