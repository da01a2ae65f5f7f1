"""The fast step: it agrees with the plain loop, asks nothing twice and waits for nothing."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pymixunlearn import data, models, tasks
from pymixunlearn.data import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.methods import MixUnlearn, MixUnlearnConfig, UnlearnResult
from pymixunlearn.methods.base import UnlearnJob
from pymixunlearn.methods.mixunlearn.fast import FastMixUnlearnLoop
from pymixunlearn.methods.mixunlearn.step import MixUnlearnLoop
from pymixunlearn.methods.view import SplitView

Same = Callable[[nn.Module, nn.Module], bool]
AUGMENT = Preprocess(random_crop=True, flip=True)


def patterns(channels: int, side: int, preprocess: Preprocess, forget: int = 38, retain: int = 60) -> tasks.Split:
    """Noisy copies of ten random patterns, uint8; the first ``forget`` are to be forgotten."""
    stream = torch.Generator().manual_seed(0)
    count = forget + retain
    targets = torch.randint(10, (count,), generator=stream)
    clean = torch.randint(0, 256, (10, channels, side, side), generator=stream)[targets]
    noise = torch.randint(0, 256, clean.shape, generator=stream)
    images = ((3 * clean + 2 * noise) // 5).to(torch.uint8)
    dataset = data.from_tensors(
        images, targets, images[:9], targets[:9], classes=tuple("0123456789"), preprocess=preprocess
    )
    return tasks.index_split(dataset, list(range(forget)))


def _both(
    model: nn.Module, split: tasks.Split, device: str = "cpu", **fields: Any
) -> tuple[UnlearnResult, UnlearnResult]:
    plain, fast = (
        MixUnlearn(fast=fast, precision="float32", **fields).unlearn(model, split, device=device)
        for fast in (False, True)
    )
    return plain, fast


def _drift(plain: nn.Module, fast: nn.Module, initial: nn.Module) -> float:
    """How far the two ended apart, as a share of the way that training took them."""
    ends = [
        {name: weights.detach().cpu() for name, weights in model.named_parameters()} for model in (plain, fast, initial)
    ]

    def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        return float(sum((one[name] - other[name]).double().square().sum() for name in one)) ** 0.5

    return distance(ends[0], ends[1]) / distance(ends[0], ends[2])


def _apart(one: nn.Module, other: nn.Module) -> float:
    """How far the buffers of two networks lie apart, each in units of its own size."""
    pairs = zip(one.buffers(), other.buffers(), strict=True)
    return sum(float((a.double() - b.double()).norm() / (1e-12 + a.double().norm())) for a, b in pairs)


def _rounded_once_more(model: nn.Module) -> nn.Module:
    """A copy whose weights differ by their last bits."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weights in copied.parameters():
            weights.mul_(1 + torch.finfo(weights.dtype).eps)
    return copied


