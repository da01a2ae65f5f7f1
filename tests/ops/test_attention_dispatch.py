"""Direct calls of the attention's operators, and the switches of PyTorch that change how it computes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops

registered = torch.ops.pymixunlearn


def inputs_of(device: str, dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 6, 3, 4), (2, 6, 3, 4), (2, 3, 4)) * 2
    return [torch.randn(shape, generator=draw).to(device, dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("compiled", [False, True])
def test_direct_calls_follow_autocast(device: str, compiled: bool) -> None:
    def direct(*inputs: Tensor) -> Tensor:
        mask: Tensor = registered.mixblock_attention(*inputs, False, False)[0]
        return mask

    function = torch.compile(direct, backend="aot_eager", fullgraph=True) if compiled else direct
    # Mixed dtypes, which the operator refuses by itself.
    inputs = inputs_of(device, torch.float32)
    inputs[0] = inputs[0].detach().bfloat16().requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        mask = function(*inputs)
    expected = ops.mixblock_attention(*(tensor.bfloat16() for tensor in inputs))
    assert mask.dtype == torch.bfloat16
    torch.testing.assert_close(mask, expected, rtol=0, atol=0)
    mask.float().sum().backward()  # type: ignore[no-untyped-call]
    assert [tensor.grad.dtype for tensor in inputs if tensor.grad is not None] == [tensor.dtype for tensor in inputs]


def test_autocast_leaves_double_alone(device: str) -> None:
    inputs = inputs_of(device, torch.float64)
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
