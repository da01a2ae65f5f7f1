from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.agreement import TOLERANCE, agree_with_truth, compare_with_truth, gradients
from tests.ops.losses_calls import KINDS, logits_of, targets_of

DTYPES = list(TOLERANCE)
CLASSES = [1, 2, 10, 37, 64, 65, 1000]
LOSSES = ["sim", "zip", "grid", "real"]


def keywords(kind: str) -> dict[str, Any]:
    return {"sharpen_T": 0.3} if kind == "teacher" else {}


def as_double(target: Tensor) -> Tensor:
    return target if target.dtype == torch.int64 else target.double()


def logits_for(loss: str, n_forget: int, n_retain: int, classes: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Logits that a loss of :data:`LOSSES` is differentiated for."""
    shapes: dict[str, list[tuple[int, ...]]] = {
        "grid": [(n_forget, n_retain, classes)],
        "real": [(n_forget, classes), (n_retain, classes)],
    }
    own = shapes.get(loss, [(n_forget, classes)])
    return [logits_of(*shape, seed=i, dtype=dtype, device=device) for i, shape in enumerate(own)]


def loss_of(
    module: Any,
    loss: str,
    logits: Sequence[Tensor],
    forget: Tensor,
    retain: Tensor,
    lam: float | Tensor = 0.3,
    tau: float = 2.0,
    **extra: Any,
) -> Tensor:
    """A loss of :data:`LOSSES` from the operators or from the reference, its constants in float64 if its logits are."""
    if logits[0].dtype == torch.float64:
        forget, retain = as_double(forget), as_double(retain)
        lam = lam.double() if isinstance(lam, Tensor) else lam
    value: Tensor
    if loss == "sim":
        value = module.sim_loss(*logits, forget, **extra)
    elif loss == "real":
        value = module.real_contrastive_loss(*logits, forget, retain, tau, **extra)
    else:
        value = module.mix_contrastive_loss(*logits, forget, retain, lam, tau, pairing=loss, **extra)
    return value


def test_compiled_operators_are_in_use() -> None:
    assert ops.status().available, ops.status().reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sim_loss(device: str, dtype: torch.dtype, classes: int, kind: str) -> None:
    target = targets_of(kind, 33, classes, 1, dtype, device)
    compare_with_truth(
        lambda z: ops.sim_loss(z, target, **keywords(kind)),
        lambda z: reference.sim_loss(z, as_double(target) if z.dtype == torch.float64 else target, **keywords(kind)),
        [logits_of(33, classes, seed=0, dtype=dtype, device=device)],
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_mix_contrastive_loss(
    device: str, pairing: str, dtype: torch.dtype, classes: int, kind: str, reduction: str
) -> None:
    n_forget, n_retain = (32, 32) if pairing == "zip" else (5, 40)
    shape = (n_forget, classes) if pairing == "zip" else (n_forget, n_retain, classes)
    forget = targets_of(kind, n_forget, classes, 1, dtype, device)
    retain = targets_of(kind, n_retain, classes, 2, dtype, device)
    lam = torch.rand(shape[:-1], generator=torch.Generator().manual_seed(3)).to(dtype).to(device)
    extra = {"pairing": pairing, "reduction": reduction, **keywords(kind)}

    def run(module: Any, z: Tensor) -> Tensor:
        if z.dtype == torch.float64:
            return module.mix_contrastive_loss(z, as_double(forget), as_double(retain), lam.double(), 5.0, **extra)
        return module.mix_contrastive_loss(z, forget, retain, lam, 5.0, **extra)

    compare_with_truth(
        lambda z: run(ops, z), lambda z: run(reference, z), [logits_of(*shape, seed=0, dtype=dtype, device=device)]
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_real_contrastive_loss(device: str, dtype: torch.dtype, classes: int, kind: str, reduction: str) -> None:
    forget = targets_of(kind, 9, classes, 1, dtype, device)
    retain = targets_of(kind, 21, classes, 2, dtype, device)

    def run(module: Any, z_f: Tensor, z_r: Tensor) -> Tensor:
        own = (as_double(forget), as_double(retain)) if z_f.dtype == torch.float64 else (forget, retain)
        return module.real_contrastive_loss(z_f, z_r, *own, 5.0, reduction=reduction, **keywords(kind))

    inputs = [logits_of(n, classes, seed=n, dtype=dtype, device=device) for n in (9, 21)]
    compare_with_truth(lambda *z: run(ops, *z), lambda *z: run(reference, *z), inputs)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sharpen(device: str, dtype: torch.dtype, classes: int) -> None:
    inputs = [logits_of(3, 11, classes, seed=0, dtype=dtype, device=device)]
    compare_with_truth(lambda z: ops.sharpen(z, 0.7), lambda z: reference.sharpen(z, 0.7), inputs)


# --- the equations, written out --------------------------------------------------------------------------------------


def literal_sim(z: list[float], t: list[float]) -> float:
    top = max(z)
    e = [math.exp(x - top) for x in z]
    p = [x / sum(e) for x in e]
    inner = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - inner / math.sqrt(sum(a * a for a in p)) / math.sqrt(sum(b * b for b in t))


def test_zip_loss_is_equation_5() -> None:
    z, p_f, p_r = logits_of(6, 4, seed=0).double(), *(logits_of(6, 4, seed=s).double().softmax(1) for s in (1, 2))
    lam, tau = 0.3, 0.7
    s_f = [literal_sim(z[n].tolist(), p_f[n].tolist()) for n in range(6)]
    s_r = [literal_sim(z[n].tolist(), p_r[n].tolist()) for n in range(6)]
    denominator = sum(math.exp(lam * s / tau) for s in s_f)
    loss = sum(math.log(math.exp((1 - lam) * s) / denominator) for s in s_r)
    assert ops.mix_contrastive_loss(z, p_f, p_r, lam, tau).item() == pytest.approx(loss, rel=1e-12)
    assert ops.mix_contrastive_loss(z, p_f, p_r, lam, tau, reduction="mean").item() == pytest.approx(loss / 6)


def test_grid_loss_is_equation_5_with_the_mean_numerator() -> None:
    z, p_f, p_r = logits_of(3, 5, 4, seed=0).double(), *(logits_of(n, 4, seed=n).double().softmax(1) for n in (3, 5))
    lam, tau = 0.3, 0.7
    loss = 0.0
    for j in range(5):
        s_f = [literal_sim(z[i, j].tolist(), p_f[i].tolist()) for i in range(3)]
        s_r = [literal_sim(z[i, j].tolist(), p_r[j].tolist()) for i in range(3)]
        loss += (1 - lam) * sum(s_r) / 3 - math.log(sum(math.exp(lam * s / tau) for s in s_f))
    assert ops.mix_contrastive_loss(z, p_f, p_r, lam, tau, pairing="grid").item() == pytest.approx(loss, rel=1e-12)


def test_real_loss_is_equation_6() -> None:
    z_f, z_r = logits_of(3, 4, seed=0).double(), logits_of(5, 4, seed=1).double()
    p_f, p_r = logits_of(3, 4, seed=2).double().softmax(1), logits_of(5, 4, seed=3).double().softmax(1)
    denominator = sum(math.exp(literal_sim(z_f[i].tolist(), p_f[i].tolist()) / 0.7) for i in range(3))
    loss = sum(math.log(math.exp(literal_sim(z_r[j].tolist(), p_r[j].tolist())) / denominator) for j in range(5))
    assert ops.real_contrastive_loss(z_f, z_r, p_f, p_r, 0.7).item() == pytest.approx(loss, rel=1e-12)


def test_labels_are_one_hot_targets_and_teacher_logits_are_sharpened_ones() -> None:
    z, labels, teacher = logits_of(8, 5, seed=0), torch.arange(8) % 5, logits_of(8, 5, seed=1)
    one_hot = torch.nn.functional.one_hot(labels, 5).float()
    torch.testing.assert_close(ops.sim_loss(z, labels), ops.sim_loss(z, one_hot))
    torch.testing.assert_close(ops.sim_loss(z, teacher, sharpen_T=0.3), ops.sim_loss(z, ops.sharpen(teacher, 0.3)))


# --- numerical corners -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_target_has_cosine_and_gradient_zero(device: str, loss: str) -> None:
    logits = logits_for(loss, 4, 4, 5, torch.float32, device)
    zero = torch.zeros(4, 5, device=device)
    value, grads = gradients(lambda *z: loss_of(ops, loss, z, zero, zero), logits, None)
    # Every s is 1: (1 - lam) N - N (lam / tau + log N), for L_real with 1 instead of lam.
    mixed = 4 * (0.7 - 0.15 - math.log(4))
    expected = {"sim": [1.0] * 4, "real": 4 * (1 - 0.5 - math.log(4))}.get(loss, mixed)
    torch.testing.assert_close(value, torch.tensor(expected, device=device))
    assert not any(grad.any() for grad in grads)

    forget, retain = (targets_of("probabilities", 4, 5, seed, torch.float32, device) for seed in (1, 2))
    forget[1], retain[2] = 0, 0
    agree_with_truth(
        lambda *z: loss_of(ops, loss, z, forget, retain),
        lambda *z: loss_of(reference, loss, z, forget, retain),
        logits,
        None,
    )


@pytest.mark.parametrize("power", [-37, -30, -20, -12, 12, 20, 30, 36])
@pytest.mark.parametrize("loss", LOSSES)
def test_only_the_direction_of_a_target_matters_however_long_it_is(device: str, loss: str, power: int) -> None:
    """Squares of float32 end at 1e-38 and 1e38, norms at 1e-19 and 1e19."""
    logits = logits_for(loss, 4, 4, 5, torch.float32, device)
    forget, retain = (targets_of("probabilities", 4, 5, seed, torch.float32, device) for seed in (1, 2))
    expected = gradients(lambda *z: loss_of(ops, loss, z, forget, retain), logits, None)
    for module in (ops, reference):
        value, grads = gradients(
            lambda *z, f=module: loss_of(f, loss, z, forget * 10.0**power, retain * 10.0**power), logits, None
        )
        torch.testing.assert_close(value, expected[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grads, expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("power", [-250, -160, 160, 250])
def test_only_the_direction_of_a_target_matters_in_float64(device: str, power: int) -> None:
    z, target = logits_of(4, 5, seed=0, device=device).double(), targets_of("teacher", 4, 5, 1, torch.float64, device)
    for module in (ops, reference):
        torch.testing.assert_close(module.sim_loss(z, target * 10.0**power), ops.sim_loss(z, target))


def test_a_target_below_the_normal_numbers_has_no_direction(device: str) -> None:
    z = logits_of(2, 5, seed=0, device=device).requires_grad_()
    target = torch.full((2, 5), 1e-42, device=device)
    for module in (ops, reference):
        loss = module.sim_loss(z, target)
        assert loss.tolist() == [1.0, 1.0]
        assert not torch.autograd.grad(loss.sum(), z)[0].any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_inf_propagate_within_their_row(device: str, value: float) -> None:
    z = logits_of(3, 20, seed=0, device=device)
    z[1, 17] = value
    loss = ops.sim_loss(z.requires_grad_(), targets_of("probabilities", 3, 20, 1, torch.float32, device))
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert torch.isnan(loss).tolist() == [False, True, False]
    assert torch.isnan(grad[1]).all() and torch.isfinite(grad[[0, 2]]).all()
    labels = torch.tensor([0, 1, 2], device=device)
    assert torch.isnan(ops.mix_contrastive_loss(z.detach(), labels, labels, 0.5, 1.0))


def test_masked_classes_get_no_gradient(device: str) -> None:
    z = logits_of(4, 9, seed=0, device=device)
    z[:, 3] = -math.inf
    z.requires_grad_()
    loss = ops.sim_loss(z, torch.tensor([0, 1, 2, 4], device=device))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and z.grad is not None
    assert torch.isfinite(z.grad).all() and not z.grad[:, 3].any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_logits_give_finite_gradients(device: str, dtype: torch.dtype, loss: str) -> None:
    logits = logits_for(loss, 4, 4, 10, dtype, device)
    for z in logits:
        rows = z.view(-1, 10)[:4]
        rows.zero_()
        rows[range(4), [0, 1, 2, 3]] = torch.tensor([1e4, -1e4, 1e30, 300.0], dtype=dtype, device=device)
    forget, retain = torch.arange(4, device=device), torch.arange(4, device=device).flip(0)
    results, _ = agree_with_truth(
        lambda *z: loss_of(ops, loss, z, forget, retain, lam=0.5, tau=0.05),
        lambda *z: loss_of(reference, loss, z, forget, retain, lam=0.5, tau=0.05),
        logits,
        None,
    )
    assert all(torch.isfinite(result).all() for result in results)


@pytest.mark.parametrize("module", [ops, reference], ids=["compiled", "reference"])
def test_label_out_of_range_makes_its_row_nan(device: str, module: Any) -> None:
    loss = module.sim_loss(logits_of(3, 4, seed=0, device=device), torch.tensor([0, 4, -1], device=device))
    assert torch.isnan(loss).tolist() == [False, True, True]


def test_an_empty_batch_has_loss_zero(device: str) -> None:
    empty, labels = (
        torch.zeros(0, 7, device=device, requires_grad=True),
        torch.zeros(0, dtype=torch.int64, device=device),
    )
    full, own = logits_of(3, 7, seed=0, device=device).requires_grad_(), torch.tensor([0, 1, 2], device=device)
    assert ops.sim_loss(empty, labels).shape == (0,)
    assert ops.sharpen(empty).shape == (0, 7)
    for loss in (
        ops.mix_contrastive_loss(empty, labels, labels, 0.5, 1.0),
        ops.mix_contrastive_loss(torch.zeros(0, 3, 7, device=device), labels, own, 0.5, 1.0, pairing="grid"),
        ops.mix_contrastive_loss(torch.zeros(3, 0, 7, device=device), own, labels, 0.5, 1.0, pairing="grid"),
        ops.real_contrastive_loss(full, empty, own, labels, 1.0),
    ):
        assert loss.item() == 0
    only_retain = ops.real_contrastive_loss(empty, full, labels, own, 1.0)
    torch.testing.assert_close(only_retain, ops.sim_loss(full, own).sum())
    grads = torch.autograd.grad(only_retain, [empty, full])
    assert grads[0].shape == (0, 7) and grads[1].abs().sum() > 0


# --- shapes, strides, dtypes at random -------------------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, str, str]:
    rows, classes = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    layout = draw(st.sampled_from(["contiguous", "transposed", "sliced", "expanded", "stepped"]))
    return rows, classes, layout, draw(st.sampled_from(KINDS))


def laid_out(dense: Tensor, layout: str) -> Tensor:
    """The same values (the same first row, if expanded) in another memory layout."""
    if layout == "transposed":
        return dense.t().contiguous().t()
    if layout == "sliced":
        padded = dense.new_full((dense.shape[0] + 2, dense.shape[1] + 3), math.nan)
        padded[1:-1, 2:-1] = dense
        return padded[1:-1, 2:-1]
    if layout == "expanded":
        return dense[:1].expand_as(dense)
    if layout == "stepped":
        wide = dense.new_full((dense.shape[0], 2 * dense.shape[1]), math.nan)
        wide[:, ::2] = dense
        return wide[:, ::2]
    return dense


@settings(max_examples=120, deadline=None)
@given(layouts(), st.sampled_from(DTYPES), st.sampled_from(["contiguous", "sliced", "expanded", "stepped"]))
def test_any_layout_agrees_with_the_reference(
    device: str, case: tuple[int, int, str, str], dtype: torch.dtype, grad_layout: str
) -> None:
    rows, classes, layout, kind = case
    z = laid_out(logits_of(rows, classes, seed=rows, dtype=dtype, device=device), layout)
    target = targets_of(kind, rows, classes, classes, dtype, device)
    if kind != "labels":
        target = laid_out(target, layout)
    cotangent = laid_out(logits_of(rows, 1, seed=5, dtype=dtype, device=device), grad_layout)[:, 0]
    results, _ = agree_with_truth(
        lambda z: loss_of(ops, "sim", [z], target, target, **keywords(kind)),
        lambda z: loss_of(reference, "sim", [z], target, target, **keywords(kind)),
        [z],
        cotangent,
    )
    if device == "cpu":  # a GPU sums up in another order where rows cannot be read in packs
        own = target.contiguous()
        value, grads = gradients(
            lambda z: ops.sim_loss(z, own, **keywords(kind)), [z.contiguous()], cotangent.contiguous()
        )
        assert all(map(torch.equal, results, [value, *grads]))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_layout_of_the_contrastive_losses_agrees_with_the_reference(device: str, data: st.DataObject) -> None:
    n_forget, n_retain = data.draw(st.integers(0, 12), "n_forget"), data.draw(st.integers(0, 12), "n_retain")
    classes, dtype = data.draw(st.integers(1, 40), "classes"), data.draw(st.sampled_from(DTYPES), "dtype")
    kind, loss = data.draw(st.sampled_from(KINDS), "kind"), data.draw(st.sampled_from(LOSSES[1:]), "loss")
    layout = data.draw(st.sampled_from(["transposed", "sliced", "expanded", "stepped"]), "layout")
    extra = {"reduction": data.draw(st.sampled_from(["sum", "mean"]), "reduction"), **keywords(kind)}
    n_retain = n_forget if loss == "zip" else n_retain
    if layout == "expanded" and 0 in (n_forget, n_retain):
        return
    forget, retain = (targets_of(kind, n, classes, n, dtype, device) for n in (n_forget, n_retain))
    if kind != "labels":
        forget, retain = laid_out(forget, layout), laid_out(retain, layout)
    logits = logits_for(loss, n_forget, n_retain, classes, dtype, device)
    rows = logits[0].shape[:-1]
    lam = torch.rand(rows.numel(), 1, generator=torch.Generator().manual_seed(3)).to(dtype).to(device)
    lam = laid_out(lam, layout)[:, 0].unflatten(0, rows)
    logits = [laid_out(z.flatten(0, -2), layout).unflatten(0, z.shape[:-1]) for z in logits]
    results, _ = agree_with_truth(
        lambda *z: loss_of(ops, loss, z, forget, retain, lam, **extra),
        lambda *z: loss_of(reference, loss, z, forget, retain, lam, **extra),
        logits,
        None,
    )
    if device == "cpu":  # see above
        constants = [tensor.contiguous() for tensor in (forget, retain, lam)]
        value, grads = gradients(
            lambda *z: loss_of(ops, loss, z, *constants, **extra), [z.contiguous() for z in logits], None
        )
        assert all(map(torch.equal, results, [value, *grads]))


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "stepped"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sharpen_takes_any_layout(device: str, dtype: torch.dtype, layout: str) -> None:
    z, cotangent = (laid_out(logits_of(9, 13, seed=s, dtype=dtype, device=device), layout) for s in (0, 1))
    results, _ = agree_with_truth(lambda z: ops.sharpen(z, 0.5), lambda z: reference.sharpen(z, 0.5), [z], cotangent)
    value, grads = gradients(lambda z: ops.sharpen(z, 0.5), [z.contiguous()], cotangent.contiguous())
    assert all(map(torch.equal, results, [value, *grads]))


@pytest.mark.parametrize(("rows", "classes"), [(1, 200_000), (2, 70_001), (300_000, 2), (1, 1)])
def test_from_one_row_to_very_many_and_very_many_classes(device: str, rows: int, classes: int) -> None:
    labels = targets_of("labels", rows, classes, 1, torch.float32, device)
    retain = labels.flip(0)
    compare_with_truth(
        lambda z: ops.mix_contrastive_loss(z, labels, retain, 0.3, 5.0, reduction="mean"),
        lambda z: reference.mix_contrastive_loss(z, labels, retain, 0.3, 5.0, reduction="mean"),
        [logits_of(rows, classes, seed=0, device=device)],
    )


def test_float_targets_keep_their_precision_beside_half_logits() -> None:
    z, target = logits_of(16, 50, seed=0), logits_of(16, 50, seed=1).softmax(1)
    for dtype in (torch.bfloat16, torch.float16):
        half = z.to(dtype)
        truth = reference.sim_loss(half.double(), target.double())
        assert (ops.sim_loss(half, target).double() - truth).abs().max() < 1e-2
        # The rounding of the output is all that is lost: the state behind it is in float32.
        _, state = torch.ops.pymixunlearn.sim_loss(half, target, None)
        torch.testing.assert_close(state.view(16, 5)[:, 1].double(), truth, rtol=1e-5, atol=1e-6)


def test_two_targets_of_two_dtypes_keep_the_finer_one() -> None:
    z, wide = logits_of(16, 50, seed=0).bfloat16(), logits_of(16, 50, seed=1).softmax(1)
    coarse = wide.flip(0).bfloat16()
    for pair in ((wide, coarse), (coarse, wide)):
        state = torch.ops.pymixunlearn.mix_contrastive_loss(z, *pair, None, 0.3, None, 5.0, False, False, None)[1]
        for slot, target in zip((1, 5), pair, strict=True):
            truth = reference.sim_loss(z.double(), target.double())
            torch.testing.assert_close(state[:-1].view(16, 9)[:, slot].double(), truth, rtol=1e-5, atol=1e-6)
        loss = ops.real_contrastive_loss(z, z, *pair, 5.0)
        torch.testing.assert_close(loss, ops.real_contrastive_loss(z, z, pair[0].float(), pair[1].float(), 5.0))
