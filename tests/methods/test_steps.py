"""One step of every method with labels against its equations, written out in double precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import methods
from tests.methods.literal import adam, ce, check_step, close, kl, make_loop, pair, probabilities, sgd


def test_neggrad(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.NegGrad(retain_weight=3.0, lr=0.02)), pair()
    check_step(
        loop.model,
        lambda: loop.step(f, r),
        lambda net: 3.0 * ce(net(r.images), r.targets) - ce(net(f.images), f.targets),
        sgd(0.02),
    )


def test_neggrad_in_its_convex_form(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.NegGrad(form="convex", alpha=0.7, pull=0.5)), pair()
    start = tiny.model(5).double()

    def loss(net: nn.Module) -> Tensor:
        distance = sum(((a - b) ** 2).sum() for a, b in zip(net.parameters(), start.parameters(), strict=True))
        return 0.7 * (ce(net(r.images), r.targets) + 0.25 * distance) - 0.3 * ce(net(f.images), f.targets)

    check_step(loop.model, lambda: loop.step(f, r), loss, sgd(loop.config.lr))


def test_gradient_ascent(tiny: Any) -> None:
    loop, (f, _) = make_loop(tiny, methods.GradientAscent(lr=0.02)), pair()
    check_step(loop.model, lambda: loop.step(f), lambda net: -ce(net(f.images), f.targets), sgd(0.02))


def test_fine_tune(tiny: Any) -> None:
    loop, (_, r) = make_loop(tiny, methods.FineTune(weight_decay=0.1)), pair()
    check_step(loop.model, lambda: loop.step(r), lambda net: ce(net(r.images), r.targets), sgd(0.01, 0.1))


def test_prune_reset(tiny: Any) -> None:
    loop, (_, r) = make_loop(tiny, methods.PruneReset(share=0.01, weight_decay=0.1)), pair()
    loop.start(0)
    check_step(loop.model, lambda: loop.step(r), lambda net: ce(net(r.images), r.targets), adam(1e-3, 0.1))


def test_scrub(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.Scrub()), pair()
    teacher = tiny.model(5).double().eval()
    check_step(
        loop.model, lambda: loop.max_step(f), lambda net: -kl(teacher(f.images), net(f.images), 2.0), adam(5e-4, 0.1)
    )

    loop = make_loop(tiny, methods.Scrub(variant="large", alpha=0.3))

    def loss(net: nn.Module) -> Tensor:
        logits = net(r.images)
        return 0.99 * ce(logits, r.targets) + 0.3 * kl(teacher(r.images), logits, 4.0)

    check_step(loop.model, lambda: loop.min_step(r), loss, sgd(5e-4, 5e-4))


def test_scrub_decays_its_learning_rate(tiny: Any) -> None:
    loop = make_loop(tiny, methods.Scrub(lr=1.0))
    rates = [loop.learning_rate(epoch) for epoch in range(1, 11)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize("nearest", ["other", "any"])
def test_boundary_shrink(nearest: Any, tiny: Any) -> None:
    method = methods.BoundaryShrink(nearest=nearest, bound=0.4, lr=0.01)
    loop, (f, _) = make_loop(tiny, method), pair(forget=12)
    initial = tiny.model(5).double().eval()
    stored = tiny.split().train.images.double()
    low, high = stored.min(), stored.max()

    labels = []
    for x, y in zip(f.images, f.targets, strict=True):
        x = x[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(ce(initial(x), y[None]), x)
        moved = (x.detach() + 0.4 * (high - low) * gradient.sign()).clamp(low, high)
        ranked = initial(moved)[0].argsort(descending=True).tolist()
        labels.append(next(label for label in ranked if nearest == "any" or label != y))
    assert nearest == "any" or all(label != y for label, y in zip(labels, f.targets.tolist(), strict=True))
    assert loop.nearest_labels(f).tolist() == labels
    shorter = make_loop(tiny, methods.BoundaryShrink(nearest=nearest, bound=0.1))
    assert shorter.nearest_labels(f).tolist() != labels
    check_step(loop.model, lambda: loop.step(f), lambda net: ce(net(f.images), torch.tensor(labels)), sgd(0.01))


def test_boundary_shrink_takes_the_step_of_0_1_0(tiny: Any) -> None:
    f, _ = pair(forget=5)
    with pytest.warns(DeprecationWarning, match="the step is the bound now"):
        shorter = make_loop(tiny, methods.BoundaryShrink(step=0.02, bound=0.5))
    assert torch.equal(shorter.nearest_labels(f), make_loop(tiny, methods.BoundaryShrink(bound=0.02)).nearest_labels(f))


def test_boundary_shrink_stays_within_the_pixels(tiny: Any) -> None:
    loop = make_loop(tiny, methods.BoundaryShrink())
    stored = tiny.split().train.images
    assert loop.pixels.low.unique().tolist() == [stored.min().item()]
    assert loop.pixels.high.unique().tolist() == [stored.max().item()]


def test_boundary_expand(tiny: Any) -> None:
    loop, (f, _) = make_loop(tiny, methods.BoundaryExpand(lr=0.01)), pair()
    initial = tiny.model(5).double()
    fresh = methods.BoundaryExpand().begin(tiny.double_job(labels=False)).model.head
    assert torch.equal(fresh.weight[:4], initial.head.weight) and torch.equal(fresh.bias[:4], initial.head.bias)
    limit = (6 / (96 + 5)) ** 0.5  # Xavier's, of the whole new layer
    assert 0 < fresh.weight[4].abs().max() <= limit and fresh.bias[4] == 0
    check_step(loop.model, lambda: loop.step(f), lambda net: ce(net(f.images), torch.tensor([4, 4, 4])), sgd(0.01))
    kept = loop.model.head.weight[:4].clone()
    unlearned = loop.unlearned()
    assert torch.equal(unlearned.head.weight, kept) and unlearned(f.images).shape == (3, 4)


def test_trained_teachers(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.Teachers(T=3.0, retain_weight=0.2, teacher_lr=0.01)), pair()
    teacher, other = (loop.teachers[side].train() for side in ("forget", "retain"))
    untouched = copy.deepcopy(other)
    loop.batches = lambda images, *stream, batch_size: iter([f])
    check_step(
        teacher,
        lambda: list(loop._forget_teacher_epoch(0)),
        lambda net: ce(net(f.images), f.targets),
        adam(0.01, 1e-4),
    )
    assert all(torch.equal(a, b) for a, b in zip(untouched.parameters(), other.parameters(), strict=True))

    t_f, t_r = teacher.eval()(f.images).detach(), other.eval()(r.images).detach()
    check_step(
        loop.model,
        lambda: loop.step(f, r),
        lambda net: 0.2 * kl(t_r, net(r.images), 3.0) - kl(t_f, net(f.images), 3.0),
        adam(1e-4),
    )


def test_a_bad_teacher(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.Teachers(teachers="bad", T=2.0, retain_share=0.5)), pair()
    assert len(loop.samples) == 10 + 7
    good, bad = tiny.model(5).double().eval(), copy.deepcopy(loop.bad)
    assert not torch.equal(good.head.weight, bad.head.weight)
    images, is_forget = torch.cat([f.images, r.images]), torch.arange(8) < 3

    def loss(net: nn.Module) -> Tensor:
        teacher = torch.cat([probabilities(bad(f.images) / 2), probabilities(good(r.images) / 2)])
        return (teacher * (teacher.log() - probabilities(net(images) / 2).log())).sum() / (8 * 4)

    check_step(loop.model, lambda: loop.step(images, is_forget), loss, adam(1e-4))


def test_gli(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.Gli(perturb_steps=2, perturb_size=0.03, lr=0.02)), pair()
    low, high = loop.pixels
    network = copy.deepcopy(loop.model).eval()
    beside = network(f.images)[[0, 1, 2, 0, 1]].detach()
    delta = torch.zeros_like(r.images)
    for _ in range(2):
        delta = delta.detach().requires_grad_()
        logits = network((r.images + delta).clamp(low, high))
        J = -0.7 * ce(logits, r.targets) + ((logits - beside) ** 2).sum() / logits.numel()
        J.backward()
        delta = delta + 0.03 * (high - low) * delta.grad.sign()
    moved = (r.images + delta.detach()).clamp(low, high)
    assert not torch.equal(moved, r.images + delta.detach())  # some pixels were clamped
    check_step(loop.model, lambda: loop.step(f, r, 0.7), lambda net: ce(net(moved), r.targets), sgd(0.02))
    assert [loop.guide_weight(step, 5) for step in range(5)] == [200, 400, 600, 800, 1000]


def test_laf_repair_moves_the_head_only(tiny: Any) -> None:
    loop, (_, r) = make_loop(tiny, methods.LafRepair(repair_lr=0.01)), pair()
    loop.model.eval()
    check_step(
        loop.model,
        lambda: loop.repair_step(r),
        lambda net: ce(net(r.images), r.targets),
        adam(0.01),
        fixed=("body",),
    )


def test_salun(tiny: Any) -> None:
    method = methods.SalUn(salient=0.3, retain_weight=0.4, lr=0.05, weight_decay=0.1)
    loop, (f, r) = make_loop(tiny, method), pair()
    network = copy.deepcopy(loop.model.eval())
    for batch in (f, r):
        loop.add_saliency(batch)
    (-ce(network(f.images), f.targets) - ce(network(r.images), r.targets)).backward()
    sizes = torch.cat([weight.grad.abs().flatten() for weight in network.parameters()])
    threshold = sizes.sort(descending=True).values[round(0.3 * len(sizes)) - 1]
    masks = {name: weight.grad.abs() >= threshold for name, weight in network.named_parameters()}
    assert loop.masks().keys() == masks.keys()
    assert all(torch.equal(mask, masks[name]) for name, mask in loop.masks().items())

    loop.model.train()
    # Samples 2 and 7 of D_f (10 samples) and two of D_r, as they are counted in one set.
    batch = r._replace(images=r.images[:4], targets=r.targets[:4], indices=torch.tensor([2, 12, 7, 20]))
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    twin, before = copy.deepcopy(loop.model), copy.deepcopy(loop.model)
    logits = twin(batch.images)
    rows = [ce(logits[i : i + 1], target[None]) for i, target in enumerate(batch.targets)]
    rows[0], rows[2] = ce(logits[:1], labels[[2]]), ce(logits[2:3], labels[[7]])
    ((rows[0] + 0.4 * rows[1] + rows[2] + 0.4 * rows[3]) / 4).backward()
    loop.step(batch, labels, masks)
    for (name, new), old, weight in zip(
        loop.model.named_parameters(), before.parameters(), twin.parameters(), strict=True
    ):
        close(new, torch.where(masks[name], old - 0.05 * (weight.grad + 0.1 * old), old))
        assert torch.equal(new[~masks[name]], old[~masks[name]])


def test_salun_draws_other_labels(tiny: Any) -> None:
    targets = tiny.split().forget.targets
    loop = make_loop(tiny, methods.SalUn())
    draws = torch.stack([loop.draw_labels(torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert (draws != targets).all() and draws.min() == 0 and draws.max() == 3
    loop = make_loop(tiny, methods.SalUn(random_labels="any"))
    draws = torch.stack([loop.draw_labels(torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert (draws == targets).any()


@pytest.mark.parametrize("importance", ["batch", "sample"])
def test_ssd(importance: Any, tiny: Any) -> None:
    method = methods.Ssd(importance=importance, batch_size=4, alpha=1.5, lam=0.8)
    loop = make_loop(tiny, method)
    network = copy.deepcopy(loop.model)

    def mean_square(images: Any, walk: list[Any]) -> list[Tensor]:
        totals = [torch.zeros_like(weight) for weight in network.parameters()]
        groups = [batch for batch in walk] if importance == "batch" else _singles(walk)
        for inputs, targets in groups:
            gradients = torch.autograd.grad(ce(network(inputs), targets), list(network.parameters()))
            totals = [total + gradient**2 for total, gradient in zip(totals, gradients, strict=True)]
        return [total / len(groups) for total in totals]

    walk_all = [(b.images, b.targets) for b in loop.batches(loop.all, "all", augment=False)]
    walk_forget = [(b.images, b.targets) for b in loop.batches(loop.forget_set, "forget", augment=False)]
    assert sum(len(targets) for _, targets in walk_all) == 24 and sum(len(t) for _, t in walk_forget) == 10
    of_all, of_forget = mean_square(loop.all, walk_all), mean_square(loop.forget_set, walk_forget)
    for stage in loop.stages():
        list(stage.run(0))
    dampened = 0
    for new, old, i_all, i_forget in zip(loop.model.parameters(), network.parameters(), of_all, of_forget, strict=True):
        chosen = i_forget > 1.5 * i_all
        factor = torch.minimum(0.8 * i_all / i_forget, torch.ones_like(i_all))
        close(new, torch.where(chosen, old * factor, old))
        dampened += int(chosen.sum())
    assert dampened > 10


def _singles(walk: list[Any]) -> list[Any]:
    return [(x[None], y[None]) for images, targets in walk for x, y in zip(images, targets, strict=True)]


def test_unroll(tiny: Any) -> None:
    loop = make_loop(tiny, methods.Unroll(lr=0.02, train_epochs=3, batch_size=4))
    before, network = copy.deepcopy(loop.model), tiny.model(5).double()  # the gradients are the trained model's
    walk = list(loop.forget_batches(0))
    assert [len(batch.images) for batch in walk] == [4, 4, 2]
    for batch in walk:
        ce(network(batch.images), batch.targets).backward()
    list(loop.epoch(0))
    for new, old, weight in zip(loop.model.parameters(), before.parameters(), network.parameters(), strict=True):
        close(new, old + 0.02 * 3 * weight.grad)


def test_unroll_from_the_start_and_its_verification_error(tiny: Any) -> None:
    start = tiny.model(7).double()
    method = methods.Unroll(start=start, point="start", lr=0.02, train_epochs=3, batch_size=4, power_iterations=300)
    loop = make_loop(tiny, method)
    before, network = copy.deepcopy(loop.model), copy.deepcopy(start)
    for batch in loop.forget_batches(0):
        ce(network(batch.images), batch.targets).backward()
    measured = list(loop.epoch(0))
    for new, old, weight in zip(loop.model.parameters(), before.parameters(), network.parameters(), strict=True):
        close(new, old + 0.02 * 3 * weight.grad)

    names = [name for name, _ in before.named_parameters()]
    samples = next(loop.batches(loop.forget_set, "all", batch_size=100))
    rest = next(loop.batches(loop.retain_set, "all", batch_size=100))
    images, targets = torch.cat([samples.images, rest.images]), torch.cat([samples.targets, rest.targets])
    before.eval()

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([weight.numel() for weight in before.parameters()])
        weights = {
            name: part.view_as(weight) for name, part, weight in zip(names, parts, before.parameters(), strict=True)
        }
        return ce(torch.func.functional_call(before, weights, (images,)), targets)

    flat = torch.cat([weight.detach().flatten() for weight in before.parameters()])
    largest = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).abs().max()
    moved = flat - torch.cat([weight.detach().flatten() for weight in start.parameters()])
    T = 3 * 6  # 24 samples in batches of 4
    expected = 0.02**2 * (T - 1) / 2 * moved.norm() * largest.sqrt()
    torch.testing.assert_close(measured[0]["verification_error"], expected, rtol=1e-6, atol=0.0)
