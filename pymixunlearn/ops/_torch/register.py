"""Registration of an operator besides its kernels: fake kernels, derivatives and autocast.

A direct call of ``torch.ops.pymixunlearn.*`` must never end in silent zeros. Where a rule is missing it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pymixunlearn.ops._torch.call import in_autocast_dtype


class _NoTangents(torch.library.Library):
    """Registers autograd kernels that refuse tangents, which the kernel below would drop."""

    def impl(self, op_name: Any, fn: Any, *arguments: Any, **keywords: Any) -> Any:
        def guarded(keyset: Any, *inputs: Any) -> Any:
            if forward_ad._current_level >= 0 and any(map(_has_tangent, inputs)):
                raise NotImplementedError(
                    f"pymixunlearn::{op_name} has no forward-mode derivative; its function in pymixunlearn.ops has one"
                )
            return fn(keyset, *inputs)

        return super().impl(op_name, guarded, *arguments, **keywords)  # type: ignore[no-untyped-call]


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None  # type: ignore[no-untyped-call]


#: Registrations live as long as the library they were made through.
_library = _NoTangents("pymixunlearn", "FRAGMENT")  # type: ignore[no-untyped-call]
#: Autocast's rules come before the derivatives, so no tangent ends in them.
_autocast_library = torch.library.Library("pymixunlearn", "FRAGMENT")  # type: ignore[no-untyped-call]


def register_fakes(fakes: Sequence[Callable[..., Any]]) -> None:
    """Register fake kernels, each under the name of its operator: the function's without the leading underscore."""
    for fake in fakes:
        torch.library.register_fake(f"pymixunlearn::{fake.__name__.removeprefix('_')}", fake)


def register_derivative(
    name: str, differentiable: int, gradients: Callable[..., Any], save: Callable[..., None]
) -> None:
    """Register the formula of an operator for calls through the dispatcher, as tracing makes them.

    Args:
        name: The operator's.
        differentiable: Number of leading arguments that have a gradient; the others must not require one.
        gradients: From the context and the gradients of the outputs to one gradient per argument.
        save: Saves in the context what ``gradients`` needs.
    """

    def save_checked(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if any(ctx.needs_input_grad[differentiable:]):
            raise ValueError(
                f"pymixunlearn::{name} differentiates its first {differentiable} argument(s), but a later one requires "
                "grad; pass it detached"
            )
        save(ctx, inputs, output)

    torch.library.register_autograd(f"pymixunlearn::{name}", gradients, setup_context=save_checked, lib=_library)


def register_no_derivative(name: str) -> None:
    """Make differentiating an operator that has no formula an error."""

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"pymixunlearn::{name} has no derivative; for second derivatives use the functions of pymixunlearn.ops "
            "with create_graph=True"
        )

    torch.library.register_autograd(f"pymixunlearn::{name}", refuse, lib=_library)


def register_autocast(name: str) -> None:
    """Let autocast run an operator in its own dtype, as it does matrix products.

    ``torch.library.register_autocast`` knows one fixed dtype per device instead.
    """
    for device, key in (("cpu", torch._C.DispatchKey.AutocastCPU), ("cuda", torch._C.DispatchKey.AutocastCUDA)):
        if torch.amp.is_autocast_available(device):
            rule = _autocast_rule(name, torch._C.DispatchKeySet(key))
            _autocast_library.impl(name, rule, key.name)  # type: ignore[no-untyped-call]


def _autocast_rule(name: str, keys: Any) -> Callable[..., Any]:
    def rule(*arguments: Any) -> Any:
        cast = [in_autocast_dtype(value) if isinstance(value, Tensor) else value for value in arguments]
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return getattr(torch.ops.pymixunlearn, name).default(*cast)

    return rule


def register_float32_autocast(name: str) -> None:
    """Let autocast run an operator in float32, as it does PyTorch's own losses."""
    for device in ("cpu", "cuda"):
        if torch.amp.is_autocast_available(device):
            torch.library.register_autocast(f"pymixunlearn::{name}", device, torch.float32, lib=_library)
