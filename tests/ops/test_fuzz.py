"""A few hundred random calls, the same ones in every run; ``benchmarks/fuzz_operators.py`` makes as many as wanted."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.ops.fuzz import CALLS, Call, check


@settings(max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(CALLS)
def test_random_calls_agree_with_their_float64_twins(call: Call) -> None:
    check(call)
