"""How close an operator must be to the float64 truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: (relative, absolute) by dtype, against the reference in float64 on the same (already rounded) inputs.
TOLERANCE = {
    torch.float64: (1e-11, 1e-13),
    torch.float32: (3e-5, 3e-6),
    torch.bfloat16: (1.6e-2, 5e-3),
    torch.float16: (2e-3, 1e-3),
}

Operator = Callable[..., Tensor]


def assert_close(name: str, actual: Tensor, truth: Tensor, dtype: torch.dtype) -> None:
    """Raise with the worst element and the share that fails."""
    relative, absolute = TOLERANCE[dtype]
    error = (actual.double().cpu() - truth.double().cpu()).abs()
    bound = absolute + relative * truth.double().cpu().abs()
    failing = ~(error <= bound)
    if failing.any():
        worst = int((error - bound).nan_to_num(torch.inf).argmax())
        raise AssertionError(
            f"{name} ({dtype}): {failing.double().mean():.1%} of {failing.numel()} fail; worst at flat index {worst}: "
            f"{actual.flatten()[worst].item():.8g} instead of {truth.flatten()[worst].item():.8g}"
        )


def gradients(operator: Operator, inputs: Sequence[Tensor], cotangent: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """Value of the operator and its gradients for the inputs, as they lie in memory."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    value = operator(*leaves)
    weight = torch.ones_like(value) if cotangent is None else cotangent.to(value)
    # The reference leaves out an empty forget set.
    grads = torch.autograd.grad(value, leaves, weight, materialize_grads=True)
    return value.detach(), list(grads)


def second_gradients(operator: Operator, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients for the inputs, and then the gradients of their sum of squares."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    grads = torch.autograd.grad(operator(*leaves).square().sum(), leaves, create_graph=True)
    squares = torch.stack([grad.square().sum() for grad in grads]).sum()
    return [*(grad.detach() for grad in grads), *torch.autograd.grad(squares, leaves)]


def agree_with_truth(
    operator: Operator, reference: Operator, inputs: Sequence[Tensor], cotangent: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Compare value and gradients with the float64 reference; return both, each the value and then the gradients."""
    dtype = inputs[0].dtype
    value, grads = gradients(operator, inputs, cotangent)
    true_cotangent = None if cotangent is None else cotangent.double()
    true_value, true_grads = gradients(reference, [tensor.double() for tensor in inputs], true_cotangent)
    assert value.dtype == dtype
    assert_close("value", value, true_value, dtype)
    for index, (grad, true_grad) in enumerate(zip(grads, true_grads, strict=True)):
        assert grad.dtype == dtype
        assert_close(f"gradient {index}", grad, true_grad, dtype)
    return [value, *grads], [true_value, *true_grads]


def compare_with_truth(operator: Operator, reference: Operator, inputs: Sequence[Tensor], seed: int = 0) -> None:
    """Compare value and gradients with the float64 reference, and with PyTorch's own float32 formulation.

    In float32 the error may not exceed 4 times that of the reference run in float32, beyond a few roundings of the
    largest value (of 1 at the least for the value itself: cosines are taken from 1).
    """
    dtype = inputs[0].dtype
    shape = operator(*inputs).shape
    cotangent = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cotangent = cotangent.to(dtype).to(inputs[0].device)
    results, truths = agree_with_truth(operator, reference, inputs, cotangent)
    if dtype == torch.float32:
        own_value, own_grads = gradients(reference, inputs, cotangent)
        for mine, own, truth in zip(results, [own_value, *own_grads], truths, strict=True):
            if truth.numel():
                rounding = torch.finfo(dtype).eps * truth.abs().max()
                error, own_error = (mine.double() - truth).abs().max(), (own.double() - truth).abs().max()
                assert error <= 4 * own_error + 4 * rounding, f"error {error:.3g}, PyTorch's own {own_error:.3g}"
