"""What the tests of single steps share: fixed batches, a network off the initial one, and optimisers written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.base import Method
from pymixunlearn.methods.loop import Loop

Move = Callable[[Tensor, Tensor], Tensor]
"""From a weight and its gradient to the weight after one step."""


def make_loop(tiny: Any, method: Method, **job: Any) -> Loop[Any]:
    """The loop of a job in double precision, whose network has left the initial one."""
    loop = method.begin(tiny.double_job(labels=method.needs_labels, **job))
    stream = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in loop.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=stream, dtype=torch.float64), alpha=0.05)
    return loop


def pair(forget: int = 3, retain: int = 5) -> tuple[Batch, Batch]:
    """Batches of both sets in double precision, D_f's the smaller one."""
    stream = torch.Generator().manual_seed(4)

    def draw(n: int) -> Batch:
        images = torch.rand(n, 2, 8, 8, generator=stream, dtype=torch.float64)
        return Batch(images, torch.randint(4, (n,), generator=stream), torch.arange(n))

    return draw(forget), draw(retain)


def ce(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy."""
    return -torch.stack([row[y] - row.exp().sum().log() for row, y in zip(logits, targets, strict=True)]).mean()


def kl(teacher: Tensor, student: Tensor, T: float) -> Tensor:
    """T^2 sum_c p log(p / q), the mean over rows."""
    p, q = (logits.div(T).exp() / logits.div(T).exp().sum(1, keepdim=True) for logits in (teacher, student))
    return T**2 * (p * (p / q).log()).sum() / len(p)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax."""
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def sgd(lr: float, weight_decay: float = 0.0) -> Move:
    """The first step of SGD; momentum has nothing to add yet."""
    return lambda weight, gradient: weight - lr * (gradient + weight_decay * weight)


def adam(lr: float, weight_decay: float = 0.0) -> Move:
    """The first step of Adam: both moments are bias-corrected back to the gradient itself."""

    def move(weight: Tensor, gradient: Tensor) -> Tensor:
        gradient = gradient + weight_decay * weight
        return weight - lr * gradient / (gradient.abs() + 1e-8)

    return move


def close(got: Tensor, expected: Tensor) -> None:
    """Equal to 1e-9."""
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def check_step(
    network: nn.Module,
    step: Callable[[], object],
    loss: Callable[[nn.Module], Tensor],
    move: Move,
    fixed: tuple[str, ...] = (),
) -> None:
    """Check that ``step`` moves each weight of ``network`` as the gradient of ``loss`` says, but for the fixed ones."""
    twin = copy.deepcopy(network)
    loss(twin).backward()
    step()
    for (name, weight), new in zip(twin.named_parameters(), network.parameters(), strict=True):
        if name.startswith(fixed) and fixed:
            assert torch.equal(new, weight), name
        else:
            assert weight.grad is not None and weight.grad.abs().max() > 1e-7, name
            assert not torch.equal(new, weight), name
            close(new, move(weight, weight.grad))
