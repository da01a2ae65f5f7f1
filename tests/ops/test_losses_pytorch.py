"""The losses beside the rest of PyTorch: autograd, tracing, autocast, threads, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops._torch.call import _is_one
from tests.ops.agreement import second_gradients
from tests.ops.gpu import compare_graph_replays, needs_a_second_gpu, on_a_late_stream
from tests.ops.test_losses import KINDS, LOSSES, keywords, logits_for, logits_of, loss_of, targets_of

registered = torch.ops.pymixunlearn


def mix(z: Tensor) -> Tensor:
    """A zip mix loss with label targets."""
    labels = torch.arange(z.shape[0], device=z.device) % z.shape[-1]
    return ops.mix_contrastive_loss(z, labels, labels.flip(0), 0.3, 2.0)


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
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


def test_batched_incoming_gradients() -> None:
    z = logits_of(6, 5, seed=0).requires_grad_()
    incoming = torch.tensor([1.0, -2.0])
    (batched,) = torch.autograd.grad(mix(z), z, incoming, is_grads_batched=True)
    loss = mix(z)
    (single,) = torch.autograd.grad(loss, z, retain_graph=True)
    assert torch.allclose(batched, torch.stack([single, -2 * single]))
    mapped = torch.vmap(lambda grad: torch.autograd.grad(loss, z, grad, retain_graph=True)[0])(incoming)
    assert torch.allclose(mapped, batched)


def test_backward_twice_needs_retain_graph_and_agrees() -> None:
    z = logits_of(4, 5, seed=0).requires_grad_()
    loss = mix(z)
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    (second,) = torch.autograd.grad(loss, z)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, z)


def test_second_derivatives(device: str) -> None:
    z, z_r, grid = (logits_of(*s, seed=0, device=device).double() for s in ((3, 4), (5, 4), (3, 5, 4)))
    p, p_r = (targets_of("probabilities", n, 4, n, torch.float64, device) for n in (3, 5))
    lam = torch.rand(3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(device)
    operators: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda x: ops.sim_loss(x, p), (z,)),
        (lambda x: ops.mix_contrastive_loss(x, p, p.flip(0), 0.3, 0.7, sharpen_T=0.5), (z,)),
        (lambda x: ops.mix_contrastive_loss(x, p, p_r, lam, 0.7, pairing="grid"), (grid,)),
        (lambda x, y: ops.real_contrastive_loss(x, y, p, p_r, 0.7), (z, z_r)),
        (lambda x: ops.sharpen(x, 0.4), (z,)),
    ]
    for operator, inputs in operators:
        assert torch.autograd.gradgradcheck(operator, [x.clone().requires_grad_() for x in inputs])


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


# --- reproducibility -------------------------------------------------------------------------------------------------


def values_and_gradients(
    z: Tensor, target: Tensor, lam: float | Tensor = 0.3, tau: float | Tensor = 2.0, **extra: Any
) -> list[Tensor]:
    """Every loss and its gradients, on one set of logits [N, C]; a lam that is a tensor has a value for each row."""
    grid_rows = 8
    grid = z[: grid_rows * grid_rows].reshape(grid_rows, grid_rows, -1)
    grid_lam = lam[: grid_rows * grid_rows].reshape(grid_rows, grid_rows) if isinstance(lam, Tensor) else lam
    few, last = target[:grid_rows], target[-grid_rows:]
    calls: list[tuple[Callable[..., Tensor], list[Tensor]]] = [
        (lambda x: ops.sharpen(x), [z]),
        (lambda x: ops.sim_loss(x, target, **extra), [z]),
        (lambda x: ops.mix_contrastive_loss(x, target, target.flip(0), lam, tau, **extra), [z]),
        (lambda x: ops.mix_contrastive_loss(x, few, last, grid_lam, tau, pairing="grid", **extra), [grid]),
        (lambda x, y: ops.real_contrastive_loss(x, y, target[: len(x)], target, tau, **extra), [z[: len(z) // 3], z]),
    ]
    results: list[Tensor] = []
    for call, inputs in calls:
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        value = call(*leaves)
        results += [value.detach(), *torch.autograd.grad(value.sum(), leaves)]
    return results


@pytest.mark.parametrize("rows", [64, 20_000])
def test_bitwise_equal_over_threads(rows: int) -> None:
    z, target = logits_of(rows, 33, seed=0), torch.softmax(logits_of(rows, 33, seed=1), 1)
    threads = torch.get_num_threads()
    expected = values_and_gradients(z, target)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, values_and_gradients(z, target), expected))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_equal_over_a_hundred_runs_in_deterministic_mode(device: str, dtype: torch.dtype) -> None:
    z = logits_of(64, 33, seed=0, dtype=dtype, device=device)
    target = targets_of("probabilities", 64, 33, 1, dtype, device)
    expected = values_and_gradients(z, target)
    torch.use_deterministic_algorithms(True)
    try:
        assert all(all(map(torch.equal, values_and_gradients(z, target), expected)) for _ in range(100))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa: str) -> None:
    code = (
        "import torch; from pymixunlearn import ops; from tests.ops.test_losses import *;"
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


def inputs_on_the_gpu(kind: str, rows: int, seed: int = 0) -> list[Tensor]:
    """Logits, targets, one lam for each row and tau, as ``values_and_gradients`` takes them."""
    generator = torch.Generator().manual_seed(seed)
    return [
        logits_of(rows, 33, seed=seed, device="cuda"),
        targets_of(kind, rows, 33, seed + 1, torch.float32, "cuda"),
        torch.rand(rows, generator=generator).cuda(),
        (1 + torch.rand((), generator=generator)).cuda(),
    ]


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [64, 20_000])
def test_a_side_stream_without_synchronisation(rows: int, kind: str) -> None:
    inputs = inputs_on_the_gpu(kind, rows)
    for numbers in (inputs, inputs[:2]):  # lam and tau as tensors, and as Python numbers
        expected, late = on_a_late_stream(partial(values_and_gradients, **keywords(kind)), numbers)
        assert len(late) == 11 and all(map(torch.equal, late, expected))


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivatives_do_not_synchronise(loss: str, kind: str) -> None:
    logits = logits_for(loss, 6, 6, 33, torch.float64, "cuda")
    targets = [targets_of(kind, 6, 33, seed, torch.float64, "cuda") for seed in (1, 2)]

    def run(*inputs: Tensor) -> list[Tensor]:
        *z, forget, retain = inputs
        return second_gradients(lambda *z: loss_of(ops, loss, z, forget, retain, **keywords(kind)), z)

    expected, late = on_a_late_stream(run, [*logits, *targets])
    torch.testing.assert_close(late, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [64, 20_000])
def test_cuda_graph_replays_with_changed_inputs(rows: int, kind: str) -> None:
    """Logits, targets, lam and tau all change between the replays."""
    draws = [inputs_on_the_gpu(kind, rows, seed) for seed in (0, 10, 20)]
    compare_graph_replays(partial(values_and_gradients, **keywords(kind)), draws)


@pytest.mark.cuda
@needs_a_second_gpu
def test_work_goes_to_the_device_of_the_tensors() -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    z, target = (
        logits_of(64, 33, seed=0, device=str(last)),
        torch.softmax(logits_of(64, 33, seed=1, device=str(last)), 1),
    )
    with torch.cuda.device(last):
        expected = values_and_gradients(z, target)
    with torch.cuda.device(0):
        actual = values_and_gradients(z, target)
        assert torch.cuda.current_device() == 0
    assert all(result.device == last for result in actual)
    assert all(map(torch.equal, actual, expected))


@pytest.mark.cuda
def test_mixed_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="target must be on the device of logits"):
        ops.sim_loss(Z.cuda(), P)
