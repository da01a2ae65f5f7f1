"""Tensors whose elements lie more than 2^31 apart, or that have more elements than that: offsets of 32 bits would wrap.

The former are views of a huge allocation, of which a CPU's system hands out no more than is touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.agreement import assert_close, gradients
from tests.ops.test_attention import inputs_of, value_and_gradients
from tests.ops.test_losses import LOSSES, logits_for, logits_of, loss_of, targets_of
from tests.ops.test_mask_mix import LAYOUTS, draw, pixels

registered = torch.ops.pymixunlearn

#: Steps of up to 11 samples, and of 16, divide it into multiples of 16 bytes.
SPAN = math.ceil(2**31 / 20160) * 20160


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.large])])
def device(request: pytest.FixtureRequest) -> str:
    """A GPU's memory is taken as soon as it is asked for."""
    return str(request.param)


def far_apart(tensors: Sequence[Tensor], dim: int = 0) -> list[Tensor]:
    """Copies whose first and last entry along a dimension (the first one, where there is no such) are SPAN apart.

    All lie in one allocation.
    """
    sizes = [tensor.numel() // 64 * 64 + 64 for tensor in tensors]
    memory = torch.empty(SPAN + sum(sizes), dtype=tensors[0].dtype, device=tensors[0].device)
    copies = []
    for i, tensor in enumerate(tensors):
        along = dim if dim < tensor.dim() else 0
        rest = list(tensor.shape)
        rest[along] = 1
        strides = list(torch.empty(rest, device="meta").stride())
        strides[along], remainder = divmod(SPAN, tensor.shape[along] - 1)
        assert remainder == 0
        copies.append(memory.as_strided(tensor.shape, strides, sum(sizes[:i])).copy_(tensor))
    return copies


def loss_with(*logits: Tensor, loss: str, constants: tuple[Tensor, ...]) -> Tensor:
    return loss_of(ops, loss, logits, *constants)


@pytest.mark.parametrize("classes", [33, 96, 8200])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_rows_far_apart(device: str, loss: str, dtype: torch.dtype, classes: int) -> None:
    logits = logits_for(loss, 4, 4, classes, dtype, device)
    targets = [targets_of("probabilities", 4, classes, seed, dtype, device) for seed in (1, 2)]
    rows = logits[0].shape[:-1]
    lam, incoming = torch.rand(2, rows.numel(), generator=torch.Generator().manual_seed(3)).to(dtype).to(device)
    dense = [*(z.flatten(0, -2) for z in logits), *targets, lam, incoming]
    results = []
    for tensors in (dense, far_apart(dense)):
        *own, forget, retain, lam, incoming = tensors
        own = [z.unflatten(0, like.shape[:-1]) for z, like in zip(own, logits, strict=True)]
        run = partial(loss_with, loss=loss, constants=(forget, retain, lam.unflatten(0, rows)))
        value, grads = gradients(run, own, incoming if loss == "sim" else None)
        results.append([value, *grads])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("images", ["float16", "bytes"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_mixes_of_images_far_apart(device: str, pairing: str, layout: str, images: str) -> None:
    n_forget, n_retain, pairs = (3, 3, 3) if pairing == "zip" else (2, 3, 6)
    size, order = (3, 8, 16), (0, 2, 3, 1) if layout == "channels_last" else (0, 1, 2, 3)
    back = [order.index(i) for i in range(4)]
    if images == "bytes":
        both = [pixels(n, 3, size[1:], n, device) for n in (n_forget, n_retain)]
    else:
        both = [draw(n, *size, seed=i, dtype=torch.float16, device=device) for i, n in enumerate((n_forget, n_retain))]
    mask = draw(pairs, 3, 4, seed=7, device=device, scale=3)
    incoming = draw(pairs, *size, seed=8, dtype=torch.float16, device=device)

    def spread(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [x.permute(back) for x in far_apart([x.permute(order) for x in tensors])]

    dense = [x.contiguous(memory_format=LAYOUTS[layout]) for x in (*both, incoming)]
    results = []
    for *own, cotangent in (dense, [*spread(both), *spread([incoming])]):
        if images == "bytes":
            mixed = ops.mask_mix(*own, mask, pairing=pairing, dtype=torch.float16)
            by_mask = registered.mask_mix_backward_mask(cotangent, *own, mask, pairing == "grid", [], [])
            results.append([mixed, by_mask])
        else:
            mixed, grads = gradients(lambda *x: ops.mask_mix(*x, pairing=pairing), [*own, mask], cotangent)
            results.append([mixed, *grads])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_attention_of_maps_far_apart(device: str, pairing: str, dim: int) -> None:
    """Images, channels or positions."""
    dense = inputs_of(3, 3, 4, 4, 4, torch.bfloat16, device)
    flat = [x.flatten(-2) for x in dense]
    keys = far_apart([flat[i] for i in (0, 1, 3, 4)], dim)
    values = far_apart([flat[i] for i in (2, 5)], 1 if dim == 2 else 0)
    far = [x.unflatten(-1, (4, 4)) for x in (*keys[:2], values[0], *keys[2:], values[1])]
    grad = torch.randn(9 if pairing == "grid" else 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(dense[0])
    assert all(map(torch.equal, value_and_gradients(far, pairing, grad), value_and_gradients(dense, pairing, grad)))


# --- more elements than 2^31: about 10 GB each ------------------------------------------------------------------------


def assert_same_scale(actual: Tensor, expected: Tensor) -> None:
    """Rows that were not written, or belong elsewhere, are off by as much as the largest element."""
    largest = expected.double().abs().max()
    assert torch.isfinite(largest) and largest > 1e-3
    assert (actual.double() - expected.double()).abs().max() <= 4e-3 * largest


def huge_logits(rows: int, classes: int, tail: Tensor) -> Tensor:
    z = torch.zeros(rows, classes, dtype=tail.dtype, device=tail.device)
    z[-len(tail) :] = tail
    return z


@pytest.mark.large
@pytest.mark.parametrize("classes", [1000, 200_000])
def test_losses_of_very_many_rows(device: str, classes: int) -> None:
    """The last rows, whose offsets need 64 bits, against the same rows on their own."""
    rows = 2**31 // classes + 50
    tail = logits_of(40, classes, seed=0, dtype=torch.float16, device=device)
    labels = (torch.arange(rows, device=device) * 7) % classes
    # Labels that the tail finds likely, or its gradients would vanish among the roundings.
    labels[-40:] = tail.argmax(1)
    z = huge_logits(rows, classes, tail)
    last, flipped = labels[-40:].clone(), labels.flip(0)
    assert torch.equal(ops.sharpen(z)[-40:], ops.sharpen(tail))
    # The logits stand for the incoming gradient too: there is no room for another.
    assert torch.equal(registered.sharpen_backward(z, z, 0.3)[-40:], registered.sharpen_backward(tail, tail, 0.3))

    loss, (grad,) = gradients(lambda x: ops.sim_loss(x, labels), [z], None)
    expected, (expected_grad,) = gradients(lambda x: ops.sim_loss(x, last), [tail], None)
    assert torch.equal(loss[-40:], expected) and torch.equal(grad[-40:], expected_grad)
    del grad
    _, (_, grad) = gradients(lambda x, y: ops.real_contrastive_loss(x, y, last, labels, 2.0), [tail, z], None)
    assert torch.equal(grad[-40:], expected_grad)
    del grad

    # Losses over all rows, from the rows' own.
    s_forget, s_retain, exact = loss.double(), ops.sim_loss(z, flipped).double(), tail.double().requires_grad_()
    own_forget, own_retain = (reference.sim_loss(exact, x[-40:]) for x in (labels, flipped))
    shares = torch.softmax(s_forget / 2, 0)[-40:] * 40
    weight = torch.tensor(2.0**14, dtype=torch.float16, device=device)
    value, (grad, _) = gradients(lambda x, y: ops.real_contrastive_loss(x, y, labels, last, 2.0), [z, tail], weight)
    assert_close("real", value, expected.double().sum() - 40 * torch.logsumexp(s_forget / 2, 0), torch.float16)
    (truth,) = torch.autograd.grad((-shares / 2 * own_forget).sum(), exact, retain_graph=True)
    assert_same_scale(grad[-40:], truth * 2**14)
    del grad
    value = ops.mix_contrastive_loss(z, labels, flipped, 0.3, 2.0, reduction="mean")
    lse = torch.logsumexp(0.15 * s_forget, 0)
    assert_close("zip", value, (0.7 * s_retain).mean() - lse, torch.float16)
    _, (grad,) = gradients(lambda x: ops.mix_contrastive_loss(x, labels, flipped, 0.3, 2.0), [z], None)
    shares = torch.exp(0.15 * s_forget[-40:] - lse) * rows
    (truth,) = torch.autograd.grad((0.7 * own_retain - 0.15 * shares * own_forget).sum(), exact)
    assert_same_scale(grad[-40:], truth)


@pytest.mark.large
@pytest.mark.parametrize("classes", [1000, 200_000])
def test_grid_loss_of_very_many_rows(device: str, classes: int) -> None:
    """Its last columns, which are independent of the others, against a grid of those alone."""
    n = math.isqrt(2**31 // classes) + 2
    tail = logits_of(3, classes, seed=0, dtype=torch.float16, device=device)
    z = huge_logits(n * n, classes, tail).view(n, n, classes)
    forget = (torch.arange(n, device=device) * 7) % classes
    retain = forget.flip(0).clone()
    forget[-1], retain[-3:] = tail[0].argmax(), tail.argmax(1)
    weight = torch.tensor(2.0**12, dtype=torch.float16, device=device)

    def run(z: Tensor, retain: Tensor) -> tuple[Tensor, list[Tensor]]:
        return gradients(lambda x: ops.mix_contrastive_loss(x, forget, retain, 0.3, 2.0, pairing="grid"), [z], weight)

    value, (grad,) = run(z, retain)
    few, (expected,) = run(z[:, -3:].contiguous(), retain[-3:])
    assert_same_scale(grad[:, -3:], expected)
    uniform = 1 - 1 / math.sqrt(classes)  # s of a row of zeros, for any label
    column = 0.7 * uniform - 0.15 * uniform - math.log(n)
    assert_close("grid", value, few.double() + (n - 3) * column, torch.float16)


@pytest.mark.large
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_very_many_mixed_pixels(device: str, pairing: str) -> None:
    pairs, size = 3, 27_000  # 2.19e9 pixels
    x_f = torch.zeros(pairs, 1, size, size, dtype=torch.uint8, device=device)
    x_r = torch.zeros(1, 1, size, size, dtype=torch.uint8, device=device)
    x_f[-1, 0, -1, -1], x_r[0, 0, -1, -2] = 255, 102
    mask = torch.zeros(pairs, 2, 2, device=device).requires_grad_()
    retain = x_r.expand_as(x_f) if pairing == "zip" else x_r
    mixed = ops.mask_mix(x_f, retain, mask, pairing=pairing, dtype=torch.bfloat16)
    share = torch.tensor(0.2, dtype=torch.bfloat16).item()
    assert mixed[-1, 0, -1, -2:].tolist() == [share, 0.5]
    assert mixed.count_nonzero() == 1 + pairs
    # d/dl = g M (1 - M) (x_f - x_r) at pixels whose logit is that of the last cell.
    (grad,) = torch.autograd.grad(mixed, mask, mixed.detach())
    expected = torch.zeros(pairs, 2, 2)
    expected[:, 1, 1] = -0.4 * share / 4
    expected[-1, 1, 1] += 0.5 / 4
    torch.testing.assert_close(grad.cpu(), expected)


@pytest.mark.large
@pytest.mark.parametrize("retain_side", [False, True])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_gradients_of_images_of_very_many_pixels(device: str, pairing: str, retain_side: bool) -> None:
    """The last of three images against that image on its own."""
    size = 27_000
    n_forget, n_retain, pairs = (3, 3, 3) if pairing == "zip" else (2, 3, 6) if retain_side else (3, 2, 6)
    mask = draw(pairs, 2, 3, seed=0, device=device)
    grad = torch.randint(-2, 3, (1, 1, size, size), dtype=torch.int8, device=device).to(torch.bfloat16)

    def by_image(masks: Tensor, n_forget: int, n_retain: int) -> Tensor:
        return registered.mask_mix_backward_image(
            grad.expand(len(masks), -1, -1, -1),
            masks,
            pairing == "grid",
            retain_side,
            n_forget,
            n_retain,
            torch.bfloat16,
            False,
        )

    everything = by_image(mask, n_forget, n_retain)
    last = mask[-1:] if pairing == "zip" else mask[2::3] if retain_side else mask[-2:]
    alone = by_image(last, 1 if pairing == "zip" or not retain_side else 2, 1 if pairing == "zip" or retain_side else 2)
    assert everything.numel() > 2**31 and torch.equal(everything[-1:], alone)


@pytest.mark.large
@pytest.mark.parametrize("side", ["forget", "retain"])
def test_attention_of_very_many_pairs(device: str, side: str) -> None:
    """Its state has more than 2^31 numbers. The last image of a side against that image on its own."""
    n = 4733
    inputs = inputs_of(n, n, 1, 4, 4, torch.float16, device)
    grad = torch.randn(n, n, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float16).to(device)
    out, *grads = value_and_gradients(inputs, "grid", grad.flatten(0, 1))
    own, rest = (slice(0, 3), slice(3, 6)) if side == "forget" else (slice(3, 6), slice(0, 3))
    few = list(inputs)
    few[own] = [x[-1:] for x in inputs[own]]
    last = (lambda x: x[-1]) if side == "forget" else (lambda x: x[:, -1])
    expected, *expected_grads = value_and_gradients(few, "grid", last(grad).contiguous())
    assert torch.equal(last(out.unflatten(0, (n, n))), expected)
    for grad, one in zip(grads[own], expected_grads[own], strict=True):
        assert_same_scale(grad[-1:], one)
