"""What every method keeps to: one seed fixes it, it resumes, it leaves the given model alone, it sees what it needs."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, methods, tasks
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import Method, MethodOutput, UnlearnJob
from pymixunlearn.methods.view import SplitView, labelled
from pymixunlearn.training import Callback, StateDict

Same = Callable[[nn.Module, nn.Module], bool]
CASES: dict[str, Method] = {
    "boundary-expand": methods.BoundaryExpand(epochs=3, batch_size=4, lr=0.01),
    "boundary-shrink": methods.BoundaryShrink(epochs=3, batch_size=4, lr=0.01),
    "dsmixup": methods.DsMixup(shards=2, slices=2, epochs=3, batch_size=4),
    "eu-k": methods.EuK(epochs=3, batch_size=4, frozen=0.6),
    "fine-tune": methods.FineTune(epochs=3, batch_size=4),
    "gli": methods.Gli(epochs=3, batch_size=4, lr=0.1, validation=0.3, check_interval=1, tolerance=30),
    "gli, by score": methods.Gli(epochs=3, batch_size=4, lr=0.1, validation=0.3, stop_by="score", patience=2),
    "gradient-ascent": methods.GradientAscent(epochs=3, batch_size=4, lr=1e-3),
    "l-mix": methods.LMix(epochs=2, vae_epochs=1, batch_size=4),
    "laf": methods.Laf(epochs=2, vae_epochs=1, batch_size=4),
    "laf+r": methods.LafRepair(epochs=1, vae_epochs=1, batch_size=4),
    "mixunlearn": methods.MixUnlearn(epochs=3, batch_size=4),
    "mixunlearn-reset": methods.MixUnlearnReset(epochs=3, batch_size=4),
    "mixunlearn-reset, plain": methods.MixUnlearnReset(epochs=2, batch_size=4, generator="vanilla", label_aware=False),
    "neggrad": methods.NegGrad(epochs=3, batch_size=4),
    "prune-reset": methods.PruneReset(epochs=3, batch_size=4),
    "prune-reset, without labels": methods.PruneReset(epochs=3, batch_size=4, label_aware=False),
    "prune-reset, by fisher": methods.PruneReset(epochs=2, batch_size=4, select="fisher"),
    "randlabel": methods.RandLabel(epochs=3, batch_size=4, lr=1e-3),
    "retrain": methods.Retrain(epochs=3, batch_size=4),
    "salun": methods.SalUn(epochs=2, batch_size=4),
    "salun, D_f first": methods.SalUn(epochs=2, batch_size=4, order="forget-first"),
    "scrub": methods.Scrub(epochs=3, max_epochs=2, batch_size=4, retain_batch_size=5),
    "scrub+r": methods.Scrub(epochs=3, max_epochs=2, batch_size=4, rewind=True, validation=0.3),
    "sisa": methods.Sisa(shards=2, slices=2, epochs=3, batch_size=4),
    "ssd": methods.Ssd(batch_size=4, alpha=1.5),
    "ts": methods.Teachers(epochs=1, batch_size=4, teacher_epochs=1, teacher_batch_size=8, lr=1e-3),
    "ts, bad teacher": methods.Teachers(teachers="bad", epochs=3, batch_size=4, lr=1e-3),
    "unroll": methods.Unroll(batch_size=4, train_epochs=100),
    "unroll, from the start": methods.Unroll(batch_size=4, train_epochs=100, point="start"),
    "unroll, regularised": methods.Unroll(batch_size=4, std_weight=0.1),
}
EVERY = pytest.mark.parametrize("name", CASES)


class Normed(nn.Module):
    """A network that normalises single values per channel: after a layer of 1x1 maps, and of its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.AdaptiveAvgPool2d(1)
        self.body = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), pool, nn.BatchNorm2d(6))
        self.hidden, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.hidden(self.body(images).flatten(1))).relu())
        return logits


ENSEMBLES = ("dsmixup", "sisa")
"""Methods that end in several networks."""
PREPARED = (*ENSEMBLES, "unroll, regularised")
"""Methods that train networks of their own on everything first, in a loop before theirs."""
CHANGES_WEIGHTS = pytest.mark.parametrize("name", [name for name in CASES if name not in ("retrain", *ENSEMBLES)])


def test_no_method_is_left_out() -> None:
    assert {method.name for method in CASES.values()} == set(methods.available())


