"""Batch normalisation in training: what is frozen stays frozen, and one value per channel is no batch.

PyTorch's ``model.train()`` puts every layer into training mode, so that the statistics of a layer move whose weights
are frozen; and a batch with a single value per channel raises an error. Hooks on the layers prevent both.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class NormHook:
    """The hooks of one layer.

    Args:
        frozen: Whether the layer always normalises by its running statistics, and leaves them as they are.
    """

    def __init__(self, frozen: bool) -> None:
        """Start outside of a forward pass."""
        self.frozen = frozen
        self._lone = False

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Choose the running statistics where the layer is frozen, or where the batch has none of its own."""
        if self.frozen:
            module.training = False
        elif module.training and module.track_running_stats and _is_lone(args[0]):
            self._lone, module.training = True, False

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Put the mode back."""
        if self._lone:
            self._lone, module.training = False, True


def hold_norms(model: nn.Module) -> None:
    """Put the hooks on every batch normalisation of ``model`` that has none yet, in place.

    A layer is frozen if it was put into evaluation mode while the network is in training mode, or if none of its
    parameters can be trained (of the module around it, if it has none itself) while others of the network can.

    Args:
        model: The network, in the modes in which its owner left it.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).train()
        >>> hold_norms(net)
        >>> net(torch.ones(1, 2)).shape
        torch.Size([1, 3])
        >>> release_norms(net)
    """
    trains = any(parameter.requires_grad for parameter in model.parameters())
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not _hooks(module):
            frozen = (model.training and not module.training) or (trains and _is_fixed(model, name))
            hook = NormHook(frozen)
            module.register_forward_pre_hook(hook.before)
            module.register_forward_hook(hook.after)


def release_norms(model: nn.Module) -> None:
    """Take the hooks of :func:`hold_norms` off a network or a copy of one, in place."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]


def carry_norms(model: nn.Module, other: nn.Module) -> None:
    """Put the hooks of ``model`` on ``other``, a network of the same structure."""
    layers = dict(other.named_modules())
    for name, module in model.named_modules():
        for found in _hooks(module):
            hook = NormHook(found.frozen)
            layers[name].register_forward_pre_hook(hook.before)
            layers[name].register_forward_hook(hook.after)


def frozen_norms(model: nn.Module) -> list[str]:
    """Return the names of the layers whose hooks hold them fixed."""
    return [name for name, module in model.named_modules() if any(hook.frozen for hook in _hooks(module))]


def _is_lone(inputs: Tensor) -> bool:
    """Tell whether a batch [N, C, ...] has one value per channel."""
    return inputs.numel() == inputs.shape[1]


def _is_fixed(model: nn.Module, name: str) -> bool:
    """Tell whether the layer's own parameters are fixed or, if it has none, those of the module around it."""
    while True:
        parameters = list(model.get_submodule(name).parameters())
        if parameters or not name:
            return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
        name = name.rpartition(".")[0]


def _hooks(module: nn.Module) -> list[NormHook]:
    return [hook.__self__ for hook in module._forward_pre_hooks.values() if _is_ours(hook)]  # type: ignore[attr-defined]


def _is_ours(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), NormHook)
