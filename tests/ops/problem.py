"""One way of calling an operator, as the tests that all operators pass want it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pymixunlearn import ops

#: A call that is refused: the call, the error, and what it says.
Refusal = tuple[Callable[[Any], Tensor], type[Exception], str]


class Problem(NamedTuple):
    """One way of calling an operator.

    ``tensors`` draws arguments of one of ``sizes``, first those that have gradients; ``call`` is given ``ops`` or the
    reference, and the tensors. The first of the sizes is tiny, the last one for GPUs. ``empty`` are sizes without
    forget or without retain samples, or without both.
    """

    name: str
    differentiable: int
    sizes: tuple[Any, ...]
    empty: tuple[Any, ...]
    tensors: Callable[[Any, torch.dtype, str, int], list[Tensor]]
    call: Callable[..., Tensor]

    def draw(
        self, size: Any, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0, grad: bool = True
    ) -> list[Tensor]:
        """Tensors of a size; those that have gradients ask for them."""
        tensors = self.tensors(size, dtype, device, seed)
        return [x.detach().requires_grad_(grad and i < self.differentiable) for i, x in enumerate(tensors)]

    def split(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What the call is differentiated for, and the rest."""
        return tensors[: self.differentiable], tensors[self.differentiable :]

    def bound(self, module: Any, constants: list[Tensor]) -> Callable[..., Tensor]:
        """The call as a function of what it is differentiated for."""
        return lambda *leaves: self.call(module, *leaves, *constants)

    def cotangent(self, value: Tensor) -> Tensor:
        """Incoming gradient that is not the same everywhere."""
        count = value.numel()
        return torch.linspace(0.5, 1.5, count, dtype=value.dtype, device=value.device).view_as(value)

    def results(self, *tensors: Tensor, module: Any = ops) -> list[Tensor]:
        """The value, and its gradients for :meth:`cotangent`."""
        leaves, constants = self.split([x.detach() for x in tensors])
        for leaf in leaves:
            leaf.requires_grad_()
        value = self.call(module, *leaves, *constants)
        grads = torch.autograd.grad(value, leaves, self.cotangent(value), materialize_grads=True)
        return [value.detach(), *grads]
