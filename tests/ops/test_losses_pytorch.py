"""What only the losses promise beside the rest of PyTorch: saved memory, small losses, mixing ratios, autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops._checks import _extremes
from pymixunlearn.ops._torch.call import _is_one
from tests.ops.test_losses import KINDS, LOSSES, logits_for, logits_of, loss_of, targets_of
from tests.ops.tracing import check_compiled

registered = torch.ops.pymixunlearn


def mix(z: Tensor) -> Tensor:
    """A zip mix loss with label targets."""
    labels = torch.arange(z.shape[0], device=z.device) % z.shape[-1]
    return ops.mix_contrastive_loss(z, labels, labels.flip(0), 0.3, 2.0)


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [5, 3000])
@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_gradient_only_where_asked(device: str, rows: int, wanted: tuple[bool, bool]) -> None:
    z_f, z_r = logits_of(3, 10, seed=0, device=device), logits_of(rows, 10, seed=1, device=device)
    labels = torch.arange(rows, device=device) % 10
    both = [z.clone().requires_grad_() for z in (z_f, z_r)]
    expected = torch.autograd.grad(ops.real_contrastive_loss(*both, labels[:3], labels, 1.0), both)
    some = [z.clone().requires_grad_(want) for z, want in zip((z_f, z_r), wanted, strict=True)]
    ops.real_contrastive_loss(*some, labels[:3], labels, 1.0).backward()
    for z, want, grad in zip(some, wanted, expected, strict=True):
        assert torch.equal(z.grad, grad) if want else z.grad is None
    assert not ops.real_contrastive_loss(z_f, z_r, labels[:3], labels, 1.0).requires_grad
    with torch.no_grad():
        assert not ops.sim_loss(both[1], labels).requires_grad


def saved_by(call: Callable[[], Tensor], inputs: list[Tensor]) -> list[int]:
    """Numbers of elements that a call saves for its backward, its inputs apart."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in [own.data_ptr() for own in inputs]:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sizes


def test_saved_memory_is_the_inputs_and_a_few_numbers_per_row(device: str) -> None:
    z = logits_of(256, 100, seed=0, device=device).requires_grad_()
    target = torch.softmax(logits_of(256, 100, seed=1, device=device), 1)
    inputs = [z, target]
    assert saved_by(lambda: ops.sharpen(z), inputs) == []
    assert saved_by(lambda: ops.sim_loss(z, target), inputs) == [256 * 5]
    assert saved_by(lambda: ops.sim_loss(z, target, sharpen_T=0.3), inputs) == [256 * 5]
    assert saved_by(lambda: ops.mix_contrastive_loss(z, target, target, 0.3, 1.0), inputs) == [256 * 9 + 1]
    assert saved_by(lambda: ops.real_contrastive_loss(z, z, target, target, 1.0), inputs) == [512 * 5 + 1]
    # Few elements: the forward computes the gradients, which then are what is saved.
    z, target = z[:16], target[:16]
    assert saved_by(lambda: ops.mix_contrastive_loss(z, target, target, 0.3, 1.0), [z, target]) == [1600]
    assert saved_by(lambda: ops.real_contrastive_loss(z, z, target, target, 1.0), [z, target]) == [1600, 1600]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_the_forward_are_those_of_the_backward(device: str, dtype: torch.dtype, kind: str) -> None:
    z, z_r, grid = (logits_of(*s, seed=0, dtype=dtype, device=device) for s in ((4, 5), (6, 5), (4, 6, 5)))
    p, p_r = (targets_of(kind, n, 5, n, dtype, device) for n in (4, 6))
    T, scale = 0.3 if kind == "teacher" else None, torch.tensor(-2.5, dtype=dtype, device=device)
    for leaves, small, arguments in (
        ([z], ops.mix_contrastive_loss, (p, p.flip(0), None, 0.3, None, 0.7, False, True, T)),
        ([grid], ops.mix_contrastive_loss, (p, p_r, None, 0.3, None, 0.7, True, False, T)),
        ([z, z_r], ops.real_contrastive_loss, (p, p_r, None, 0.7, True, T)),
    ):
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        loss, _ = getattr(registered, small.__name__)(*own, *arguments)
        expected = torch.autograd.grad(loss, own, scale)
        extra: dict[str, Any] = {"sharpen_T": T, "reduction": "mean" if arguments[-2] else "sum"}
        if small is ops.mix_contrastive_loss:
            extra |= {"lam": 0.3, "pairing": "grid" if arguments[-3] else "zip"}
        value = small(*own, *arguments[:2], tau=0.7, **extra)
        actual = torch.autograd.grad(value, own, scale)
        torch.testing.assert_close(value, loss)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_small_loss_is_its_own_whatever_becomes_of_it() -> None:
    """The forward computed it, and the backward of an unweighted loss hands it out."""
    z, z_retain = logits_of(4, 5, seed=0).requires_grad_(), logits_of(6, 5, seed=1).requires_grad_()
    small, large = torch.arange(4), torch.arange(6) % 5
    loss = ops.real_contrastive_loss(z, z_retain, small, large, 2.0)
    weighted = torch.autograd.grad(3 * loss, (z, z_retain), retain_graph=True)
    loss.backward(retain_graph=True)
    assert z.grad is not None and z_retain.grad is not None
    first = z.grad.clone(), z_retain.grad.clone()
    assert all(torch.allclose(three, 3 * one) for three, one in zip(weighted, first, strict=True))
    z.grad.mul_(7)  # as clipping does
    loss.backward(retain_graph=True)
    assert torch.allclose(z.grad, 8 * first[0]) and torch.allclose(z_retain.grad, 2 * first[1])

    (handed,) = torch.autograd.grad(loss, z, retain_graph=True)
    handed.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, z)