PARTS = {
    "eu-k": ["setup", "attempts"],
    "laf": ["setup", "autoencoders", "epochs"],
    "mixunlearn": ["setup", "epochs"],
    "retrain": ["setup", "epochs"],
    "salun": ["setup", "saliency", "epochs"],
    "sisa": ["setup", "epochs"],
    "ssd": ["setup", "importances"],
    "ts": ["setup", "teachers", "epochs"],
}


@pytest.mark.parametrize("name", PARTS)
def test_the_seconds_have_parts(name: str, tiny: Any) -> None:
    found = CASES[name].unlearn(tiny.model(), tiny.split(), device="cpu", seed=1)
    assert list(found.parts) == PARTS[name]
    assert sum(found.parts.values()) == pytest.approx(found.seconds)


@EVERY
def test_one_seed_fixes_every_bit(name: str, tiny: Any, same_weights: Same, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched for a collapse or not."""
    monkeypatch.setattr("pymixunlearn.methods.collapse.INTERVAL", 1)

    def run(seed: int, guard: bool = False) -> methods.UnlearnResult:
        torch.rand(3)  # whatever else used the global generator
        return CASES[name].unlearn(tiny.model(dropout=0.5), tiny.split(), device="cpu", seed=seed, guard=guard)

    with torch.random.fork_rng():
        first, again, other = run(0), run(0, guard=True), run(1)
    assert same_weights(first.model, again.model) and again.collapse is None
    assert [{**record, "seconds": 0} for record in first.history] == [{**r, "seconds": 0} for r in again.history]
    # SSD draws nothing, and unrolling the trained model draws only how rounding adds up.
    assert not same_weights(first.model, other.model) or name == "ssd"
    assert not first.model.training
    assert first.seconds >= sum(record["seconds"] for record in first.history)


class _StopAfter(Callback):
    """Keeps the snapshot of an epoch as a file would, and interrupts there; counts the steps."""

    def __init__(self, epoch: int | None = None) -> None:
        self.epoch, self.file, self.steps, self.total = epoch, io.BytesIO(), 0, 0

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        self.total = epochs * steps_per_epoch

    def on_step_end(self, step: int) -> None:
        self.steps = step

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        if epoch == self.epoch:
            torch.save(state(), self.file)
            raise KeyboardInterrupt

    def read(self) -> StateDict:
        self.file.seek(0)
        loaded: StateDict = torch.load(self.file, weights_only=True)
        return loaded


@EVERY
def test_an_interrupted_run_resumes_bit_for_bit(name: str, tiny: Any, same_weights: Same) -> None:
    method, model, split = CASES[name], tiny.model(dropout=0.5), tiny.split()
    watcher = _StopAfter()
    whole = method.unlearn(model, split, device="cpu", seed=3, callbacks=[watcher])
    epochs = len(whole.history)
    assert watcher.steps <= watcher.total < watcher.steps + epochs or method.name == "gli"  # the mean was rounded up
    for epoch in range(epochs):
        stop = _StopAfter(epoch)
        with pytest.raises(KeyboardInterrupt):
            method.unlearn(model, split, device="cpu", seed=3, callbacks=[stop])
        resumed_steps = _StopAfter()
        resumed = method.unlearn(model, split, device="cpu", seed=3, callbacks=[resumed_steps], resume=stop.read())
        assert same_weights(whole.model, resumed.model)
        done = epoch == epochs - 1 and name not in PREPARED  # theirs were interrupted in the loop before
        assert resumed_steps.steps == (0 if done else watcher.steps) or method.name == "gli"
        for one, other in zip(whole.history, resumed.history, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}


@EVERY
def test_the_loop_of_a_method_has_its_name(name: str, tiny: Any) -> None:
    """Whoever watches can tell it from what comes before."""
    loops: list[str] = []

    class Names(Callback):
        def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
            loops.append(name)

    CASES[name].unlearn(tiny.model(), tiny.split(), device="cpu", callbacks=[Names()])
    assert loops == [*(["original"] if name in PREPARED else []), CASES[name].name]


@EVERY
def test_the_given_model_is_left_as_it_is(name: str, tiny: Any, same_weights: Same) -> None:
    model = tiny.model().train()
    before = copy.deepcopy(model)
    result = CASES[name].unlearn(model, tiny.split(), device="cpu")
    assert same_weights(model, before) and model.training
    assert not same_weights(result.model, before)
    for network in (model, result.model):
        assert all(not module._forward_hooks for module in network.modules())
        assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
    assert result.model(torch.rand(2, 2, 8, 8)).shape == (2, 4)


@CHANGES_WEIGHTS
def test_frozen_layers_stay_frozen(name: str, tiny: Any) -> None:
    model = tiny.model()
    model.body.conv.weight.requires_grad_(False)
    result = CASES[name].unlearn(model, tiny.split(), device="cpu")
    assert torch.equal(result.model.body.conv.weight, model.body.conv.weight)
    # The layers of this network that EU-k keeps are all of its body.
    changed = "head" if name == "eu-k" else "body.norm"
    assert not torch.equal(result.model.get_submodule(changed).weight, model.get_submodule(changed).weight)
    assert not result.model.body.conv.weight.requires_grad


@CHANGES_WEIGHTS
def test_parameters_that_the_forward_pass_leaves_out_are_no_obstacle(name: str, tiny: Any) -> None:
    model = tiny.model()
    model.spare = torch.nn.Linear(3, 3)
    result = CASES[name].unlearn(model, tiny.split(), device="cpu")
    assert all(parameter.isfinite().all() for parameter in result.model.parameters())


@EVERY
@pytest.mark.parametrize("forget", [1, 5], ids=["one sample", "four and one"])
def test_a_lone_sample_is_no_batch_to_normalise_by(name: str, forget: int, tiny: Any) -> None:
    """Batches are of four, so that the last one of D_f is of one sample."""
    model = Normed()
    result = CASES[name].unlearn(model, tiny.split(forget, 14), device="cpu")
    assert all(parameter.isfinite().all() for parameter in result.model.parameters())
    assert all(not module._forward_pre_hooks for module in (*model.modules(), *result.model.modules()))


@EVERY
@pytest.mark.parametrize("how", ["weights", "mode"])
def test_the_statistics_of_frozen_layers_do_not_move(name: str, how: str, tiny: Any) -> None:
    model = Normed().train()
    frozen = model.body.requires_grad_(False) if how == "weights" else model.body.eval()
    for buffer in frozen.buffers():
        buffer.add_(1)
    result = CASES[name].unlearn(model, tiny.split(), device="cpu")
    networks = result.model.members if name in ENSEMBLES else [result.model]
    for network in networks:
        for key, buffer in network.body.named_buffers():
            # The networks that are trained anew keep what is frozen, too.
            assert torch.equal(buffer, model.body.get_buffer(key)), key


@pytest.mark.parametrize("name", [name for name in CASES if name != "retrain"])
def test_a_model_of_other_classes_is_refused(name: str, tiny: Any) -> None:
    model = tiny.model()
    model.head = nn.Linear(96, 7)
    with pytest.raises(UserError, match=r"\[1, 7\]; expected logits \[1, 4\]"):
        CASES[name].unlearn(model, tiny.split(), device="cpu")


# Labels


class _Look(Method):
    """Keeps what it is shown."""

    name = "look"
    summary = "looks"
    config_class = methods.MethodConfig
    job: UnlearnJob

    def __init__(self, needs_labels: bool) -> None:
        super().__init__()
        self._needs_labels = needs_labels

    @property
    def needs_labels(self) -> bool:
        return self._needs_labels

    def _run(self, job: UnlearnJob) -> MethodOutput:
        self.job = job
        return MethodOutput(job.model, [], self.config)


def _reachable(thing: Any, seen: set[int]) -> list[Any]:
    """Everything that can be reached from an object through attributes, items and closures."""
    if id(thing) in seen or isinstance(thing, (str, int, float, bool, type(None), type, nn.Module)):
        return []
    seen.add(id(thing))
    inner: list[Any] = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    if isinstance(thing, dict):
        inner += list(thing.values())
    if isinstance(thing, (list, tuple)):
        inner += list(thing)
    return [thing, *(found for part in inner for found in _reachable(part, seen))]


def test_a_method_without_labels_is_given_none_and_no_method_a_test_sample(tiny: Any) -> None:
    split = tiny.split()
    for needs_labels in (True, False):
        look = _Look(needs_labels)
        look.unlearn(tiny.model(), split, device="cpu")
        view = look.job.split
        kind = ImageSet if needs_labels else UnlabelledImages
        assert type(view.forget) is kind and type(view.retain) is kind
        assert torch.equal(view.forget.images, split.forget.images)
        assert torch.equal(view.retain.images, split.retain.images)
        tensors = [thing for thing in _reachable(view, set()) if isinstance(thing, torch.Tensor)]
        assert len(tensors) == (5 if needs_labels else 2)
        if needs_labels:  # places in a sorted data set would tell the classes
            assert torch.equal(view.indices, torch.cat([split.forget_indices, split.retain_indices]))
        assert all(tensor.data_ptr() != split.test.images.data_ptr() for tensor in tensors)
        assert needs_labels or all(tensor.dtype == torch.float32 for tensor in tensors)


def test_labels_that_were_withheld_cannot_be_asked_for(tiny: Any) -> None:
    hidden = SplitView.of(tiny.split(), labels=False).forget
    with pytest.raises(TypeError, match="needs_labels is false"):
        labelled(hidden)
    with pytest.raises(UserError, match="images without labels"):
        data.batches(hidden, data.Preprocess(), batch_size=2, device="cpu")
    assert next(iter(data.batches(hidden, data.Preprocess(), batch_size=2, device="cpu", labels=False))).targets is None
    assert not hasattr(hidden, "targets") and not hasattr(hidden.subset(torch.tensor([0])), "targets")


def test_which_methods_need_labels() -> None:
    agnostic = {name for name, method in CASES.items() if not method.needs_labels}
    resets = {"mixunlearn-reset, plain", "prune-reset, without labels"}
    assert agnostic == {"boundary-expand", "laf", "l-mix", "mixunlearn", "randlabel", "ts, bad teacher", *resets}
    assert methods.MixUnlearn(label_aware=True).needs_labels


@EVERY
def test_wrong_labels_change_exactly_the_methods_that_need_them(name: str, tiny: Any, same_weights: Same) -> None:
    split = tiny.split()
    wrong = data.from_tensors(
        split.train.images, (split.train.targets + 1) % 4, split.test.images, split.test.targets, classes=tuple("abcd")
    )
    results = [
        CASES[name].unlearn(tiny.model(), chosen, device="cpu").model
        for chosen in (split, tasks.index_split(wrong, split.forget_indices))
    ]
    assert same_weights(*results) is not CASES[name].needs_labels


def semi(targets_seed: int) -> tasks.Split:
    """Noise images of which six have labels; the labels differ with ``targets_seed``, and nothing else does."""
    images = torch.rand(24, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(4, (24,), generator=torch.Generator().manual_seed(targets_seed))
    dataset = data.from_tensors(images, targets, images[:4], targets[:4], classes=tuple("abcd"))
    return tasks.Split(dataset, "semi", torch.arange(3), 0, {}, unlabelled_indices=torch.arange(6, 24))


@pytest.mark.parametrize("name", [name for name, method in CASES.items() if not method.needs_labels])
def test_a_label_agnostic_method_does_the_same_whatever_the_labels_are(
    name: str, tiny: Any, same_weights: Same
) -> None:
    splits = [semi(targets_seed) for targets_seed in (1, 2)]
    assert not torch.equal(splits[0].train.targets, splits[1].train.targets)
    first, other = (CASES[name].unlearn(tiny.model(), split, device="cpu", seed=3).model for split in splits)
    assert same_weights(first, other)


@pytest.mark.parametrize("name", [name for name, method in CASES.items() if method.needs_labels and name != "retrain"])
def test_a_method_that_needs_labels_refuses_a_split_without(name: str, tiny: Any) -> None:
    with pytest.raises(UserError, match=r"needs labels here, and in task 'semi' 18 of 24 samples have none"):
        CASES[name].unlearn(tiny.model(), semi(1), device="cpu")


def test_the_view_of_a_partly_labelled_split() -> None:
    split = semi(1)
    without, with_labels = SplitView.of(split, labels=False), SplitView.of(split, labels=True)
    assert len(without.retain) == 21 and without.unlabelled is None
    for images in (without.forget, without.retain):
        assert isinstance(images, UnlabelledImages) and not hasattr(images, "targets")
    assert isinstance(with_labels.retain, ImageSet) and len(with_labels.retain) == 3
    assert with_labels.unlabelled is not None and len(with_labels.unlabelled) == 18
    assert with_labels.indices is not None and with_labels.indices.tolist() == [0, 1, 2, 3, 4, 5]
