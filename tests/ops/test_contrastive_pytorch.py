"""The losses beside the rest of PyTorch: autograd, tracing, autocast, threads, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from tests.ops.test_contrastive import logits_of, targets_of

registered = torch.ops.pymixunlearn


def mix(z: Tensor, **keywords: Any) -> Tensor:
    """A zip mix loss with label targets."""
    labels = torch.arange(z.shape[0], device=z.device) % z.shape[-1]
    return ops.mix_contrastive_loss(z, labels, labels.flip(0), 0.3, 2.0, **keywords)


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["probabilities", "labels", "teacher"])
def test_gradcheck(device: str, kind: str) -> None:
    T = 0.4 if kind == "teacher" else None
    z, z_r, grid = (logits_of(*s, seed=0, device=device).double() for s in ((4, 5), (6, 5), (4, 6, 5)))
    small, large = (targets_of(kind, n, 5, n, torch.float64, device) for n in (4, 6))
    lam, tau = torch.rand(4, dtype=torch.float64, device=device), torch.tensor(0.7, dtype=torch.float64, device=device)
    operators: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda x: ops.sim_loss(x, small, sharpen_T=T), (z,)),
        (lambda x: ops.mix_contrastive_loss(x, small, small.flip(0), lam, tau, sharpen_T=T), (z,)),
        (lambda x: ops.mix_contrastive_loss(x, small, large, 0.3, 0.7, pairing="grid", sharpen_T=T), (grid,)),
        (lambda x, y: ops.real_contrastive_loss(x, y, small, large, tau, reduction="mean", sharpen_T=T), (z, z_r)),
        (lambda x: ops.sharpen(x, 0.4), (z,)),
    ]
    for operator, inputs in operators:
        assert torch.autograd.gradcheck(operator, [x.clone().requires_grad_() for x in inputs])


def test_gradient_only_where_asked() -> None:
    z_f, z_r = logits_of(3, 4, seed=0), logits_of(5, 4, seed=1).requires_grad_()
    labels = torch.arange(5) % 4
    loss = ops.real_contrastive_loss(z_f, z_r, labels[:3], labels, 1.0)
    (grad,) = torch.autograd.grad(loss, [z_r])
    assert grad.shape == z_r.shape
    assert not ops.real_contrastive_loss(z_f, z_r.detach(), labels[:3], labels, 1.0).requires_grad
    with torch.no_grad():
        assert not ops.sim_loss(z_r, labels).requires_grad


def test_saved_memory_is_the_inputs_and_a_few_numbers_per_row() -> None:
    sizes: list[int] = []
    z = logits_of(256, 100, seed=0).requires_grad_()
    target = torch.softmax(logits_of(256, 100, seed=1), 1)

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in (z.data_ptr(), target.data_ptr()):
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.mix_contrastive_loss(z, target, target, 0.3, 1.0)
    assert sizes == [256 * 9 + 1]


def test_backward_twice_needs_retain_graph_and_agrees() -> None:
    z = logits_of(4, 5, seed=0).requires_grad_()
    loss = mix(z)
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    (second,) = torch.autograd.grad(loss, z)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, z)


def test_second_derivatives(device: str) -> None:
    z, z_r = (logits_of(n, 4, seed=n, device=device).double() for n in (3, 5))
    p, p_r = (targets_of("probabilities", n, 4, n, torch.float64, device) for n in (3, 5))
    operators: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda x: ops.sim_loss(x, p), (z,)),
        (lambda x: ops.mix_contrastive_loss(x, p, p.flip(0), 0.3, 0.7, sharpen_T=0.5), (z,)),
        (lambda x, y: ops.real_contrastive_loss(x, y, p, p_r, 0.7), (z, z_r)),
        (lambda x: ops.sharpen(x, 0.4), (z,)),
    ]
    for operator, inputs in operators:
        assert torch.autograd.gradgradcheck(operator, [x.clone().requires_grad_() for x in inputs])


def test_function_transforms(device: str) -> None:
    z, labels = logits_of(4, 5, seed=0, device=device), torch.arange(4, device=device)
    tangent = logits_of(4, 5, seed=1, device=device)
    leaf = z.clone().requires_grad_()
    loss = ops.sim_loss(leaf, labels)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    value, derivative = torch.func.jvp(lambda x: ops.sim_loss(x, labels), (z,), (tangent,))
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(derivative, (grad * tangent).sum(1))
    torch.testing.assert_close(torch.func.grad(lambda x: ops.sim_loss(x, labels).sum())(z), grad)
    stacked = torch.func.vmap(lambda x: mix(x))(torch.stack([z, tangent]))
    torch.testing.assert_close(stacked, torch.stack([mix(z), mix(tangent)]))


# --- the dispatcher --------------------------------------------------------------------------------------------------


def samples(device: str, dtype: torch.dtype) -> list[tuple[Any, tuple[Any, ...]]]:
    z, z_r, grid = (logits_of(*s, seed=0, dtype=dtype, device=device) for s in ((4, 5), (6, 5), (4, 6, 5)))
    p, p_r = (targets_of("probabilities", n, 5, n, dtype, device) for n in (4, 6))
    labels = torch.arange(4, device=device)
    tau, one = torch.tensor(0.7, device=device), torch.ones((), dtype=dtype, device=device)
    sim_state = registered.sim_loss(z, p, None)[1]
    mix_state = registered.mix_contrastive_loss(grid, p, p_r, None, 0.3, tau, 0.0, True, False, None)[1]
    real_state = registered.real_contrastive_loss(z, z_r, p, p_r, None, 0.7, True, 0.3)[1]
    grad = z.detach()
    leaf, leaf_r, leaf_grid = (x.clone().requires_grad_() for x in (z, z_r, grid))
    return [
        (registered.sharpen, (leaf, 0.3)),
        (registered.sharpen_backward, (grad, z, 0.3)),
        (registered.sim_loss, (leaf, labels, None)),
        (registered.sim_loss, (leaf, p, 0.3)),
        (registered.sim_loss_backward, (torch.ones(4, dtype=dtype, device=device), z, p, sim_state, None)),
        (registered.mix_contrastive_loss, (leaf, labels, labels, None, 0.3, None, 0.7, False, True, None)),
        (registered.mix_contrastive_loss, (leaf_grid, p, p_r, None, 0.3, tau, 0.0, True, False, None)),
        (
            registered.mix_contrastive_loss_backward,
            (one, grid, p, p_r, mix_state, None, 0.3, tau, 0.0, True, False, None),
        ),
        (registered.real_contrastive_loss, (leaf, leaf_r, p, p_r, None, 0.7, True, 0.3)),
        (registered.real_contrastive_loss_backward, (one, z, z_r, p, p_r, real_state, None, 0.7, True, 0.3)),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("index", range(10))
def test_opcheck(device: str, index: int, dtype: torch.dtype) -> None:
    operator, arguments = samples(device, dtype)[index]
    torch.library.opcheck(operator.default, arguments)


def losses(z: Tensor, z_r: Tensor, target: Tensor, target_r: Tensor) -> Tensor:
    mixed = ops.mix_contrastive_loss(z, target, target.flip(0), 0.3, 2.0)
    return mixed + ops.real_contrastive_loss(z, z_r, target, target_r, 2.0) + ops.sim_loss(z, target).sum()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_traces_one_graph_for_all_sizes(device: str, backend: str) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(losses, backend=counter, fullgraph=True, dynamic=True)
    for rows in (4, 7, 12):
        inputs = [logits_of(rows + i, 5, seed=i, device=device) for i in (0, 3)]
        targets = [targets_of("probabilities", rows + i, 5, i, torch.float32, device) for i in (0, 3)]
        plain = [z.clone().requires_grad_() for z in inputs]
        traced = [z.clone().requires_grad_() for z in inputs]
        expected, actual = losses(*plain, *targets), compiled(*traced, *targets)
        expected.backward()
        actual.backward()
        torch.testing.assert_close(actual, expected)
        for a, b in zip(traced, plain, strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    assert counter.frame_count == 1


def test_export_keeps_the_operator() -> None:
    class Loss(torch.nn.Module):
        def forward(self, z: Tensor, target: Tensor) -> Tensor:
            return ops.mix_contrastive_loss(z, target, target, 0.3, 2.0)

    arguments = (logits_of(4, 5, seed=0), torch.arange(4))
    program = torch.export.export(Loss(), arguments)
    assert any("mix_contrastive_loss" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), Loss()(*arguments))


def test_autocast_computes_in_float32(device: str) -> None:
    z = logits_of(8, 5, seed=0, device=device).bfloat16().requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = mix(z)
    loss.backward()
    assert loss.dtype == torch.float32 and z.grad is not None and z.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, mix(z.detach().float()))
    assert mix(z.detach()).dtype == torch.bfloat16


# --- reproducibility -------------------------------------------------------------------------------------------------


def test_bitwise_equal_over_repeats_and_threads() -> None:
    z, target = logits_of(20_000, 33, seed=0), torch.softmax(logits_of(20_000, 33, seed=1), 1)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            leaf = z.clone().requires_grad_()
            loss = ops.mix_contrastive_loss(leaf, target, target.flip(0), 0.3, 2.0)
            loss.backward()
            results.append((loss.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, results[0][0]) and torch.equal(b, results[0][1]) for a, b in results)  # type: ignore[arg-type]
    small = z[:64]
    assert len({mix(small).item() for _ in range(100)}) == 1


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa: str) -> None:
    code = (
        "import torch; from pymixunlearn import ops; from tests.ops.test_contrastive import *;"
        "z = logits_of(50, 37, seed=0).double(); t = targets_of('probabilities', 50, 37, 1, torch.float64, 'cpu');"
        "print(repr(ops.mix_contrastive_loss(z, t, t.flip(0), 0.3, 2.0).item()), ops.status().facts['cpu_isa'])"
    )
    environment = {**os.environ, "PYMIXUNLEARN_CPU_ISA": isa}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    value, used = out.stdout.split()
    z, t = logits_of(50, 37, seed=0).double(), targets_of("probabilities", 50, 37, 1, torch.float64, "cpu")
    expected = ops.reference.mix_contrastive_loss(z, t, t.flip(0), 0.3, 2.0).item()
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert used in ("baseline", "avx2", "avx512")[: ("baseline", "avx2", "avx512").index(isa) + 1]


# --- what is refused -------------------------------------------------------------------------------------------------

Z, P, Y = torch.zeros(4, 5), torch.full((4, 5), 0.2), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.sim_loss([1.0], P), TypeError, "logits must be a tensor, got list"),
        (lambda: ops.sim_loss(Z.int(), P), TypeError, "logits must be float32, .* got torch.int32"),
        (lambda: ops.sim_loss(Z[0], P), ValueError, r"logits must have shape \[N, C\], got \[5\]"),
        (lambda: ops.sim_loss(Z, P[:3]), ValueError, r"target must have shape \[4, 5\] .* got \[3, 5\]"),
        (lambda: ops.sim_loss(Z, Y[:3]), ValueError, r"target must have shape \[4\] \(labels\), got \[3\]"),
        (lambda: ops.sim_loss(Z, Y.int()), TypeError, "target must be floating .* got torch.int32"),
        (lambda: ops.sim_loss(Z, Y, sharpen_T=0.3), ValueError, "sharpen_T needs the teacher's logits"),
        (lambda: ops.sim_loss(Z, P, sharpen_T=0.0), ValueError, "sharpen_T must be above 0, got 0.0"),
        (lambda: ops.sim_loss(Z, P.clone().requires_grad_()), ValueError, "target is a constant .* requires grad"),
        (lambda: ops.sim_loss(Z[:, :0], P[:, :0]), ValueError, "logits must have at least one class"),
        (lambda: ops.sharpen(Z, 0), ValueError, "T must be above 0, got 0"),
        (lambda: ops.mix_contrastive_loss(Z, P, P, 1.5, 1.0), ValueError, r"lam must be in \[0, 1\], got 1.5"),
        (lambda: ops.mix_contrastive_loss(Z, P, P, "a", 1.0), TypeError, "lam must be a float or a tensor, got str"),
        (lambda: ops.mix_contrastive_loss(Z, P, P, 0.5, -1.0), ValueError, "tau must be above 0, got -1.0"),
        (
            lambda: ops.mix_contrastive_loss(Z, P, P, torch.ones(3), 1.0),
            ValueError,
            r"lam must be one value or .* \[4\]",
        ),
        (lambda: ops.mix_contrastive_loss(Z, P, P, 0.5, torch.ones(4)), ValueError, "tau must be a float or a 0-d"),
        (lambda: ops.mix_contrastive_loss(Z, P, Y, 0.5, 1.0), TypeError, "must both be labels or both be floating"),
        (
            lambda: ops.mix_contrastive_loss(Z, P, P, 0.5, 1.0, pairing="all"),
            ValueError,
            "pairing must be one of 'zip', 'grid', got 'all'",
        ),
        (
            lambda: ops.mix_contrastive_loss(Z, P, P, 0.5, 1.0, reduction="none"),
            ValueError,
            "reduction must be one of 'sum', 'mean', got 'none'",
        ),
        (
            lambda: ops.mix_contrastive_loss(Z, P, P, 0.5, 1.0, pairing="grid"),
            ValueError,
            r"logits must have shape \[N_f, N_r, C\], got \[4, 5\]",
        ),
        (
            lambda: ops.real_contrastive_loss(Z, Z[:, :4], P, P, 1.0),
            ValueError,
            "must have the same number of classes, got 5 and 4",
        ),
        (
            lambda: ops.real_contrastive_loss(Z.double(), Z, P, P, 1.0),
            TypeError,
            "must have the same dtype, got torch.float64 and torch.float32",
        ),
        (lambda: ops.sim_loss(Z, P.to("meta")), ValueError, "target must be on the device of logits .* got meta"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- GPU only --------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_no_synchronisation_and_side_stream() -> None:
    z = logits_of(64, 10, seed=0, device="cuda").requires_grad_()
    lam, tau = torch.tensor(0.3, device="cuda"), torch.tensor(2.0, device="cuda")
    labels = torch.arange(64, device="cuda") % 10
    expected = ops.mix_contrastive_loss(z, labels, labels, lam, tau)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(stream):
            loss = ops.mix_contrastive_loss(z, labels, labels, lam, tau)
            loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert torch.equal(loss, expected)


@pytest.mark.cuda
def test_cuda_graph_replays_with_changed_inputs() -> None:
    z = logits_of(32, 10, seed=0, device="cuda").requires_grad_()
    labels = torch.arange(32, device="cuda") % 10
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        mix(z).backward()
    torch.cuda.current_stream().wait_stream(stream)
    z.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ops.mix_contrastive_loss(z, labels, labels, 0.3, 2.0)
        loss.backward()
    fresh = logits_of(32, 10, seed=9, device="cuda")
    with torch.no_grad():
        z.copy_(fresh)
    graph.replay()
    leaf = fresh.clone().requires_grad_()
    expected = ops.mix_contrastive_loss(leaf, labels, labels, 0.3, 2.0)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(z.grad, leaf.grad)


@pytest.mark.cuda
def test_mixed_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="target must be on the device of logits"):
        ops.sim_loss(Z.cuda(), P)
