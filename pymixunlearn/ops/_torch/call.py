"""Calls from a function of this package to its compiled operator.

Calls are kept lean, because at small sizes they are the operator's cost: the happy path checks a handful of Python
values and leaves shapes to the guards of the compiled code. Only when that refuses does :mod:`._checks` run, to say
which argument was wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pymixunlearn.ops._torch import library

#: The dispatcher's operators.
ops = torch.ops.pymixunlearn

# Eager functions call the kernels from below autograd: their own formula is already in charge.
below_autograd: Any = torch._C._AutoDispatchBelowAutograd

_HALVES = (torch.bfloat16, torch.float16)

# Looked up once: every call asks.
_is_compiling = torch.compiler.is_compiling
_tracing_state = torch._C._get_tracing_state
_transforms = torch._C._functorch.peek_interpreter_stack


def _transformed() -> bool:
    """Whether a function transform (vmap, jvp, grad, ...) or forward-mode differentiation is going on."""
    return forward_ad._current_level >= 0 or _transforms() is not None


def _exporting_to_onnx() -> bool:
    """Whether ONNX, which has no such operators, is what a traced graph will be written as."""
    onnx = sys.modules.get("torch.onnx")
    return onnx is not None and bool(onnx.is_in_onnx_export())


_exporting_to_onnx._dynamo_marked_constant = True  # type: ignore[attr-defined]  # what torch.compiler.assume_constant_result does


def compiled(*tensors: object) -> bool:
    """Whether a compiled operator can serve these arguments.

    They must be tensors on devices that have compiled operators. Under function transforms and forward-mode
    differentiation, for which the kernels have no rules, the reference serves instead of silently dropping tangents. So
    it does in an export to ONNX, which is made of PyTorch's own operators.
    """
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            return False
        if library.CPU and tensor.is_cpu:
            continue
        if not (library.CUDA and tensor.is_cuda and library.serves_gpu(tensor.get_device())):
            if not _is_compiling():
                library.say_that_the_reference_serves(tensor.device.type)
            return False
    if _is_compiling() or _tracing_state() is not None:
        return not _exporting_to_onnx()
    return not _transformed()


def in_float32(tensor: Tensor) -> Tensor:
    """Under autocast the losses run in float32, as PyTorch's own losses do."""
    if tensor.dtype in _HALVES and torch.is_autocast_enabled(tensor.device.type):
        return tensor.float()
    return tensor


def in_autocast_dtype(tensor: Tensor) -> Tensor:
    """Under autocast matrices are multiplied in its dtype, as by PyTorch's own products; float64 is left alone."""
    if tensor.dtype == torch.float64 or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def scalar(value: float | Tensor, like: Tensor) -> tuple[Tensor | None, float]:
    """Split a scalar argument into the schema's two: a tensor on the device, or a number.

    A 0-d CPU tensor beside CUDA logits is read here: it is host memory, nothing waits for the device. While tracing,
    numbers become tensors: a graph holds the number that an operator was given, so that another one, as a new mixing
    ratio in every step, would be traced anew.
    """
    if isinstance(value, Tensor) and (value.dim() > 0 or value.device == like.device or value.device.type != "cpu"):
        return value, 0.0
    if _is_compiling():
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return torch.ones((), dtype=dtype, device=like.device) * value, 0.0
    return None, float(value) if isinstance(value, Tensor) else value


def _is_one(grad: Tensor) -> bool:
    """Whether an incoming gradient is known to be 1, as it is for a loss that is differentiated itself.

    Only on the CPU is that a glance; elsewhere it would wait for the device.
    """
    try:
        return grad.is_cpu and not _is_compiling() and grad.item() == 1.0
    except RuntimeError:  # a batch of gradients (is_grads_batched, vmap) has no single value
        return False


def eager_function(
    name: str, gradients: Callable[[Any, Tensor], Any], save: Callable[[Any, tuple[Any, ...], Any], None]
) -> type[torch.autograd.Function]:
    """Build the ``autograd.Function`` of an operator for eager calls.

    Args:
        name: The operator's, in the dispatcher.
        gradients: From the context and the gradient of the first output to one gradient per argument.
        save: Saves in the context what ``gradients`` needs, given the arguments and the operator's output.

    Returns:
        A function of the operator's arguments that returns its first output.
    """

    def forward(ctx: Any, *arguments: Any) -> Any:
        with below_autograd():
            output = getattr(ops, name).default(*arguments)
        save(ctx, arguments, output)
        return output[0] if isinstance(output, tuple) else output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(gradients), "__doc__": f"Eager ``{name}``."}
    return type(f"Eager_{name}", (torch.autograd.Function,), methods)


