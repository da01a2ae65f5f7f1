"""The loss operators in the dispatcher: tracing, autocast, and direct calls of ``torch.ops.pymixunlearn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from pymixunlearn import ops
from tests.ops.test_contrastive import logits_of, targets_of
from tests.ops.test_contrastive_pytorch import mix

registered = torch.ops.pymixunlearn


# --- opcheck and tracing ---------------------------------------------------------------------------------------------


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
        (registered.mix_contrastive_loss_and_gradient, (grid, p, p_r, None, 0.3, tau, 0.0, True, False, None)),
        (
            registered.mix_contrastive_loss_backward,
            (one, grid, p, p_r, mix_state, None, 0.3, tau, 0.0, True, False, None),
        ),
        (registered.real_contrastive_loss, (leaf, leaf_r, p, p_r, None, 0.7, True, 0.3)),
        (registered.real_contrastive_loss_and_gradients, (z, z_r, p, p_r, None, 0.7, True, 0.3)),
        *(
            (
                registered.real_contrastive_loss_backward,
                (one, z, z_r, p, p_r, real_state, None, 0.7, True, 0.3, *wanted),
            )
            for wanted in ((True, True), (True, False), (False, True), (False, False))
        ),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("index", range(15))
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


def test_compile_settles_after_two_graphs(device: str) -> None:
    """Without dynamic=True too: one graph for the first size, one for all others."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(losses, backend=counter, fullgraph=True)
    for rows in (4, 7, 12, 33, 600, 2000):
        inputs = [logits_of(rows + i, 5, seed=i, device=device).requires_grad_() for i in (0, 3)]
        targets = [targets_of("probabilities", rows + i, 5, i, torch.float32, device) for i in (0, 3)]
        compiled(*inputs, *targets).backward()
    assert counter.frame_count == 2


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_compile_settles_whatever_the_mixing_ratio(device: str, pairing: str) -> None:
    """A new ratio in every step, as MixUnlearn draws it, must not be a new graph in every step."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def loss_of(z: Tensor, target: Tensor, lam: float, tau: float) -> Tensor:
        mixed = ops.mix_contrastive_loss(z, target, target.flip(0), lam, tau, pairing=pairing)
        return mixed + ops.real_contrastive_loss(z.flatten(0, -2), z.flatten(0, -2), z_target, z_target, tau)

    shape = (4, 5) if pairing == "zip" else (4, 4, 5)
    z = logits_of(shape[0] ** (len(shape) - 1), 5, seed=0, device=device).view(shape)
    target = targets_of("probabilities", 4, 5, 1, torch.float32, device)
    z_target = targets_of("probabilities", z.numel() // 5, 5, 2, torch.float32, device)
    compiled = torch.compile(loss_of, backend=counter, fullgraph=True)
    for step in range(12):
        lam, tau = step / 12, 2.0 + step
        plain, traced = z.clone().requires_grad_(), z.clone().requires_grad_()
        expected, actual = loss_of(plain, target, lam, tau), compiled(traced, target, lam, tau)
        expected.backward()
        actual.backward()
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(traced.grad, plain.grad)
    assert counter.frame_count == 2


def test_export_keeps_the_operators_for_all_sizes() -> None:
    class Losses(torch.nn.Module):
        def forward(self, z: Tensor, z_r: Tensor, target: Tensor, target_r: Tensor) -> Tensor:
            return losses(z, z_r, target, target_r) + ops.sharpen(z).sum()

    def arguments(rows: int) -> tuple[Tensor, ...]:
        inputs = [logits_of(rows + i, 5, seed=i) for i in (0, 3)]
        return *inputs, *(targets_of("probabilities", rows + i, 5, i, torch.float32, "cpu") for i in (0, 3))

    rows, rows_r = torch.export.Dim("rows", min=2), torch.export.Dim("rows_r", min=2)
    shapes = {"z": {0: rows}, "z_r": {0: rows_r}, "target": {0: rows}, "target_r": {0: rows_r}}
    program = torch.export.export(Losses(), arguments(4), dynamic_shapes=shapes)
    called = {str(node.target) for node in program.graph.nodes}
    for name in ("sharpen", "sim_loss", "mix_contrastive_loss", "real_contrastive_loss"):
        assert f"pymixunlearn.{name}.default" in called
    torch.testing.assert_close(program.module()(*arguments(9)), Losses()(*arguments(9)))


def test_autocast_computes_in_float32(device: str) -> None:
    z = logits_of(8, 5, seed=0, device=device).bfloat16().requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = mix(z)
    loss.backward()
    assert loss.dtype == torch.float32 and z.grad is not None and z.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, mix(z.detach().float()))
    assert mix(z.detach()).dtype == torch.bfloat16


def test_autocast_reaches_direct_calls_and_compiled_graphs(device: str) -> None:
    z, target = logits_of(8, 5, seed=0, device=device), targets_of("teacher", 8, 5, 1, torch.float32, device)

    def direct(x: Tensor) -> tuple[Tensor, ...]:
        return (
            registered.sharpen(x, 0.3),
            registered.sim_loss(x, target, 0.3)[0],
            registered.mix_contrastive_loss(x, target, target, None, 0.3, None, 2.0, False, False, 0.3)[0],
            registered.real_contrastive_loss(x, x, target, target, None, 2.0, False, 0.3)[0],
        )

    expected = direct(z.bfloat16().float())
    for function in (direct, torch.compile(direct, backend="aot_eager", fullgraph=True)):
        leaf = z.bfloat16().requires_grad_()
        with torch.autocast(device, dtype=torch.bfloat16):
            results = function(leaf)
        assert [result.dtype for result in results] == [torch.float32] * 4
        torch.testing.assert_close(results, expected)
        sum(result.sum() for result in results).backward()
        assert leaf.grad is not None and leaf.grad.dtype == torch.bfloat16
    with torch.autocast(device, dtype=torch.bfloat16):
        assert registered.sharpen(z.double(), 0.3).dtype == torch.float64


# --- direct calls: right or refused, never silent zeros --------------------------------------------------------------


def direct_calls(device: str) -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Each operator as a function of its differentiable arguments, with values for them."""
    z, z_r = logits_of(4, 5, seed=0, device=device).double(), logits_of(6, 5, seed=1, device=device).double()
    p, p_r = (targets_of("probabilities", n, 5, n, torch.float64, device) for n in (4, 6))
    return {
        "sharpen": (lambda x: registered.sharpen(x, 0.4), (z,)),
        "sim_loss": (lambda x: registered.sim_loss(x, p, None)[0], (z,)),
        "mix_contrastive_loss": (
            lambda x: registered.mix_contrastive_loss(x, p, p.flip(0), None, 0.3, None, 0.7, False, False, None)[0],
            (z,),
        ),
        "real_contrastive_loss": (
            lambda x, y: registered.real_contrastive_loss(x, y, p, p_r, None, 0.7, False, None)[0],
            (z, z_r),
        ),
    }


