"""The grid of cases, the traffic that they cannot avoid, and the memory that they may need."""

from __future__ import annotations

import pytest
import torch

from pymixunlearn.benchmarking.memory import peak_memory
from pymixunlearn.benchmarking.ops import DTYPES, OPERATORS, SIZES, Case, grid
from pymixunlearn.benchmarking.ops.problems import build, runnable

CPU = torch.device("cpu")
IMAGES = 32 * 3 * 224 * 224
MASKS = 14 * 14
PROJECTIONS = 2 * 32 * (2 * 128 + 1) * MASKS


def test_the_grid_has_every_operator_pairing_size_and_dtype_once() -> None:
    every = list(grid(SIZES, DTYPES))
    pairings = sum(map(len, OPERATORS.values()))
    assert len(every) == len({case.name for case in every}) == pairings * len(SIZES) * len(DTYPES)
    assert {case.op for case in every} == set(OPERATORS)


def test_large_has_as_many_pairs_in_either_pairing() -> None:
    assert {case.pairs for case in grid(["large"], ["float32"])} == {256 * 256}


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("sharpen--medium-float32", 2 * 32_000 * 4, 3 * 32_000 * 4),
        ("sim_loss--medium-bfloat16", 2 * 32_000 * 2, 3 * 32_000 * 2),
        ("real_contrastive_loss--medium-float32", 4 * 32_000 * 4, 6 * 32_000 * 4),
        ("mix_contrastive_loss-zip-medium-float32", 3 * 32_000 * 4, 4 * 32_000 * 4),
        ("mix_contrastive_loss-grid-medium-float64", (1024 + 64) * 1000 * 8, (2 * 1024 + 64) * 1000 * 8),
        ("mask_mix-zip-medium-float32", 4 * (3 * IMAGES + 32 * MASKS), 4 * (3 * IMAGES + 64 * MASKS)),
        (
            "mask_mix-grid-medium-float16",
            2 * ((2 + 32) * IMAGES + 1024 * MASKS),
            2 * ((2 + 32) * IMAGES + 2048 * MASKS),
        ),
        ("mixblock_attention-zip-medium-float32", 4 * (PROJECTIONS + 32 * MASKS), 4 * (2 * PROJECTIONS + 32 * MASKS)),
        (
            "mixblock_attention-grid-medium-float32",
            4 * (PROJECTIONS + 1024 * MASKS),
            4 * (2 * PROJECTIONS + 1024 * MASKS),
        ),
    ],
)
def test_bytes_that_cannot_be_avoided(name: str, forward: int, backward: int) -> None:
    case = Case(*name.split("-"))
    assert case.traffic("forward").bytes == forward
    assert case.traffic("backward").bytes == backward
    assert case.traffic("both").bytes == forward + backward


def test_only_the_attention_counts_operations() -> None:
    case = Case("mixblock_attention", "grid", "medium", "float32")
    assert case.traffic("forward").operations == 4 * 1024 * 196**2 * 128
    assert case.traffic("backward").operations == 12 * 1024 * 196**2 * 128
    others = [other for other in grid(SIZES, ["float32"]) if other.op != case.op]
    assert not any(other.traffic("both").operations for other in others)


def test_building_twice_gives_the_same_inputs(tiny: None) -> None:
    case = Case("mask_mix", "grid", "small", "float32")
    first, second = build(case, CPU), build(case, CPU)
    torch.testing.assert_close(first.arguments, second.arguments, rtol=0, atol=0)
    assert [tensor.requires_grad for tensor in first.arguments] == [False, False, True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", OPERATORS)
def test_no_provider_needs_more_memory_than_the_bound(op: str, dtype: str) -> None:
    for pairing in OPERATORS[op]:
        case = Case(op, pairing, "small", dtype)
        problem = build(case, CPU)
        inputs = sum(tensor.nbytes for tensor in (*problem.arguments, problem.cotangent))
        for provider in problem.functions:
            peaks = peak_memory(runnable(problem, provider), CPU)[0]
            # The compared results of two providers may be alive at once.
            results = 2 * problem.cotangent.nbytes
            assert 0 < peaks.both + inputs + results <= case.memory(fused=provider == "fused"), (case.name, provider)
