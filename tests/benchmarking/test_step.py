"""The step benchmark compares like with like: its rival takes the very step that the method takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pymixunlearn import data, models, tasks
from pymixunlearn.benchmarking import describe_machine
from pymixunlearn.benchmarking.step.measure import PARTS, StepCase, _parts, measure_step, network_share, rounds
from pymixunlearn.benchmarking.step.plain import PlainStep, endless
from pymixunlearn.data import Preprocess, natural_images
from pymixunlearn.methods.base import UnlearnJob
from pymixunlearn.methods.mixunlearn import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.step import MixUnlearnLoop
from pymixunlearn.methods.view import SplitView

CPU = torch.device("cpu")


def _split(preprocess: Preprocess, channels: int = 1) -> tasks.Split:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, channels, 28, 28), dtype=torch.uint8, generator=stream)
    targets = torch.randint(10, (24,), generator=stream)
    names = tuple("0123456789")
    return tasks.index_split(
        data.from_tensors(images, targets, images[:2], targets[:2], classes=names, preprocess=preprocess), range(12)
    )


@pytest.mark.parametrize("network", ["cnn", "vit"])
def test_the_rival_takes_the_methods_step(network: str) -> None:
    model = models.build(network, num_classes=10, in_channels=1, image_size=28)
    job = UnlearnJob(copy.deepcopy(model), SplitView.of(_split(Preprocess()), labels=False), CPU, 0, (), None)
    loop = MixUnlearnLoop(MixUnlearnConfig(batch_size=12)).begin(job)
    forget, retain = next(loop.samples(0))
    plain = PlainStep(model, str(model.feature_layer), forget.images[:1])
    block, theirs = loop.mixblock, plain.mixblock
    assert block is not None
    layers = (theirs.query, theirs.key, theirs.value)
    with torch.no_grad():  # large weights, so that the masks are far from one half
        block.weight.mul_(100)
        for layer, weight in zip(layers, block.weight.split([layer.out_channels for layer in layers]), strict=True):
            layer.weight.copy_(weight[:, :, None, None])
    lam, order = torch.tensor([0.3, 0.65]), torch.randperm(12)
    loss = plain.step(forget.images, retain.images, lam[0], lam[1], order, generate=True)
    loop.train_generator(forget, retain, lam[0])
    ours = loop.train_unlearner(forget, retain, lam[1], order)["total"]
    torch.testing.assert_close(loss, ours.detach(), rtol=1e-5, atol=1e-4)
    moved = torch.cat([layer.weight.flatten(1) for layer in layers])
    torch.testing.assert_close(moved, block.weight, rtol=1e-3, atol=1e-4)  # by 1e-3, Adam's first step
    for mine, other in zip(plain.unlearner.parameters(), loop.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_the_rivals_images_are_the_methods_inputs() -> None:
    split = _split(Preprocess(mean=(0.2,), std=(0.5,)))
    batch = next(endless(split.forget, split.preprocess, 12, CPU))
    expected = split.preprocess.evaluation(split.forget.images)
    torch.testing.assert_close(batch.flatten(1).sum(1).sort().values, expected.flatten(1).sum(1).sort().values)
    photos = _split(natural_images(32), channels=3)
    assert next(endless(photos.forget, photos.preprocess, 5, CPU)).shape == (5, 3, 32, 32)


def test_the_parts_do_their_work_in_any_order() -> None:
    with rounds(StepCase("cnn", 28, 1, 2, 2), batch=2, device=CPU) as (_, fast, _):
        parts = _parts(fast)
        for job in parts.values():
            job.backward(job.forward())
        weight = next(fast.model.parameters())
        before = weight.detach().clone()
        parts["loss"].backward(parts["loss"].forward())
        parts["optimiser"].forward()
        assert not torch.equal(weight, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_step_and_part_is_timed(channels: int) -> None:
    case = StepCase("cnn", 28, channels, 2, 2)
    rows = measure_step(case, batch=2, device=CPU, seconds=0.01, precision=None, machine=describe_machine(CPU))
    steps = {row.provider: row for row in rows if row.part == "step"}
    grey = {"first epoch", "pytorch, own network"} if channels == 1 else set()
    assert set(steps) == {"fast", "loop", "pytorch"} | grey
    assert steps["fast"].ratio == 1 and all(row.peak_bytes for row in steps.values())
    parts: dict[str, Any] = {row.part: row for row in rows if row.part != "step"}
    assert set(parts) == set(PARTS) - ({"teacher"} if channels == 1 else set())
    assert all(row.p20_ms <= row.p50_ms <= row.p80_ms for row in rows)
    assert 0 < network_share(rows)