@pytest.mark.parametrize(
    ("name", "channels", "side", "limit"),
    [("cnn", 1, 28, 1e-4), pytest.param("resnet18", 3, 8, 0.5, marks=pytest.mark.slow)],
)
def test_fifty_steps_are_those_of_the_plain_loop(name: str, channels: int, side: int, limit: float) -> None:
    """Kept answers were computed in other batches: their last bits differ, which Adam and BatchNorm enlarge.

    So the fast path may part from the plain loop, but no farther than the plain loop parts from itself when its weights
    differ in their last bits. A step that did something else would be far outside.
    """
    model = models.build(name, num_classes=10, in_channels=channels, image_size=side)
    split, fields = patterns(channels, side, Preprocess()), {"epochs": 5, "batch_size": 4}
    plain, fast = _both(model, split, **fields)
    nudged = MixUnlearn(fast=False, precision="float32", **fields).unlearn(
        _rounded_once_more(model), split, device="cpu"
    )
    assert sum(1 for _ in plain.history) == 5 and len(fast.history) == 5  # of ten steps each
    rounding = _drift(plain.model, nudged.model, model)
    assert rounding < limit
    assert _drift(plain.model, fast.model, model) < 2 * rounding
    for mine, theirs in zip(fast.history, plain.history, strict=True):
        assert mine["total"] == pytest.approx(theirs["total"], rel=1e-3)
    # Statistics follow the weights, and part as far: by another processor's rounding farther than any fixed bound.
    assert _apart(plain.model, fast.model) <= 2 * _apart(plain.model, nudged.model)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("resnet18", {}), ("cnn", {"adversary": "ema"}), ("cnn", {"pairing": "grid"}), ("cnn", {"label_aware": True})],
)
def test_where_nothing_can_be_cached_not_a_bit_differs(name: str, fields: dict[str, Any], same_weights: Same) -> None:
    """With augmentation every answer is asked for anew, in the plain loop's batches: BatchNorm must see the same."""
    model = models.build(name, num_classes=10, in_channels=3, image_size=8)
    plain, fast = _both(model, patterns(3, 8, AUGMENT, forget=10, retain=14), epochs=2, batch_size=4, **fields)
    assert same_weights(plain.model, fast.model)
    for mine, theirs in zip(fast.history, plain.history, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


@pytest.mark.parametrize(
    "fields",
    [
        {"label_aware": True},
        {"pairing": "grid"},
        {"generator": "vanilla"},
        {"generator": "vanilla", "label_aware": True},
        {"generator": "mixblock-lam", "generator_warmup": 2},
        {"generator": "mixblock-lam", "pairing": "grid"},
        {"use_mix_loss": False},
        {"use_real_loss": False, "adversary": "ema"},
        {"cache_mb": 0},
        {"channels_last": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(("forget", "retain"), [(10, 14), (13, 5)])
def test_every_variant_agrees_with_the_plain_loop(fields: dict[str, Any], forget: int, retain: int, tiny: Any) -> None:
    model = tiny.model()
    plain, fast = _both(model, tiny.split(forget, retain), epochs=3, batch_size=4, **fields)
    assert _drift(plain.model, fast.model, model) < 1e-3
    assert [set(record) for record in fast.history] == [set(record) for record in plain.history]


class _Counting(nn.Module):
    """Counts the images that a network in evaluation mode without gradients is shown: those of the frozen one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.feature_layer = network, "network.body.pool"
        self.seen: list[int] = []  # shared by copies

    def __deepcopy__(self, memo: dict[int, Any]) -> _Counting:
        twin = _Counting(type(self.network)())
        twin.load_state_dict(self.state_dict())
        twin.seen = self.seen
        return twin

    def forward(self, images: Tensor) -> Tensor:
        if not self.training and not torch.is_grad_enabled():
            self.seen.append(len(images))
        return self.network(images)


def test_the_teacher_sees_a_sample_that_is_used_once(tiny: Any) -> None:
    def asked(epochs: int, **fields: Any) -> int:
        model = _Counting(tiny.model())
        # One update of the generator, whose plain mixes are one batch for the unlearner; no looks at held-out images.
        method = MixUnlearn(epochs=epochs, batch_size=4, generator_interval=1000, rollback=False, **fields)
        method.unlearn(model, tiny.split(10, 30), device="cpu")
        return sum(model.seen) - asked_at_start

    asked_at_start = 0
    # That, checks of the network in evaluation and in training mode and sizes of tables cost a few images, the same
    # for every length of a run.
    asked_at_start = asked(1) - 20
    assert asked_at_start < 16
    assert asked(1) == 20  # an epoch uses ten of the retain samples, the other twenty are nobody's business
    assert 20 < asked(3) < 40
    assert asked(60) == 40
    assert asked(3, cache_mb=0) == 60


class _NoReading(TorchDispatchMode):
    """Refuses to read a number out of a tensor: on a GPU that waits for all work given to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a step reads a tensor's value"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("preprocess", "generator"),
    [(Preprocess(), "mixblock"), (AUGMENT, "mixblock"), (Preprocess(), "mixblock-lam")],
    ids=["stored", "augmented", "held"],
)
def test_no_step_reads_a_value(
    fast: bool, preprocess: Preprocess, generator: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A loss looks at its incoming gradient, lam and tau on the CPU only (test_losses_pytorch.py).
    monkeypatch.setattr("pymixunlearn.ops._torch.call._is_one", lambda grad: False)
    monkeypatch.setattr("pymixunlearn.ops._checks._extremes", lambda value: ())
    config = MixUnlearnConfig(batch_size=4, epochs=1, fast=fast, generator=generator)
    job = tiny.job(
        patterns(2, 8, preprocess, 10, 14), models.build("resnet18", num_classes=10, in_channels=2, image_size=8)
    )
    loop = (FastMixUnlearnLoop if fast else MixUnlearnLoop)(config).begin(job)
    with loop.closing:
        lam = torch.tensor([0.3, 0.6])
        with _NoReading():
            steps = 0
            for forget, retain in loop.samples(0):
                loop.train_generator(forget, retain, lam[0])
                loop.train_unlearner(forget, retain, lam[1], torch.arange(len(retain.images)))
                steps += 1
    assert steps == 3


def test_in_bfloat16_it_forgets_as_well(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    fields = {"epochs": 25, "lr": 2e-4, "omega": 30, "tau_real": 2}
    test, preprocess = digits_class.test, digits_class.preprocess
    kept = {}
    for precision in ("float32", "bfloat16"):
        model = MixUnlearn(precision=precision, **fields).unlearn(digits_model, digits_class, device="cpu").model
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        with torch.no_grad():
            hits = (model(preprocess.evaluation(test.images)).argmax(1) == test.targets).double()
        assert hits[test.targets == 0].mean() <= 0.05
        kept[precision] = hits[test.targets != 0].mean().item()
    assert kept["bfloat16"] == pytest.approx(kept["float32"], abs=0.015)


def test_compiled_networks_take_the_same_steps(tiny: Any) -> None:
    model, split = tiny.model(), tiny.split(10, 14)
    runs = [
        MixUnlearn(epochs=2, batch_size=4, compile=choice).unlearn(model, split, device="cpu")
        for choice in (False, True)
    ]
    assert _drift(runs[0].model, runs[1].model, model) < 1e-3
    assert list(runs[1].model.state_dict()) == list(model.state_dict())


def test_a_loop_that_has_ended_holds_nothing(tiny: Any) -> None:
    """It goes with its last name, not when the garbage collector comes by: on a GPU it holds gigabytes."""
    job = UnlearnJob(tiny.model(), SplitView.of(tiny.split(10, 14), labels=False), torch.device("cpu"), 0, (), None)
    collecting = gc.isenabled()
    gc.disable()
    try:
        loop = FastMixUnlearnLoop(MixUnlearnConfig(batch_size=4)).begin(job)
        with loop.closing:
            list(loop.epoch(0))
        left = weakref.ref(loop)
        del loop
        assert left() is None
    finally:
        if collecting:
            gc.enable()


def test_a_snapshot_of_another_device_keeps_how_this_one_steps(tiny: Any) -> None:
    """A fused, recorded Adam's state says so; where steps cannot be recorded it must not take that over."""
    job = UnlearnJob(tiny.model(), SplitView.of(tiny.split(10, 14), labels=False), torch.device("cpu"), 0, (), None)
    loop = FastMixUnlearnLoop(MixUnlearnConfig(batch_size=4)).begin(job)
    with loop.closing:
        list(loop.epoch(0))
        state = copy.deepcopy({name: part.state_dict() for name, part in loop.parts.items()})
        for name in ("optimizer", "generator_optimizer"):
            state[name]["param_groups"][0].update(capturable=True, fused=False)
        loop.load_state(state)
        for optimizer in (loop.optimizer, loop.generator_optimizer):
            assert optimizer is not None
            assert (optimizer.param_groups[0]["capturable"], optimizer.param_groups[0]["fused"]) == (False, True)
        list(loop.epoch(1))


class Undecided(nn.Module):
    """A network that waits for the device, to look at its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.feature_layer = "network.features"

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images if float(images.sum()) > -1e9 else -images)
        return logits


@pytest.mark.cuda
def test_a_model_that_cannot_be_recorded_is_told_so_and_runs_unrecorded(same_weights: Same) -> None:
    split = patterns(3, 8, Preprocess())

    def model() -> nn.Module:
        torch.manual_seed(0)
        return Undecided(models.build("cnn", num_classes=10, in_channels=3, image_size=8))

    fields: dict[str, Any] = {"epochs": 3, "batch_size": 4, "feature_layer": "network.features"}
    with pytest.raises(UserError, match="cannot be recorded as a CUDA graph.*set cuda_graphs=false"):
        MixUnlearn(**fields).unlearn(model(), split, device="cuda")
    runs = [MixUnlearn(cuda_graphs=False, **fields).unlearn(model(), split, device="cuda") for _ in range(2)]
    assert same_weights(runs[0].model, runs[1].model)


@pytest.mark.cuda
@pytest.mark.parametrize("preprocess", [Preprocess(), AUGMENT], ids=["stored", "augmented"])
@pytest.mark.parametrize("fields", [{}, {"adversary": "ema"}, {"pairing": "grid", "label_aware": True}], ids=str)
def test_replayed_graphs_take_the_plain_loops_steps(
    fields: dict[str, Any], preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches of other sizes would be rounded to TF32 by other kernels; it is PyTorch's default for convolutions.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = models.build("cnn", num_classes=10, in_channels=3, image_size=8)
    # Enough steps that all three graphs are captured (the generator's at its fourth step) and then replayed.
    plain, fast = _both(
        model, patterns(3, 8, preprocess), "cuda", epochs=4, batch_size=4, channels_last=False, **fields
    )
    assert _drift(plain.model, fast.model, model.cpu()) < 1e-2


@pytest.mark.cuda
def test_a_replayed_run_repeats(same_weights: Same) -> None:
    model = models.build("resnet18", num_classes=10, in_channels=3, image_size=8)
    split = patterns(3, 8, AUGMENT)
    runs = [MixUnlearn(epochs=3, batch_size=4).unlearn(model, split, device="cuda") for _ in range(2)]
    assert same_weights(runs[0].model, runs[1].model)


@pytest.mark.cuda
@pytest.mark.parametrize("preprocess", [Preprocess(), AUGMENT], ids=["stored", "augmented"])
def test_no_step_waits_for_the_gpu(preprocess: Preprocess, tiny: Any) -> None:
    model = models.build("cnn", num_classes=10, in_channels=3, image_size=8).cuda()
    view = SplitView.of(patterns(3, 8, preprocess), labels=False)
    job = UnlearnJob(model, view, torch.device("cuda"), 0, (), None)
    loop = FastMixUnlearnLoop(MixUnlearnConfig(batch_size=4, epochs=3)).begin(job)
    with loop.closing:
        for epoch in range(2):
            list(loop.epoch(epoch))  # captures: the generator's step at its fourth time
        lam = torch.tensor([0.3, 0.6], device="cuda")
        partners = torch.arange(4, device="cuda")
        samples = loop.samples(2)
        next(samples)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(6):
                forget, retain = next(samples)
                loop.train_generator(forget, retain, lam[0])
                loop.train_unlearner(forget, retain, lam[1], partners)
        finally:
            torch.cuda.set_sync_debug_mode("default")
