"""What only ``mask_mix`` promises beside the rest of PyTorch: which kernels run, saved memory, layouts, autocast."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.test_mask_mix import operands

SHAPE = (3, (8, 6), (2, 3))


class Calls(TorchDispatchMode):
    """Records the names of this package's operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "pymixunlearn":
            self.names.append(func.name().removeprefix("pymixunlearn::"))
        return func(*args, **(kwargs or {}))


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((False, False, True), ["mask_mix_backward_mask"]),
        ((True, False, False), ["mask_mix_backward_image"]),
        ((False, True, True), ["mask_mix_backward_image", "mask_mix_backward_mask"]),
        ((True, True, True), ["mask_mix_backward_image"] * 2 + ["mask_mix_backward_mask"]),
    ],
)
def test_gradients_only_where_asked(device: str, wanted: tuple[bool, ...], expected: list[str]) -> None:
    leaves = [x.requires_grad_(need) for x, need in zip(operands(2, 2, SHAPE, device=device), wanted, strict=True)]
    mixed = ops.mask_mix(*leaves)
    with Calls() as calls:
        mixed.backward(torch.ones_like(mixed))
    assert calls.names == expected
    assert [leaf.grad is not None for leaf in leaves] == list(wanted)
    assert not ops.mask_mix(*(leaf.detach() for leaf in leaves)).requires_grad
    with torch.no_grad():
        assert not ops.mask_mix(*leaves).requires_grad


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_only_the_arguments_are_saved(device: str, pairing: str) -> None:
    inputs = [x.requires_grad_() for x in operands(2, 2 if pairing == "zip" else 3, SHAPE, device=device)]
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.mask_mix(*inputs, pairing=pairing)
    assert saved == [x.data_ptr() for x in inputs]


# --- the dispatcher --------------------------------------------------------------------------------------------------


def test_autocast_mixes_in_the_dtype_of_the_images(device: str) -> None:
    x_f, x_r, mask = operands(2, 2, SHAPE, device=device)
    half = mask.bfloat16().requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        mixed = ops.mask_mix(x_f, x_r, half)
    mixed.sum().backward()
    assert mixed.dtype == torch.float32 and half.grad is not None and half.grad.dtype == torch.bfloat16
    assert torch.equal(mixed, ops.mask_mix(x_f, x_r, half.detach()))


# --- what is refused -------------------------------------------------------------------------------------------------

M = torch.zeros(2, 2, 3)


def test_at_most_64_normalised_channels() -> None:
    wide = torch.zeros(2, 65, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="up to 64 channels, got 65"):
        ops.mask_mix(wide, wide, M, mean=(0.0,) * 65, std=(1.0,) * 65)
    assert ops.mask_mix(wide, wide, M).shape == wide.shape
    most = wide[:, :64]
    assert torch.equal(ops.mask_mix(most, most, M, mean=(0.5,) * 64, std=(0.5,) * 64), torch.full(most.shape, -1.0))


def test_images_of_unequal_layout_fit_the_backward_of_either(device: str) -> None:
    x_f, x_r, mask = operands(2, 2, SHAPE, device=device)
    leaves = [x_f.contiguous(memory_format=torch.channels_last).requires_grad_(), x_r.requires_grad_(), mask]
    mixed = ops.mask_mix(*leaves)
    grads = torch.autograd.grad(mixed, leaves[:2], mixed.detach().contiguous(memory_format=torch.channels_last))
    plain = [x_f.clone().requires_grad_(), x_r.detach().clone().requires_grad_(), mask]
    mixed = ops.mask_mix(*plain)
    assert all(
        torch.equal(a, b) for a, b in zip(grads, torch.autograd.grad(mixed, plain[:2], mixed.detach()), strict=True)
    )


def test_the_compiled_operator_is_what_runs(device: str) -> None:
    leaves = [x.requires_grad_() for x in operands(2, 2, SHAPE, device=device)]
    with patch.object(reference, "mask_mix", side_effect=AssertionError("the reference ran")):
        ops.mask_mix(*leaves).sum().backward()
