"""A deletion request on the digits and Retrain for it, the twin of ``mixunlearn-cli bench end-to-end``.

pytest benchmarks/test_bench_end_to_end.py
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pymixunlearn.experiments import Observer, UnlearnInputs, resolve_unlearning
from pymixunlearn.experiments.common.stages import train_initial
from pymixunlearn.methods import Method, Retrain, RetrainConfig


@pytest.mark.parametrize("provider", ["unlearn", "Retrain"])
def test_request(benchmark: BenchmarkFixture, provider: str) -> None:
    plan = resolve_unlearning(UnlearnInputs(stop="auto"))
    assert plan.initial_config is not None and plan.retrain_config is not None
    initial = train_initial(
        plan.initial.architecture,
        plan.split.training_set,
        plan.split.preprocess,
        plan.initial_config,
        device=plan.device,
        seed=0,
        observer=Observer(),
    )
    method: Method = plan.method if provider == "unlearn" else Retrain(RetrainConfig.of(plan.retrain_config))
    benchmark.pedantic(lambda: method.unlearn(initial.model, plan.split, device=plan.device), rounds=3, warmup_rounds=1)
