"""Copies of a user's network, which is itself never touched."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.errors import UserError

_CONTAINERS = ("_parameters", "_modules", "_buffers")


def private_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of a network, its hooks and own attributes included.

    Activations that the network keeps between calls are copied without their history, which cannot be copied.

    Args:
        model: Any network; it is left as it is.

    Raises:
        UserError: An attribute cannot be copied (a lock, an open file); it is named.

    Example:
        >>> import torch
        >>> from pymixunlearn.models.copying import private_copy
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer.seen = layer(torch.ones(1, 2))  # torch refuses to copy a tensor with a history
        >>> torch.equal(private_copy(layer).seen, layer.seen)
        True
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            for tensor in _tensors(value):
                if tensor.grad_fn is not None:
                    memo[id(tensor)] = tensor.detach().clone()
    try:
        # A dictionary of its own: a copy that fails leaves parts of itself in it.
        return copy.deepcopy(model, dict(memo))
    except Exception as error:
        raise UserError(
            f"model cannot be copied{_culprit(model, memo)}: {str(error).strip().splitlines()[0]}; "
            "expected a network whose attributes can be, so that the one that is given stays untouched"
        ) from error


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an attribute, also in a list or dict of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (part for part in value.values() if isinstance(part, Tensor))
    elif isinstance(value, (list, tuple)):
        yield from (part for part in value if isinstance(part, Tensor))


def _culprit(model: nn.Module, memo: dict[int, Any]) -> str:
    """Name the attribute that cannot be copied."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in _CONTAINERS:
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                place = f"{name}.{attribute}" if name else attribute
                return f" because of its attribute '{place}' ({type(value).__name__})"
    return ""


class Layout:
    """Order in memory of a network's tensors, which a method may change to compute faster.

    Args:
        model: The network as it is to come back.
    """

    def __init__(self, model: nn.Module) -> None:
        """Note the strides."""
        self._tensors = {name: (tensor.shape, tensor.stride()) for name, tensor in _tensors_of(model)}

    def restore(self, model: nn.Module) -> None:
        """Bring ``model``, or each member of an ensemble of such networks, back to the strides noted; same values."""
        for name, tensor in _tensors_of(model):
            shape, stride = self._tensors.get(_own_name(name, self._tensors), (tensor.shape, tensor.stride()))
            if shape == tensor.shape and stride != tensor.stride():
                tensor.data = tensor.data.new_empty_strided(shape, stride).copy_(tensor.data)


def _tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _own_name(name: str, known: Container[str]) -> str:
    """Return the name that a tensor of an ensemble's member has in the member itself."""
    return name.split(".", 2)[2] if name.startswith("members.") and name not in known else name


class Precision:
    """Floating-point types of a network that is trained in float32 meanwhile, if they are narrower.

    A step of an optimiser is smaller than float16 and bfloat16 can tell: training in them would lose it.

    Args:
        model: The network; it is brought to float32 in place where it has a narrower type. float64 stays.
    """

    def __init__(self, model: nn.Module) -> None:
        """Note the types, and widen."""
        self._types = {
            name: tensor.dtype for name, tensor in _tensors_of(model) if tensor.dtype in (torch.float16, torch.bfloat16)
        }
        if self._types:
            model.float()

    def restore(self, model: nn.Module) -> None:
        """Bring ``model``, or each member of an ensemble of such networks, back to the types noted."""
        if not self._types:
            return
        for name, tensor in _tensors_of(model):
            own = _own_name(name, self._types)
            if own in self._types:
                tensor.data = tensor.data.to(self._types[own])