def test_only_on_the_cpu_is_an_incoming_gradient_looked_at() -> None:
    assert _is_one(torch.ones(())) and not _is_one(torch.tensor(2.0))

    class Elsewhere:
        is_cpu = False

        def item(self) -> float:
            raise AssertionError("reading it waits for the device")

    assert not _is_one(Elsewhere())  # type: ignore[arg-type]


def test_only_on_the_cpu_are_ratios_and_temperatures_looked_at() -> None:
    class Elsewhere(Tensor):
        @property
        def is_cpu(self) -> bool:  # type: ignore[override]
            return False

        def item(self) -> float:
            raise AssertionError("reading it waits for the device")

    assert _extremes(torch.tensor([0.25, 0.75])) == (0.25, 0.75)
    assert _extremes(torch.ones(2).as_subclass(Elsewhere)) == ()
    assert _extremes(torch.ones(2, device="meta")) == ()
    assert torch.vmap(lambda lam: torch.ones(()) * len(_extremes(lam)))(torch.ones(3)).tolist() == [0, 0, 0]


def test_batched_incoming_gradients() -> None:
    z = logits_of(6, 5, seed=0).requires_grad_()
    incoming = torch.tensor([1.0, -2.0])
    (batched,) = torch.autograd.grad(mix(z), z, incoming, is_grads_batched=True)
    loss = mix(z)
    (single,) = torch.autograd.grad(loss, z, retain_graph=True)
    assert torch.allclose(batched, torch.stack([single, -2 * single]))
    mapped = torch.vmap(lambda grad: torch.autograd.grad(loss, z, grad, retain_graph=True)[0])(incoming)
    assert torch.allclose(mapped, batched)


@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0)])
@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivatives_of_empty_batches(device: str, loss: str, sizes: tuple[int, int]) -> None:
    n_forget, n_retain = (sizes[0], sizes[0]) if loss in ("sim", "zip") else sizes
    leaves = [z.requires_grad_() for z in logits_for(loss, n_forget, n_retain, 5, torch.float64, device)]
    forget, retain = (torch.arange(n, device=device) for n in (n_forget, n_retain))
    value = loss_of(ops, loss, leaves, forget, retain).sum()
    once = torch.autograd.grad(value, leaves, retain_graph=True)
    grads = torch.autograd.grad(value, leaves, create_graph=True)
    torch.testing.assert_close(grads, once)
    squares = torch.stack([grad.square().sum() for grad in grads]).sum()
    for second, z in zip(torch.autograd.grad(squares, leaves, materialize_grads=True), leaves, strict=True):
        assert second.shape == z.shape and torch.isfinite(second).all()


# --- tracing and autocast --------------------------------------------------------------------------------------------


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
