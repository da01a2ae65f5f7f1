"""MixUnlearn after a reset: a step against its equations, what it does not read, and that it forgets."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pymixunlearn import methods, tasks
from pymixunlearn.data import Preprocess
from pymixunlearn.evaluation import Acceptance
from pymixunlearn.methods.mixunlearn.reset import Pair
from pymixunlearn.training import TrainConfig
from tests.methods.literal import ce


def begun(tiny: Any, preprocess: Preprocess | None = None, **fields: Any) -> Any:
    """A loop at its first step, and that step's batches."""
    job = tiny.job()
    if preprocess is not None:
        job = replace(job, split=replace(job.split, preprocess=preprocess))
    loop = methods.MixUnlearnReset(batch_size=4, share=0.3, **fields).begin(job)
    loop.start(0)
    return loop, next(loop.train_epoch(0))


def peeked(loop: Any) -> tuple[Any, torch.Tensor]:
    """The forget batch and the shares that the first step will draw."""
    forget = next(loop.forget_batches(0, 0))
    return forget, torch.rand(2, generator=loop.generator("shares", 0))


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess(flip=True)], ids=["stored", "augmented"])
@pytest.mark.parametrize("generator", ["mixblock-lam", "vanilla"])
def test_a_step_is_cross_entropy_on_clean_images_and_on_mixes(
    generator: Any, preprocess: Preprocess, tiny: Any
) -> None:
    loop, retain = begun(tiny, preprocess, generator=generator, most=0.4, generator_lr=0.05)
    forget, draws = peeked(loop)
    share = 0.4 * draws
    block, before = copy.deepcopy(loop.mixblock), copy.deepcopy(loop.model)
    measured = loop.step(retain)
    if generator == "vanilla":
        weights = share.view(-1, 1, 1, 1)
        mixes = weights * forget.images[:2] + (1 - weights) * retain.images[:2]
        assert loop.mixblock is None and set(measured) == {"retain"}
    else:
        initial = tiny.model().eval()
        with torch.no_grad():
            h_f, h_r = initial.body(forget.images[:2]), initial.body(retain.images[:2])
        # The generator's step comes first, against the network as it is, in evaluation mode.
        adversary = copy.deepcopy(before).eval()
        optimizer = torch.optim.Adam(block.parameters(), lr=0.05)
        loss = -ce(adversary(block(h_f, h_r, share, forget.images[:2], retain.images[:2])), retain.targets[:2])
        loss.backward()
        optimizer.step()
        found = loop.means.read()
        assert found["generator"] == pytest.approx(loss.item(), rel=1e-4)
        # Adam's first step is all of the rate; where a gradient is all but zero, rounding decides on a part of it.
        torch.testing.assert_close(loop.mixblock.weight, block.weight, rtol=0, atol=0.01)
        with torch.no_grad():
            mixes = loop.mixblock(h_f, h_r, share, forget.images[:2], retain.images[:2])
        assert measured["mask_error"] < 1e-5
    expected = ce(before(torch.cat([mixes, retain.images[2:]])), retain.targets)
    torch.testing.assert_close(measured["retain"], expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(loop.model.head.bias, before.head.bias)


def test_the_generator_lowers_its_loss_below_plain_mixups(tiny: Any) -> None:
    """Against a network that does not change, which knows the images."""
    loop, retain = begun(tiny, generator_lr=0.02)
    forget, draws = peeked(loop)
    share = 0.5 * draws
    loop.model.load_state_dict(tiny.model(2).state_dict())
    pair = Pair(
        forget.images[:2],
        retain.images[:2],
        share,
        loop._features("forget", forget, 2),
        loop._features("retain", retain, 2),
    )
    first = loop.train_generator(pair, retain.targets[:2])
    for _ in range(200):
        last = loop.train_generator(pair, retain.targets[:2])
    assert last["generator"] < min(first["generator"], last["generator_vanilla"]) - 1e-4
    assert torch.equal(first["generator_vanilla"], last["generator_vanilla"])


def test_labels_of_the_forget_set_are_not_read(tiny: Any) -> None:
    def run(change: int) -> dict[str, torch.Tensor]:
        job = tiny.job()
        forget = job.split.forget
        targets = (forget.targets + change) % 4
        job = replace(job, split=replace(job.split, forget=type(forget)(forget.images, targets, forget.classes)))
        return dict(methods.MixUnlearnReset(epochs=1, batch_size=4)._run(job).model.state_dict())

    one, other = run(0), run(1)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("label_aware", [True, False])
def test_it_forgets_a_class_of_digits(label_aware: bool, digits_model: nn.Module, digits_class: tasks.Split) -> None:
    result = methods.MixUnlearnReset(label_aware=label_aware).unlearn(digits_model, digits_class, device="cpu")
    test = digits_class.test
    with torch.no_grad():
        predicted = result.model(digits_class.preprocess.evaluation(test.images)).argmax(1)
    assert not (predicted == 0).any()
    assert (predicted == test.targets)[test.targets != 0].double().mean() > 0.85
    assert result.generator is not None and result.history[-1]["mask_error"] < 1e-5


def test_soft_targets_go_along_with_the_retain_image(tiny: Any) -> None:
    split = tasks.class_split(tiny.split().dataset, [1])
    loop = methods.MixUnlearnReset(batch_size=4, share=0.3, generator="vanilla", label_aware=False).begin(
        tiny.job(split, labels=False)
    )
    loop.start(0)
    retain = next(loop.train_epoch(0))
    forget, draws = peeked(loop)
    before = copy.deepcopy(loop.model)
    weights = 0.5 * draws.view(-1, 1, 1, 1)
    mixes = weights * forget.images[:2] + (1 - weights) * retain.images[:2]
    with torch.no_grad():
        targets = tiny.model().eval()(retain.images).index_fill(1, torch.tensor([1]), -torch.inf).softmax(1)
    logits = before(torch.cat([mixes, retain.images[2:]]))
    expected = -(targets * F.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(loop.step(retain)["retain"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("generator", ["mixblock-lam", "vanilla"])
def test_the_retrain_that_a_search_ends_with_sees_no_forget_image(generator: Any, tiny: Any) -> None:
    class Refuse:
        def tells(self) -> bool:
            return True

        def __call__(self, model: nn.Module) -> Acceptance:
            return Acceptance("refused", "because", ks=0.5, ks_resurfaced=0.5, bound=0.1)

    recipe = methods.Recipe(TrainConfig(epochs=2), TrainConfig(epochs=2, lr=0.01))

    def run(changed: bool) -> dict[str, torch.Tensor]:
        job = replace(tiny.job(), chooser=Refuse(), given_recipe=recipe)
        forget = job.split.forget
        if changed:
            forget = type(forget)(255 - forget.images, forget.targets, forget.classes)
        job = replace(job, split=replace(job.split, forget=forget))
        done = methods.MixUnlearnReset(epochs=1, batch_size=4, generator=generator)._run(job)
        assert done.search is not None and done.search.kept == "Retrain"
        return dict(done.model.state_dict())

    one, other = run(False), run(True)
    assert all(torch.equal(one[name], other[name]) for name in one)
