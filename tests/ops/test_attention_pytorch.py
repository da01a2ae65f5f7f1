"""What only the attention promises beside the rest of PyTorch: saved memory, autocast, and TF32."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from tests.ops.test_attention import inputs_of, value_and_gradients

registered = torch.ops.pymixunlearn


def leaves_of(*sizes: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in inputs_of(*sizes, dtype=dtype, device=device, seed=seed)]


# --- autograd --------------------------------------------------------------------------------------------------------


def test_kernel_writes_no_gradient_that_is_not_wanted(device: str) -> None:
    inputs = inputs_of(2, 2, 5, 4, 4, device=device)
    out, state = registered.mixblock_attention(*inputs, False, False)
    grads = registered.mixblock_attention_backward(torch.ones_like(out), *inputs, state, False, False, 0b010001)
    assert [grad.numel() for grad in grads] == [inputs[0].numel(), 0, 0, 0, inputs[4].numel(), 0]


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_saved_memory_is_the_inputs_and_three_numbers_per_query_and_direction(device: str, pairing: str) -> None:
    sizes: list[int] = []
    leaves = leaves_of(4, 4, 8, 20, 20, device=device)
    own = {x.data_ptr() for x in leaves}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.mixblock_attention(*leaves, pairing=pairing)
    assert sizes == [(16 if pairing == "grid" else 4) * 2 * 3 * 400]


# --- the dispatcher --------------------------------------------------------------------------------------------------


def test_autocast_runs_in_its_dtype_as_scaled_dot_product_attention_does(device: str) -> None:
    leaves = leaves_of(2, 2, 4, 3, 3, device=device)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(device, dtype=dtype):
            out = ops.mixblock_attention(*leaves)
        assert out.dtype == dtype
        expected = ops.mixblock_attention(*(x.detach().to(dtype) for x in leaves))
        assert torch.equal(out, expected)
        grads = torch.autograd.grad(out.float().sum(), leaves)
        assert all(grad.dtype == torch.float32 for grad in grads)
        with torch.autocast(device, dtype=dtype):
            assert ops.mixblock_attention(*(x.detach().double() for x in leaves)).dtype == torch.float64


@pytest.mark.parametrize("compiled", [False, True])
def test_direct_calls_follow_autocast(device: str, compiled: bool) -> None:
    def direct(*inputs: Tensor) -> Tensor:
        mask: Tensor = registered.mixblock_attention(*inputs, False, False)[0]
        return mask

    function = torch.compile(direct, backend="aot_eager", fullgraph=True) if compiled else direct
    # Mixed dtypes, which the operator refuses by itself.
    inputs = leaves_of(2, 2, 6, 3, 4, device=device)
    inputs[0] = inputs[0].detach().bfloat16().requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        mask = function(*inputs)
    expected = ops.mixblock_attention(*(tensor.bfloat16() for tensor in inputs))
    assert mask.dtype == torch.bfloat16
    torch.testing.assert_close(mask, expected, rtol=0, atol=0)
    mask.float().sum().backward()  # type: ignore[no-untyped-call]
    assert [tensor.grad.dtype for tensor in inputs if tensor.grad is not None] == [tensor.dtype for tensor in inputs]


def test_autocast_leaves_double_alone(device: str) -> None:
    inputs = leaves_of(2, 2, 6, 3, 4, dtype=torch.float64, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        mask = registered.mixblock_attention(*inputs, False, False)[0]
    torch.testing.assert_close(mask, ops.mixblock_attention(*inputs), rtol=0, atol=0)


def test_tf32_follows_every_switch_of_pytorch() -> None:
    """In a process of its own: having used the newer switches makes reading the older ones an error."""
    switches = {
        "pass": False,
        "torch.backends.cuda.matmul.allow_tf32 = True": True,
        "torch.set_float32_matmul_precision('highest')": False,
        "torch.backends.cuda.matmul.fp32_precision = 'ieee'": False,
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'": True,
        "torch.backends.cuda.matmul.fp32_precision = 'none'": False,
        "torch.backends.fp32_precision = 'tf32'": True,
    }
    script = (
        "import sys, torch; from pymixunlearn.ops._attention import tf32_allowed\n"
        "for switch in sys.argv[1:]: exec(switch); print(tf32_allowed())"
    )
    run = subprocess.run([sys.executable, "-c", script, *switches], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(expected) for expected in switches.values()]


# --- GPU only --------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_tf32_follows_pytorchs_own_setting() -> None:
    inputs = inputs_of(2, 2, 128, 14, 14, device="cuda")
    exact = value_and_gradients(inputs)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        rounded = value_and_gradients(inputs)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    for a, b in zip(rounded, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=5e-3)
    if torch.cuda.get_device_capability() >= (8, 0):
        assert not torch.equal(rounded[0], exact[0])
