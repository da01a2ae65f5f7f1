"""The loss operators in the dispatcher: tracing and autocast."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from tests.ops.test_losses import KINDS, LOSSES, logits_of, loss_of, targets_of
from tests.ops.test_losses_pytorch import mix
from tests.ops.tracing import check_compiled

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


def losses(z: Tensor, z_r: Tensor, target: Tensor, target_r: Tensor, teacher: bool = False) -> Tensor:
    """Every loss, on logits and targets of two sizes; numbers stand here, where tracing takes them for constants."""
    extra = {"sharpen_T": 0.3} if teacher else {}
    own = {"grid": [z.unsqueeze(1) + z_r], "real": [z, z_r]}
    total = ops.sharpen(z, 0.3).square().sum()
    for loss in LOSSES:
        retain = target.flip(0) if loss == "zip" else target_r
        total = total + loss_of(ops, loss, own.get(loss, [z]), target, retain, 0.3, 2.0, **extra).sum()
    return total


def loss_arguments(kind: str, rows: int, device: str) -> list[Tensor]:
    """Logits and targets for ``losses``."""
    sizes = (rows, rows + 3)
    logits = [logits_of(n, 5, seed=n, device=device).requires_grad_() for n in sizes]
    return logits + [targets_of(kind, n, 5, n + 1, torch.float32, device) for n in sizes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_traces_one_graph_for_all_sizes(device: str, backend: str, kind: str) -> None:
    draws = (loss_arguments(kind, rows, device) for rows in (4, 7, 12))
    check_compiled(partial(losses, teacher=kind == "teacher"), draws, graphs=1, backend=backend, dynamic=True)


@pytest.mark.parametrize("kind", KINDS)
def test_compile_settles_after_two_graphs(device: str, kind: str) -> None:
    draws = (loss_arguments(kind, rows, device) for rows in (4, 7, 12, 33, 600))
    check_compiled(partial(losses, teacher=kind == "teacher"), draws, graphs=2)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_compile_settles_whatever_the_mixing_ratio(device: str, pairing: str) -> None:
    """A new ratio in every step, as MixUnlearn draws it, must not be a new graph in every step."""

    def both_losses(z: Tensor, target: Tensor, lam: float, tau: float) -> Tensor:
        mixed = ops.mix_contrastive_loss(z, target, target.flip(0), lam, tau, pairing=pairing)
        return mixed + ops.real_contrastive_loss(z.flatten(0, -2), z.flatten(0, -2), z_target, z_target, tau)

    shape = (4, 5) if pairing == "zip" else (4, 4, 5)
    z = logits_of(shape[0] ** (len(shape) - 1), 5, seed=0, device=device).view(shape).requires_grad_()
    target = targets_of("probabilities", 4, 5, 1, torch.float32, device)
    z_target = targets_of("probabilities", z.numel() // 5, 5, 2, torch.float32, device)
    check_compiled(both_losses, ((z, target, step / 12, 2.0 + step) for step in range(12)), graphs=2)


@pytest.mark.parametrize("kind", KINDS)
def test_export_keeps_the_operators_for_all_sizes(kind: str) -> None:
    class Losses(torch.nn.Module):
        def forward(self, z: Tensor, z_r: Tensor, target: Tensor, target_r: Tensor) -> Tensor:
            return losses(z, z_r, target, target_r, teacher=kind == "teacher")

    def arguments(rows: int) -> tuple[Tensor, ...]:
        return tuple(x.detach() for x in loss_arguments(kind, rows, "cpu"))

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