@pytest.mark.parametrize("name", ["sharpen", "sim_loss", "mix_contrastive_loss", "real_contrastive_loss"])
def test_direct_calls_are_differentiated_twice(device: str, name: str) -> None:
    call, inputs = direct_calls(device)[name]
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(call, leaves) and torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("name", ["sharpen", "sim_loss", "mix_contrastive_loss", "real_contrastive_loss"])
def test_direct_calls_refuse_tangents(device: str, name: str) -> None:
    call, inputs = direct_calls(device)[name]
    with pytest.raises(NotImplementedError, match=f"pymixunlearn::{name} has no forward-mode derivative"):
        torch.func.jvp(call, inputs, tuple(map(torch.ones_like, inputs)))
    with forward_ad.dual_level(), torch.no_grad():
        duals = [forward_ad.make_dual(tensor, torch.ones_like(tensor)) for tensor in inputs]
        with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
            call(*duals)


@pytest.mark.parametrize("name", ["sharpen", "sim_loss", "mix_contrastive_loss", "real_contrastive_loss"])
def test_direct_calls_under_vmap(device: str, name: str) -> None:
    call, inputs = direct_calls(device)[name]
    stacked = [torch.stack([tensor, tensor.flip(0)]) for tensor in inputs]
    leaves = [tensor.clone().requires_grad_() for tensor in stacked]
    results = torch.func.vmap(call)(*leaves)
    expected = torch.stack([call(*(tensor[k] for tensor in leaves)) for k in range(2)])
    torch.testing.assert_close(results, expected)
    torch.testing.assert_close(torch.autograd.grad(results.sum(), leaves), torch.autograd.grad(expected.sum(), leaves))


