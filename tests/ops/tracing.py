"""What the tests of ``torch.compile`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend


def check_compiled(
    function: Callable[..., Tensor],
    draws: Iterable[Sequence[Any]],
    *,
    graphs: int,
    backend: str = "aot_eager",
    dynamic: bool | None = None,
) -> None:
    """Compiled without a break, ``function`` gives on all draws of its arguments what it gives by itself.

    Values and gradients; and for that it is traced exactly ``graphs`` times. Without ``dynamic`` these are two: one for
    the first sizes, one for all others.
    """
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(function, backend=counter, fullgraph=True, dynamic=dynamic)
    for arguments in draws:
        plain, traced = ([_own(argument) for argument in arguments] for _ in range(2))
        expected, actual = function(*plain), compiled(*traced)
        assert actual.stride() == expected.stride()
        for result in (expected, actual):
            result.backward(torch.ones_like(result))
        torch.testing.assert_close(actual, expected)
        for a, b in zip(traced, plain, strict=True):
            if isinstance(b, Tensor):
                assert (a.grad is None) == (b.grad is None) == (not b.requires_grad)
                torch.testing.assert_close(a.grad, b.grad)
    assert counter.frame_count == graphs


def _own(argument: Any) -> Any:
    """A leaf of its own for every tensor."""
    if not isinstance(argument, Tensor):
        return argument
    return argument.detach().clone().requires_grad_(argument.requires_grad)
