"""MixBlock's attention beside the rest of PyTorch: autograd, tracing, autocast, threads, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from tests.ops.agreement import second_gradients
from tests.ops.gpu import compare_graph_replays, needs_a_second_gpu, on_a_late_stream
from tests.ops.test_attention import inputs_of, value_and_gradients
from tests.ops.tracing import check_compiled

registered = torch.ops.pymixunlearn
NAMES = ["q_f", "k_f", "v_f", "q_r", "k_r", "v_r"]


def leaves_of(*sizes: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in inputs_of(*sizes, dtype=dtype, device=device, seed=seed)]


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_gradcheck(device: str, pairing: str) -> None:
    leaves = leaves_of(2, 2 if pairing == "zip" else 3, 3, 2, 3, dtype=torch.float64, device=device)
    assert torch.autograd.gradcheck(lambda *x: ops.mixblock_attention(*x, pairing=pairing), leaves)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_second_derivatives(device: str, pairing: str) -> None:
    leaves = leaves_of(2, 2, 2, 1, 3, dtype=torch.float64, device=device)
    assert torch.autograd.gradgradcheck(lambda *x: ops.mixblock_attention(*x, pairing=pairing), leaves)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_gradient_only_where_asked(device: str, pairing: str) -> None:
    inputs = inputs_of(2, 2, 5, 4, 4, device=device)
    everything = value_and_gradients(inputs, pairing)[1:]
    for chosen in ([0], [1], [2], [4, 5], [0, 3, 4]):
        mixed = [x.detach().requires_grad_(i in chosen) for i, x in enumerate(inputs)]
        out = ops.mixblock_attention(*mixed, pairing=pairing)
        out.backward(torch.ones_like(out))
        for i, x in enumerate(mixed):
            assert (x.grad is not None) == (i in chosen)
            assert x.grad is None or torch.equal(x.grad, everything[i])
    assert not ops.mixblock_attention(*inputs, pairing=pairing).requires_grad
    with torch.no_grad():
        assert not ops.mixblock_attention(*leaves_of(2, 2, 5, 4, 4), pairing=pairing).requires_grad


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


def test_backward_twice_needs_retain_graph_and_agrees() -> None:
    leaves = leaves_of(2, 2, 5, 4, 4)
    out = ops.mixblock_attention(*leaves).sum()
    first = torch.autograd.grad(out, leaves, retain_graph=True)
    second = torch.autograd.grad(out, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(out, leaves)


def test_function_transforms(device: str) -> None:
    inputs = inputs_of(2, 2, 3, 2, 3, device=device)
    tangents = inputs_of(2, 2, 3, 2, 3, device=device, seed=1)
    out, *grads = value_and_gradients(inputs)
    value, derivative = torch.func.jvp(ops.mixblock_attention, tuple(inputs), tuple(tangents))
    torch.testing.assert_close(value, out)
    expected = sum((grad * tangent).sum() for grad, tangent in zip(grads, tangents, strict=True))
    torch.testing.assert_close(derivative.sum(), expected)
    by_query = torch.func.grad(lambda q: ops.mixblock_attention(q, *inputs[1:]).sum())(inputs[0])
    torch.testing.assert_close(by_query, grads[0])
    both = [torch.stack(pair) for pair in zip(inputs, tangents, strict=True)]
    stacked = torch.func.vmap(ops.mixblock_attention)(*both)
    torch.testing.assert_close(stacked, torch.stack([out, ops.mixblock_attention(*tangents)]))


# --- the dispatcher --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [False, True])
def test_opcheck(device: str, grid: bool, dtype: torch.dtype) -> None:
    leaves = leaves_of(3, 2 if grid else 3, 4, 3, 5, dtype=dtype, device=device)
    torch.library.opcheck(registered.mixblock_attention.default, (*leaves, grid, False))
    inputs = [x.detach() for x in leaves]
    out, state = registered.mixblock_attention(*inputs, grid, False)
    for wanted in (0b111111, 0b010010):
        arguments = (torch.ones_like(out), *inputs, state, grid, False, wanted)
        torch.library.opcheck(registered.mixblock_attention_backward.default, arguments)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_traces_one_graph_for_all_sizes(device: str, backend: str, pairing: str) -> None:
    def masks(*x: Tensor) -> Tensor:
        return torch.sigmoid(ops.mixblock_attention(*x, pairing=pairing))

    sizes = ((3, 5, 6, 7), (5, 8, 7, 9), (8, 6, 4, 3))
    draws = (leaves_of(n, n + (pairing == "grid"), *rest, device=device) for n, *rest in sizes)
    check_compiled(masks, draws, graphs=1, backend=backend, dynamic=True)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_compile_settles_after_two_graphs(device: str, pairing: str) -> None:
    sizes = ((3, 5, 6, 7), (5, 8, 7, 9), (8, 6, 4, 3), (7, 19, 12, 5))
    draws = (leaves_of(n, n + (pairing == "grid"), *rest, device=device) for n, *rest in sizes)
    check_compiled(partial(ops.mixblock_attention, pairing=pairing), draws, graphs=2)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_export_keeps_the_operator_for_all_sizes(pairing: str) -> None:
    class Attention(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return ops.mixblock_attention(*inputs, pairing=pairing)

    def arguments(n: int, d: int, h: int, w: int) -> tuple[Tensor, ...]:
        return tuple(inputs_of(n, n + (pairing == "grid"), d, h, w))

    first = arguments(3, 4, 2, 5)
    dynamic = tuple(dict.fromkeys(range(x.dim()), torch.export.Dim.DYNAMIC) for x in first)
    program = torch.export.export(Attention(), first, dynamic_shapes=(dynamic,))
    assert "pymixunlearn.mixblock_attention.default" in {str(node.target) for node in program.graph.nodes}
    for sizes in ((3, 4, 2, 5), (5, 9, 6, 3), (2, 16, 7, 7)):
        torch.testing.assert_close(program.module()(*arguments(*sizes)), Attention()(*arguments(*sizes)))


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


# --- reproducibility -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_bitwise_equal_over_repeats_and_threads(pairing: str) -> None:
    inputs = inputs_of(6, 6, 33, 21, 20)
    threads = torch.get_num_threads()
    results = []
    try:
        torch.use_deterministic_algorithms(True)
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            results.append(value_and_gradients(inputs, pairing))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("pairing", ["zip", "grid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_equal_over_a_hundred_runs(device: str, dtype: torch.dtype, pairing: str) -> None:
    inputs = inputs_of(4, 4, 16, 7, 7, dtype, device)
    first = value_and_gradients(inputs, pairing)
    for _ in range(99):
        assert all(torch.equal(a, b) for a, b in zip(value_and_gradients(inputs, pairing), first, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa: str) -> None:
    code = (
        "import torch; from pymixunlearn import ops; from tests.ops.test_attention import *;"
        "x = inputs_of(2, 3, 13, 5, 11, torch.float64);"
        "print(*(repr(g.square().sum().item()) for g in value_and_gradients(x, 'grid')))"
    )
    environment = {**os.environ, "PYMIXUNLEARN_CPU_ISA": isa}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    leaves = leaves_of(2, 3, 13, 5, 11, dtype=torch.float64)
    truth = ops.reference.mixblock_attention(*leaves, pairing="grid")
    expected = [truth.detach(), *torch.autograd.grad(truth.sum(), leaves)]
    assert [float(x) for x in out.stdout.split()] == pytest.approx([x.square().sum().item() for x in expected])


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q_r": [1.0]}, TypeError, "q_r must be a tensor, got list"),
        ({"q_f": torch.zeros(2, 3, 4, 4).int()}, TypeError, "q_f must be float32, .* got torch.int32"),
        ({"k_r": torch.zeros(2, 3, 4, 4).double()}, TypeError, r"k_r must have the dtype of q_f \(torch.float32\)"),
        ({"k_r": torch.zeros(2, 3, 16)}, ValueError, r"k_r must have shape \[N, d, h, w\], got \[2, 3, 16\]"),
        ({"v_f": torch.zeros(2, 1, 4, 4)}, ValueError, r"v_f must have shape \[N, h, w\], got \[2, 1, 4, 4\]"),
        ({"k_f": torch.zeros(2, 5, 4, 4)}, ValueError, r"k_f must have shape \[2, 3, 4, 4\], got \[2, 5, 4, 4\]"),
        ({"v_r": torch.zeros(2, 2, 8)}, ValueError, r"v_r must have shape \[2, 4, 4\], got \[2, 2, 8\]"),
        ({"q_r": torch.zeros(3, 3, 4, 4)}, ValueError, "as many forget as retain samples, got 2 and 3"),
        ({"v_r": torch.zeros(2, 4, 4, device="meta")}, ValueError, r"v_r must be on the device of q_f \(cpu\)"),
        ({"pairing": "all"}, ValueError, "pairing must be one of 'zip', 'grid', got 'all'"),
        (
            {name: torch.zeros((2, 3, 0, 4) if name[0] != "v" else (2, 0, 4)) for name in NAMES},
            ValueError,
            r"q_f must have d, h and w of at least 1, got shape \[2, 3, 0, 4\]",
        ),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = dict(zip(NAMES, inputs_of(2, 2, 3, 4, 4), strict=True)) | change
    with pytest.raises(error, match=message):
        ops.mixblock_attention(**arguments)


# --- GPU only --------------------------------------------------------------------------------------------------------


def run(*inputs: Tensor, pairing: str) -> list[Tensor]:
    """Masks and all gradients of inputs that end with a cotangent."""
    return value_and_gradients(list(inputs[:6]), pairing, inputs[6])


def inputs_and_cotangent(pairing: str, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    inputs = inputs_of(3, 3, 16, 7, 7, dtype, "cuda", seed)
    generator = torch.Generator().manual_seed(seed)
    return [*inputs, torch.randn(9 if pairing == "grid" else 3, 7, 7, generator=generator).to(inputs[0])]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_a_side_stream_without_synchronisation(pairing: str, dtype: torch.dtype) -> None:
    expected, late = on_a_late_stream(partial(run, pairing=pairing), inputs_and_cotangent(pairing, dtype))
    assert len(late) == 7 and all(map(torch.equal, late, expected))


@pytest.mark.cuda
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_second_derivatives_do_not_synchronise(pairing: str) -> None:
    inputs = inputs_of(3, 3, 16, 7, 7, torch.float64, "cuda")
    expected, late = on_a_late_stream(
        lambda *x: second_gradients(partial(ops.mixblock_attention, pairing=pairing), x), inputs
    )
    torch.testing.assert_close(late, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_cuda_graph_replays_with_changed_inputs(pairing: str, dtype: torch.dtype) -> None:
    draws = [inputs_and_cotangent(pairing, dtype, seed) for seed in (0, 10, 20)]
    compare_graph_replays(partial(run, pairing=pairing), draws)


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


@pytest.mark.cuda
@needs_a_second_gpu
def test_runs_on_the_device_of_its_inputs() -> None:
    device = f"cuda:{torch.cuda.device_count() - 1}"
    inputs = inputs_of(2, 2, 16, 7, 7, device=device)
    with torch.cuda.device(0):
        results = value_and_gradients(inputs)
    assert all(str(result.device) == device for result in results)
    for own, truth in zip(results, value_and_gradients([x.cpu() for x in inputs]), strict=True):
        torch.testing.assert_close(own.cpu(), truth, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
def test_mixed_devices_are_refused() -> None:
    inputs = inputs_of(2, 2, 3, 4, 4)
    with pytest.raises(ValueError, match="k_f must be on the device of q_f"):
        ops.mixblock_attention(inputs[0].cuda(), *inputs[1:])