class AtOnce:
    """An operator for eager calls whose forward computes the gradients too, so that its backward is one scaling.

    Worth it for few elements, where calls are the cost. Only the differentiable arguments go through
    ``autograd.Function.apply``; each of the others would cost there again.

    Args:
        name: The operator's, in the dispatcher: it returns the loss and a gradient for each differentiable argument.
        differentiable: Number of leading arguments that have a gradient.
        gradients: As for :func:`eager_function`; serves when a graph of the backward is wanted.
        save: As for :func:`eager_function`; it must save the gradients last.
    """

    #: Above this many elements, or in half precision (which would round twice), the gradient waits for the backward.
    MAX_ELEMENTS = 16384
    DTYPES = (torch.float32, torch.float64)

    def __init__(
        self,
        name: str,
        differentiable: int,
        gradients: Callable[[Any, Tensor], Any],
        save: Callable[[Any, tuple[Any, ...], Any], None],
    ) -> None:
        def forward(ctx: Any, *packed: Any) -> Any:
            arguments = (*packed[:-1], *packed[-1])
            with below_autograd():
                output = getattr(ops, name).default(*arguments)
            save(ctx, arguments, output)
            return output[0]

        def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
            if torch.is_grad_enabled():
                return (*gradients(ctx, grad)[:differentiable], None)
            computed = ctx.saved_tensors[-differentiable:]
            if _is_one(grad):
                # As they are saved: autograd copies what somebody else holds before it adds to it, and a change by the
                # caller is noticed at the next backward, as for every saved tensor.
                return *computed, None
            return *(grad * gradient for gradient in computed), None

        methods = {
            "forward": staticmethod(forward),
            "backward": staticmethod(backward),
            "__doc__": f"Eager ``{name}``.",
        }
        self._function: Any = type(f"AtOnce_{name}", (torch.autograd.Function,), methods)
        self._differentiable = differentiable

    def pays(self, arguments: tuple[Any, ...]) -> bool:
        """Whether this is the shortest way for these arguments."""
        elements = 0
        for tensor in arguments[: self._differentiable]:
            elements += tensor.numel()
        return elements <= self.MAX_ELEMENTS and arguments[0].dtype in self.DTYPES

    def apply(self, *arguments: Any) -> Any:
        """Call the operator with the arguments of its schema."""
        return self._function.apply(*arguments[: self._differentiable], arguments[self._differentiable :])


def run(
    operator: Any,
    function: Any,
    differentiable: bool,
    arguments: tuple[Any, ...],
    check: Callable[[], None],
    at_once: AtOnce | None = None,
) -> Any:
    """Call a compiled operator by the shortest route that serves this call.

    Args:
        operator: The dispatcher's overload, whose registered derivative serves tracing.
        function: The eager ``autograd.Function`` with the same arguments.
        differentiable: Whether an argument requires grad.
        arguments: Of the schema, in order.
        check: Explains a refused call by raising; if it finds nothing wrong the original error goes on.
        at_once: The same with the gradients computed in the forward, used where that pays.
    """
    try:
        if _is_compiling():
            check()  # while tracing, where a refusal by the operator would be told with the sources of PyTorch
            return operator(*arguments)
        if differentiable and torch.is_grad_enabled():
            if at_once is not None and at_once.pays(arguments):
                return at_once.apply(*arguments)
            return function.apply(*arguments)
        with below_autograd():
            return operator(*arguments)
    except RuntimeError:
        check()
        raise


def twice_differentiable(operator: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad: Tensor) -> Any:
    """Gradients of a reference operator that can be differentiated again."""
    with torch.enable_grad():
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        grads = iter(torch.autograd.grad(operator(*inputs), wanted, grad, create_graph=True))
    return tuple(next(grads) if tensor.requires_grad else None for tensor in inputs)
