"""Call the operators at random and compare with their float64 twins: ``python benchmarks/fuzz_operators.py``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.ops.fuzz import CALLS, check  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    start = time.perf_counter()
    limits = settings(max_examples=chosen.calls, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(chosen.seed)(limits(given(CALLS)(check)))()
    print(f"{chosen.calls} calls agree with their float64 twins ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
