"""Direct calls of ``torch.ops.pymixunlearn``: right or refused, never silent zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.ops.test_attention import inputs_of
from tests.ops.test_losses import logits_of, targets_of
from tests.ops.test_mask_mix import operands

registered = torch.ops.pymixunlearn

Call = tuple[Callable[..., Tensor], list[Tensor]]


def direct_calls(device: str) -> dict[str, Call]:
    """Each operator, by its name and pairing, as a function of its differentiable arguments, with values for them."""
    z, z_r, z_grid = (logits_of(*s, seed=0, device=device).double() for s in ((4, 5), (6, 5), (4, 6, 5)))
    p, p_r = (targets_of("probabilities", n, 5, n, torch.float64, device) for n in (4, 6))
    lam = torch.rand(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(device)
    calls: dict[str, Call] = {
        "sharpen": (lambda x: registered.sharpen(x, 0.4), [z]),
        "sim_loss": (lambda x: registered.sim_loss(x, p, None)[0], [z]),
        "mix_contrastive_loss zip": (
            lambda x: registered.mix_contrastive_loss(x, p, p.flip(0), None, 0.3, None, 0.7, False, False, None)[0],
            [z],
        ),
        "mix_contrastive_loss grid": (
            lambda x: registered.mix_contrastive_loss(x, p, p_r, lam, 0.0, None, 0.7, True, True, None)[0],
            [z_grid],
        ),
        "real_contrastive_loss": (
            lambda x, y: registered.real_contrastive_loss(x, y, p, p_r, None, 0.7, False, None)[0],
            [z, z_r],
        ),
    }
    images = (2, (4, 3), (2, 2))
    for pairing, grid, n_retain in (("zip", False, 2), ("grid", True, 3)):
        calls[f"mask_mix {pairing}"] = (
            lambda *x, grid=grid: registered.mask_mix(*x, grid, [], [], torch.float64),
            operands(2, n_retain, images, torch.float64, device),
        )
        calls[f"mixblock_attention {pairing}"] = (
            lambda *x, grid=grid: registered.mixblock_attention(*x, grid, False)[0],
            inputs_of(2, n_retain, 2, 1, 3, torch.float64, device),
        )
    return calls


NAMES = list(direct_calls("cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_are_differentiated_twice(device: str, name: str) -> None:
    call, inputs = direct_calls(device)[name]
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(call, leaves)
    # The reference serves the second: PyTorch's interpolation adds up in varying order on a GPU.
    assert torch.autograd.gradgradcheck(call, leaves, nondet_tol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_refuse_tangents(device: str, name: str) -> None:
    call, inputs = direct_calls(device)[name]
    with pytest.raises(NotImplementedError, match=f"pymixunlearn::{name.split()[0]} has no forward-mode derivative"):
        torch.func.jvp(call, tuple(inputs), tuple(map(torch.ones_like, inputs)))
    with forward_ad.dual_level(), torch.no_grad():
        for i, tensor in enumerate(inputs):  # a tangent of any one of them
            dual = forward_ad.make_dual(tensor, torch.ones_like(tensor))
            with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
                call(*inputs[:i], dual, *inputs[i + 1 :])


@pytest.mark.parametrize("name", NAMES)
def test_under_vmap(device: str, name: str) -> None:
    call, inputs = direct_calls(device)[name]
    leaves = [torch.stack([tensor, tensor.flip(0)]).requires_grad_() for tensor in inputs]
    results = torch.func.vmap(call)(*leaves)
    expected = torch.stack([call(*(tensor[k] for tensor in leaves)) for k in range(2)])
    torch.testing.assert_close(results, expected)
    cotangent = torch.arange(1, 1 + expected.numel(), device=device).view_as(expected).double()
    torch.testing.assert_close(
        torch.autograd.grad(results, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
    )


def test_what_has_no_derivative_says_so(device: str) -> None:
    z, labels = logits_of(4, 5, seed=0, device=device), torch.arange(4, device=device)
    leaf, one = z.clone().requires_grad_(), torch.ones((), device=device)
    sim_state = registered.sim_loss(leaf, labels, None)[1]
    mix = (labels, labels, None, 0.3, None, 0.7, False, False, None)
    real = (z, labels, labels, None, 0.7, False, None)
    mix_state = registered.mix_contrastive_loss(leaf, *mix)[1]
    real_state = registered.real_contrastive_loss(leaf, *real)[1]
    x_f, x_r, mask = operands(2, 2, (3, (8, 6), (2, 3)), device=device)
    image_grad = torch.ones_like(x_f).requires_grad_()
    query, *others = inputs_of(2, 2, 3, 2, 2, device=device)
    query = query.detach().requires_grad_()
    out, attention_state = registered.mixblock_attention(query, *others, False, False)
    attention = (query, *others, attention_state, False, False, 0b111111)
    assert not any(state.requires_grad for state in (sim_state, mix_state, real_state, attention_state))
    for result in (
        registered.sharpen_backward(z, leaf, 0.3),
        registered.sim_loss_backward(torch.ones(4, device=device), leaf, labels, sim_state, None),
        registered.mix_contrastive_loss_backward(one, leaf, *mix[:2], mix_state, *mix[2:]),
        registered.real_contrastive_loss_backward(one, leaf, *real[:3], real_state, *real[3:], True, True)[0],
        registered.mix_contrastive_loss_and_gradient(leaf, *mix)[0],
        registered.real_contrastive_loss_and_gradients(leaf, *real)[0],
        registered.mask_mix_backward_mask(image_grad, x_f, x_r, mask, False, [], []),
        registered.mask_mix_backward_image(image_grad, mask, False, False, 2, 2, torch.float32, False),
        *registered.mixblock_attention_backward(torch.ones_like(out), *attention),
    ):
        with pytest.raises(NotImplementedError, match="has no derivative; for second derivatives use the functions"):
            result.sum().backward()
    target = z.softmax(1).requires_grad_()
    with pytest.raises(ValueError, match="sim_loss differentiates its first 1 argument"):
        registered.sim_loss(leaf, target, None)


def test_refuse_what_memory_safety_forbids() -> None:
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
        *(lambda bad=bad: registered.sim_loss(z, bad, None) for bad in (p > 0, p.to(torch.complex64))),
        *(
            lambda bad=bad: registered.mix_contrastive_loss(z, p, p, bad, 0.0, *mix[2:])
            for bad in (torch.tensor(True), torch.tensor(1))
        ),
    ]
    x_f, x_r, mask = operands(2, 2, (3, (8, 6), (2, 3)))
    by_mask, by_image = registered.mask_mix_backward_mask, registered.mask_mix_backward_image
    calls += [
        lambda: registered.mask_mix(x_f, x_r, mask[:1], False, [], [], torch.float32),
        lambda: registered.mask_mix(x_f, x_r[:1], mask, False, [], [], torch.float32),
        lambda: registered.mask_mix(x_f, x_r[..., :5], mask, False, [], [], torch.float32),
        lambda: registered.mask_mix(x_f, x_r.double(), mask, False, [], [], torch.float32),
        lambda: registered.mask_mix(x_f, x_r, mask, True, [], [], torch.float32),
        lambda: registered.mask_mix(x_f, x_r, mask, False, [0.5] * 3, [0.5] * 3, torch.float32),
        lambda: registered.mask_mix(x_f.byte(), x_r.byte(), mask, False, [0.5] * 2, [0.5] * 3, torch.float32),
        lambda: by_mask(x_f[:1], x_f, x_r, mask, False, [], []),
        lambda: by_mask(x_f[..., :5], x_f, x_r, mask, False, [], []),
        lambda: by_image(x_f, mask, False, False, 3, 3, torch.float32, False),
        lambda: by_image(x_f, mask, True, False, 2, 2, torch.float32, False),
        lambda: by_image(x_f[:1], mask, False, False, 2, 2, torch.float32, False),
    ]
    inputs = inputs_of(2, 2, 3, 2, 2)
    out, state = registered.mixblock_attention(*inputs, False, False)
    backward = registered.mixblock_attention_backward
    calls += [
        *(
            lambda i=i: registered.mixblock_attention(*inputs[:i], inputs[i][..., :1], *inputs[i + 1 :], False, False)
            for i in range(6)
        ),
        lambda: registered.mixblock_attention(*inputs[:3], *(x[:1] for x in inputs[3:]), False, False),
        lambda: registered.mixblock_attention(*inputs[:5], inputs[5].double(), False, False),
        lambda: backward(out[:1], *inputs, state, False, False, 1),
        lambda: backward(out.double(), *inputs, state, False, False, 1),
        lambda: backward(out, *inputs, state[:-1], False, False, 1),
        lambda: backward(out, *inputs, state.double(), False, False, 1),
        lambda: backward(out, *inputs, state, True, False, 1),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="expected|sharpen_T needs"):
            call()
    # One tensor on meta sends the call to the fake kernel, which checks too.
    for call in (
        lambda: registered.sim_loss(z, p.to("meta"), None),
        lambda: registered.mix_contrastive_loss(z, p, p, torch.tensor(0.5, device="meta"), 0.0, *mix[2:]),
    ):
        with pytest.raises(ValueError, match="must be on the device of logits"):
            call()


@pytest.mark.parametrize(
    ("lam", "tau", "says"),
    [
        (torch.tensor([0.1, 0.2, 1.5, 0.3]), torch.tensor(0.7), r"lam in \[0, 1\]"),
        (torch.tensor(float("nan")), torch.tensor(0.7), r"lam in \[0, 1\]"),
        (torch.full((4, 1), 0.5), torch.tensor(0.7), "one lam, or one for each row"),
        (torch.tensor(0.5), torch.tensor(0.0), "tau above 0 and finite"),
        (torch.tensor(0.5), torch.tensor(float("inf")), "tau above 0 and finite"),
    ],
)
def test_refuse_what_is_out_of_range_on_the_cpu(lam: Tensor, tau: Tensor, says: str) -> None:
    """The functions rely on this: they look at the numbers of such tensors only to explain a refusal."""
    z, p = torch.zeros(4, 5), torch.full((4, 5), 0.2)
    with pytest.raises(RuntimeError, match=says):
        registered.mix_contrastive_loss(z, p, p, lam, 0.0, tau, 0.0, False, False, None)