def test_what_has_no_derivative_says_so(device: str) -> None:
    z, labels = logits_of(4, 5, seed=0, device=device), torch.arange(4, device=device)
    leaf, one = z.clone().requires_grad_(), torch.ones((), device=device)
    sim_state = registered.sim_loss(z, labels, None)[1]
    mix = (labels, labels, None, 0.3, None, 0.7, False, False, None)
    real = (z, labels, labels, None, 0.7, False, None)
    mix_state = registered.mix_contrastive_loss(z, *mix)[1]
    real_state = registered.real_contrastive_loss(z, *real)[1]
    for result in (
        registered.sharpen_backward(z, leaf, 0.3),
        registered.sim_loss_backward(torch.ones(4, device=device), leaf, labels, sim_state, None),
        registered.mix_contrastive_loss_backward(one, leaf, *mix[:2], mix_state, *mix[2:]),
        registered.real_contrastive_loss_backward(one, leaf, *real[:3], real_state, *real[3:], True, True)[0],
        registered.mix_contrastive_loss_and_gradient(leaf, *mix)[0],
        registered.real_contrastive_loss_and_gradients(leaf, *real)[0],
    ):
        with pytest.raises(NotImplementedError, match="has no derivative; for second derivatives use the functions"):
            result.sum().backward()
    target = z.softmax(1).requires_grad_()
    with pytest.raises(ValueError, match="sim_loss differentiates its first 1 argument"):
        registered.sim_loss(leaf, target, None)


def test_direct_calls_refuse_what_memory_safety_forbids() -> None:
    z, p, labels = torch.zeros(4, 5), torch.full((4, 5), 0.2), torch.zeros(4, dtype=torch.int64)
    state = registered.sim_loss(z, p, None)[1]
    mix = (None, 0.3, None, 0.7, False, False, None)
    calls: list[Callable[[], Any]] = [
        lambda: registered.sim_loss(z, p[:3], None),
        lambda: registered.sim_loss(z, torch.zeros(()), None),
        lambda: registered.sim_loss(z, labels[:3], None),
        lambda: registered.sim_loss(z, labels, 0.3),
        lambda: registered.sim_loss_backward(torch.ones(3), z, p, state, None),
        lambda: registered.sim_loss_backward(torch.ones(4), z, p, state[:-1], None),
        lambda: registered.sim_loss_backward(torch.ones(4), z, p, state.double(), None),
        lambda: registered.sim_loss_backward(torch.ones(4), z, p, state.repeat(2)[::2], None),
        lambda: registered.mix_contrastive_loss(z, p, labels, *mix),
        lambda: registered.mix_contrastive_loss_backward(torch.ones(4), z, p, p, torch.zeros(37), *mix),
        lambda: registered.mix_contrastive_loss_backward(torch.ones(()), z, p, p, torch.zeros(36), *mix),
        lambda: registered.real_contrastive_loss(z, z[:, :4], p, p, None, 0.7, False, None),
        lambda: registered.real_contrastive_loss(z, z, p, labels, None, 0.7, False, None),
        lambda: registered.sharpen(z[:, :0], 0.3),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="expected|sharpen_T needs"):
            call()
