"""Networks that compute in bfloat16 while their weights, their outputs and all that is made of these stay in float32.

Hooks on the network itself open PyTorch's autocast for each forward pass. So every method and every training computes
so without knowing of it, a network's copies too, and losses get logits in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.errors import UserError

PRECISIONS = ("float32", "bfloat16")

_FIRST_GPU = (8, 0)
"""The first compute capability of GPUs that multiply in bfloat16."""


class AutocastHook:
    """The hooks of one network.

    Args:
        device_type: Where the network is: "cpu", "cuda".
    """

    def __init__(self, device_type: str) -> None:
        """Start outside of a forward pass."""
        self.device_type = device_type
        self.active = True
        self._entered: list[ExitStack] = []

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Open the context."""
        # A weight is cast once per pass, so a cache would save nothing, and a captured graph must not hold one.
        stack = ExitStack()
        stack.enter_context(torch.autocast(self.device_type, torch.bfloat16, enabled=self.active, cache_enabled=False))
        self._entered.append(stack)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Close it, after an error too, and return logits in float32."""
        if self._entered:
            self._entered.pop().close()
        return output.float() if isinstance(output, Tensor) and output.dtype == torch.bfloat16 else output


def settled_precision(name: str | None, device: torch.device) -> str:
    """Return a precision by its name; None takes bfloat16 on GPUs that compute in it, and float32 elsewhere.

    Raises:
        UserError: The device does not compute in bfloat16.

    Example:
        >>> settled_precision(None, torch.device("cpu")), settled_precision("bfloat16", torch.device("cpu"))
        ('float32', 'bfloat16')
    """
    if name == "float32":
        return name
    able = torch.amp.is_autocast_available(device.type)
    if device.type == "cuda":
        able = torch.cuda.get_device_capability(device) >= _FIRST_GPU
    if name is None:
        return "bfloat16" if able and device.type == "cuda" else "float32"
    if not able:
        raise UserError(f"precision is {name}, in which the device '{device}' does not compute; expected float32")
    return name


def compute_in(model: nn.Module, precision: str) -> None:
    """Let a network, and the copies made of it, compute in ``precision`` until :func:`compute_as_usual`, in place.

    Args:
        model: The network, its weights in float32 and on their device. One that has the hooks already keeps them.
        precision: "float32" leaves it as it is; "bfloat16" puts the hooks on it.

    Raises:
        UserError: Its device does not compute in bfloat16, or weights are in float64, which autocast leaves as it is.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> compute_in(layer, "bfloat16")
        >>> layer(torch.ones(1, 2)).dtype
        torch.float32
        >>> compute_as_usual(layer)
    """
    if precision == "float32" or _hook_of(model) is not None:
        return
    weights = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    device = weights[0].device if weights else torch.device("cpu")
    settled_precision(precision, device)
    if any(weight.dtype == torch.float64 for weight in weights):
        raise UserError(f"precision is {precision}, and the model has weights in float64; expected a model in float32")
    _put_on(model, AutocastHook(device.type))


def carry_precision(model: nn.Module, other: nn.Module) -> None:
    """Let ``other`` compute in the precision that :func:`compute_in` gave ``model``."""
    hook = _hook_of(model)
    if hook is not None and _hook_of(other) is None:
        _put_on(other, AutocastHook(hook.device_type))


def compute_as_usual(model: nn.Module) -> None:
    """Take the hooks of :func:`compute_in` off a network, a copy of one, or an ensemble of such, in place."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)


@contextmanager
def computing_as_usual(model: nn.Module) -> Iterator[None]:
    """Within the block the network computes in the type of its weights: what is measured is measured in that."""
    hooks = [hook for module in model.modules() if (hook := _hook_of(module)) is not None]
    before = [hook.active for hook in hooks]
    for hook in hooks:
        hook.active = False
    try:
        yield
    finally:
        for hook, active in zip(hooks, before, strict=True):
            hook.active = active


def _put_on(model: nn.Module, hook: AutocastHook) -> None:
    model.register_forward_pre_hook(hook.before)
    # First of all hooks: others get what a network in float32 gives.
    model.register_forward_hook(hook.after, prepend=True, always_call=True)


def _hook_of(module: nn.Module) -> AutocastHook | None:
    owners = (getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values())
    return next((owner for owner in owners if isinstance(owner, AutocastHook)), None)


def _is_ours(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), AutocastHook)
