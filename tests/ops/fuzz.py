"""Random calls of the operators against their float64 twins: sizes, dtypes, magnitudes and numbers at the edges."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.agreement import agree_with_truth
from tests.ops.problems import PROBLEMS

#: Powers of ten that target directions are multiplied by; float16 has no more.
MAGNITUDES = {
    torch.float64: (-120, 0, 120),
    torch.float32: (-30, -20, 0, 20, 30),
    torch.bfloat16: (-30, -20, 0, 20, 30),
    torch.float16: (-2, 0, 3),
}


class Call(NamedTuple):
    """What hypothesis draws of a call, and shrinks."""

    problem: int
    counts: tuple[int, int]
    shape: tuple[int, int, int]
    dtype: torch.dtype
    magnitude: int
    ratio: float
    tau: float
    infinities: tuple[float, ...]
    seed: int


CALLS = st.builds(
    Call,
    problem=st.integers(0, len(PROBLEMS) - 1),
    counts=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from(list(MAGNITUDES)),
    magnitude=st.integers(0, 4),
    ratio=st.sampled_from([0.0, 1e-6, 0.3, 0.5, 1.0]),
    tau=st.sampled_from([0.05, 0.5, 1.0, 10.0, 1e4]),
    infinities=st.lists(st.sampled_from([math.inf, -math.inf]), max_size=2).map(tuple),
    seed=st.integers(0, 2**20),
)


def check(call: Call) -> None:
    """Raise unless value and gradients of the call are those of its twin in float64."""
    problem = PROBLEMS[call.problem]
    (n_forget, n_retain), (a, b, c) = call.counts, call.shape
    magnitudes = MAGNITUDES[call.dtype]
    size: Any = (n_forget, n_retain, a)
    if problem.name.startswith("mask_mix"):
        size = (n_forget, n_retain, (a, b), (c, 1 + (a + b) % 7))
    elif problem.name.startswith("attention"):
        size = (n_forget, n_retain, a, b, c)
    tensors = problem.draw(size, call.dtype, seed=call.seed, grad=False)
    for i, tensor in enumerate(tensors):
        target = i >= problem.differentiable and tensor.dim() == 2 and tensor.is_floating_point()
        if target and "probabilities" in problem.name and "grid" not in problem.name:
            tensor *= 10.0 ** magnitudes[call.magnitude % len(magnitudes)]
        elif i >= problem.differentiable and tensor.is_floating_point() and tensor.dim() == 0:
            tensor.fill_(call.tau)
        elif problem.name.startswith("zip") and tensor.dim() == 1 and tensor.is_floating_point():
            tensor.fill_(call.ratio)
    if problem.name.startswith("mask_mix"):
        # Whole masks: PyTorch rounds the weights of its interpolation, so one infinity may reach one pixel further.
        masks = tensors[0 if "bytes" in problem.name else 2]
        for at, infinity in enumerate(call.infinities[: len(masks)]):
            masks[(call.seed + at) % len(masks)] = infinity
    leaves, constants = problem.split(tensors)

    def twin(*own: torch.Tensor) -> torch.Tensor:
        wide = [x.double() if x.is_floating_point() else x for x in constants]
        return problem.call(reference, *own, *wide)

    agree_with_truth(problem.bound(ops, constants), twin, leaves, None)
