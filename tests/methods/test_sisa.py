"""SISA and DSMixup: what is trained, what is retrained, and that nothing of D_f is left."""

from __future__ import annotations

import copy
import io
import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, methods, tasks
from pymixunlearn.data.batches import Batch
from pymixunlearn.errors import UserError
from pymixunlearn.methods import UnlearnResult
from pymixunlearn.methods.base import UnlearnJob
from pymixunlearn.methods.sisa.dsmixup import mixes
from pymixunlearn.methods.sisa.member import Member, Mix, Phase, TrainingSetup
from pymixunlearn.methods.sisa.member_pool import MemberPool
from pymixunlearn.methods.sisa.sharding import ShardedConfig, Sharding
from pymixunlearn.methods.sisa.shards import Shard, divide, slice_epochs
from pymixunlearn.methods.view import SplitView
from pymixunlearn.models import Ensemble
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import Callback, ModelCache, StateDict
from tests.methods.literal import adam, ce, check_step, pair, sgd

Same = Callable[[nn.Module, nn.Module], bool]
FIELDS: dict[str, Any] = {"shards": 3, "slices": 2, "epochs": 3, "batch_size": 4, "lr": 0.05}
EACH = slice_epochs(3, 2)
METHODS = {"sisa": methods.Sisa, "dsmixup": methods.DsMixup}
BOTH = pytest.mark.parametrize("name", METHODS)


class Watcher(Callback):
    """Counts the steps of each loop; interrupts at a loop's epoch, keeping its snapshot as a file would."""

    def __init__(self, loop: str = "", epoch: int = -1) -> None:
        self.steps: dict[str, int] = {}
        self.loop, self.epoch, self.file = loop, epoch, io.BytesIO()
        self._name = ""

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        self._name, self.steps[name] = name, 0

    def on_step_end(self, step: int) -> None:
        self.steps[self._name] += 1

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        if (self._name, epoch) == (self.loop, self.epoch):
            torch.save(state(), self.file)
            raise KeyboardInterrupt

    def read(self) -> StateDict:
        self.file.seek(0)
        loaded: StateDict = torch.load(self.file, weights_only=True)
        return loaded


def world(forget: list[int], count: int = 30, pixels: int = 0) -> tasks.Split:
    """Noise images, of which those to be forgotten are drawn from the seed ``pixels``."""
    stream = torch.Generator().manual_seed(1)
    images, targets = torch.rand(count, 2, 8, 8, generator=stream), torch.randint(4, (count,), generator=stream)
    images[forget] = torch.rand(len(forget), 2, 8, 8, generator=torch.Generator().manual_seed(pixels))
    return tasks.index_split(data.from_tensors(images, targets, images, targets, classes=tuple("abcd")), forget)


def shards(count: int = 30, seed: int = 0) -> list[Shard]:
    """The shards that the methods divide ``world`` into."""
    return divide(count, FIELDS["shards"], FIELDS["slices"], derive_seed(seed, "sisa"))


def run(name: str, tiny: Any, split: tasks.Split, watcher: Watcher | None = None, **more: Any) -> UnlearnResult:
    fields = {**FIELDS, **{key: more.pop(key) for key in list(more) if key in methods.DsMixupConfig.kinds()}}
    callbacks = [watcher] if watcher else []
    return METHODS[name](**fields).unlearn(tiny.model(dropout=0.3), split, device="cpu", callbacks=callbacks, **more)


def steps(shard: Shard, start: int = 0) -> int:
    """How many steps the slices of a shard after the first ``start`` take."""
    return sum(EACH[at] * batches(len(shard.first(at + 1))) for at in range(start, len(shard.slices)))


def batches(count: int) -> int:
    """How many batches of four there are; the network normalises batches, so a last one of one image is left out."""
    return count // 4 + (count % 4 > 1)


# What is retrained


def test_only_what_has_seen_the_forgotten_is_trained_again(tiny: Any, same_weights: Same) -> None:
    """A sample of the first slice of one shard, and one of the last slice of another."""
    first, last = int(shards()[0].slices[0][0]), int(shards()[2].slices[1][0])
    split, watcher = world([first, last]), Watcher()
    result = run("sisa", tiny, split, watcher)
    gone = torch.zeros(30, dtype=torch.bool)
    gone[[first, last]] = True
    left = [shard.without(gone) for shard in shards()]
    assert watcher.steps == {"original": sum(map(steps, shards())), "sisa": steps(left[0]) + steps(left[2], 1)}
    assert isinstance(result.model, Ensemble) and len(result.model.members) == 3

    other = run("sisa", tiny, world([last]))
    assert same_weights(result.model.members[1], other.model.members[1])
    assert same_weights(result.model.members[2], other.model.members[2])
    assert not same_weights(result.model.members[0], other.model.members[0])


@BOTH
@pytest.mark.parametrize("forget", [[4], [0, 5, 9, 11, 21, 29]], ids=["one", "six"])
def test_nothing_of_the_forgotten_is_left(name: str, forget: list[int], tiny: Any, same_weights: Same) -> None:
    """Other images in the place of D_f give the same networks, bit for bit."""
    one, other = (run(name, tiny, world(forget, pixels=seed)) for seed in (0, 1))
    assert same_weights(one.model, other.model)


def test_a_pair_of_affected_shards_becomes_one_network(tiny: Any, same_weights: Same) -> None:
    forget = [int(shards()[0].slices[0][0]), int(shards()[2].slices[1][0])]
    watcher = Watcher()
    result = run("dsmixup", tiny, world(forget), watcher)
    assert isinstance(result.model, Ensemble) and len(result.model.members) == 2
    assert watcher.steps["dsmixup"] == 3 * batches(9)  # nine samples are left of ten in each
    assert same_weights(result.model.members[0], run("sisa", tiny, world([4])).model.members[1])


def test_an_affected_shard_without_a_partner_is_retrained_as_sisa_does(tiny: Any, same_weights: Same) -> None:
    split = world([4])
    assert same_weights(run("dsmixup", tiny, split).model, run("sisa", tiny, split).model)


def test_a_shard_of_which_nothing_is_left_has_no_network(tiny: Any) -> None:
    forget = shards()[1].first(2).tolist()
    for name in METHODS:
        watcher = Watcher()
        result = run(name, tiny, world(forget), watcher)
        assert isinstance(result.model, Ensemble) and len(result.model.members) == 2
        assert watcher.steps[name] == 0 and result.history == []


def test_networks_can_count_as_their_samples(tiny: Any) -> None:
    forget = shards()[1].first(2)[:4].tolist()
    ensemble = run("sisa", tiny, world(forget), weights="size", aggregate="majority").model
    assert isinstance(ensemble, Ensemble) and ensemble.aggregate == "majority"
    assert ensemble.weights.tolist() == pytest.approx([10 / 26, 6 / 26, 10 / 26])
    merged = run("dsmixup", tiny, world([*forget, int(shards()[0].slices[0][0])]), weights="size").model
    assert isinstance(merged, Ensemble) and merged.weights.tolist() == pytest.approx([10 / 25, 15 / 25])


# Seconds and history


@BOTH
def test_the_ensemble_on_everything_is_not_counted_as_unlearning(name: str, tiny: Any) -> None:
    result = run(name, tiny, world([4]))
    assert result.preparation is not None
    assert len(result.preparation.history) == sum(EACH) >= len(result.history)
    assert result.preparation.seconds == sum(record["seconds"] for record in result.preparation.history)
    spent = sum(record["seconds"] for record in result.history)
    assert spent <= result.seconds < spent + result.preparation.seconds
    assert set(result.history[0]) == {"epoch", "loss", "seconds"}


# Checkpoints


@BOTH
def test_a_second_request_goes_on_from_stored_checkpoints(
    name: str, tiny: Any, same_weights: Same, tmp_path: Path
) -> None:
    store = ModelCache(tmp_path)
    early, late = int(shards()[0].slices[0][0]), int(shards()[2].slices[1][0])
    first = run(name, tiny, world([late], pixels=2), store=store)

    # Both requests at once: the same data, so the ensemble is there, and so is what the first request retrained.
    split, watcher = world([late], pixels=2), Watcher()
    both = tasks.index_split(split.dataset, [early, late])
    second = run(name, tiny, both, watcher, store=store)
    assert watcher.steps["original"] == 0
    assert second.preparation is not None and first.preparation is not None
    assert second.preparation.seconds > 0 and second.preparation.history == []
    assert same_weights(second.model, run(name, tiny, both).model)
    if name == "sisa":
        gone = torch.zeros(30, dtype=torch.bool)
        gone[early] = True
        assert watcher.steps["sisa"] == steps(shards()[0].without(gone))
        assert second.seconds > first.seconds / 100  # what the first request spent on the other shard is counted


def test_the_same_request_again_trains_nothing(
    tiny: Any, same_weights: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, split = ModelCache(tmp_path), world([4, 7])
    first, watcher = run("sisa", tiny, split, store=store), Watcher()
    again = run("sisa", tiny, split, watcher, store=store)
    assert watcher.steps == {"original": 0, "sisa": 0} and again.history == []
    assert same_weights(first.model, again.model)
    # While no time passes, what was spent then is all that is charged.
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    charged = [run("sisa", tiny, split, store=store).seconds for _ in range(2)]
    assert 0 < charged[0] == charged[1] <= again.seconds


@pytest.mark.parametrize("change", [{"lr": 0.04}, {"seed": 1}, {"slices": 3}, {"epochs": 4}], ids=str)
def test_checkpoints_of_another_training_are_not_taken(change: dict[str, Any], tiny: Any, tmp_path: Path) -> None:
    store, watcher = ModelCache(tmp_path), Watcher()
    run("sisa", tiny, world([4]), store=store)
    run("sisa", tiny, world([4]), watcher, store=store, **change)
    assert watcher.steps["original"] > 0


def test_checkpoints_on_other_labels_are_not_taken(tiny: Any, tmp_path: Path) -> None:
    store, split, watcher = ModelCache(tmp_path), world([4]), Watcher()
    run("sisa", tiny, split, store=store)
    images, targets = split.train.images, (split.train.targets + 1) % 4
    other = data.from_tensors(images, targets, images, targets, classes=tuple("abcd"))
    run("sisa", tiny, tasks.index_split(other, [4]), watcher, store=store)
    assert watcher.steps["original"] == sum(map(steps, shards()))


def test_a_lost_checkpoint_is_trained_again(tiny: Any, same_weights: Same, tmp_path: Path) -> None:
    """Whichever it is, the result is the same; the clean one is needed even where the last one is there."""
    late = int(shards()[2].slices[1][0])
    split, store = world([late]), ModelCache(tmp_path / "whole")
    whole = run("sisa", tiny, split, store=store)
    kept = sorted((tmp_path / "whole").glob("*.json"))
    assert len(kept) == 3 * 2 + 1
    for lost in kept:
        content = lost.read_bytes()
        lost.unlink()
        assert same_weights(whole.model, run("sisa", tiny, split, store=store).model)
        lost.write_bytes(content)


# Processes, interrupts


def test_processes_change_nothing(tiny: Any, same_weights: Same) -> None:
    """Of DSMixup, which also trains what SISA does, and mixes besides."""
    split = world([0, 5, 9, 11, 21, 29])
    alone, together = (run("dsmixup", tiny, split, processes=count) for count in (1, 2))
    assert same_weights(alone.model, together.model)
    for one, other in zip(alone.history, together.history, strict=True):
        assert one["loss"] == other["loss"]


def test_processes_need_images_in_memory(tiny: Any) -> None:
    from pymixunlearn.data.streamed import StreamedImageSet

    images = torch.randint(256, (30, 2, 8, 8), dtype=torch.uint8)
    streamed = StreamedImageSet(images, torch.arange(30) % 4, tuple("abcd"))
    split = tasks.index_split(data.Dataset("streamed", streamed, streamed, data.Preprocess()), [3])
    with pytest.raises(UserError, match="processes is 2, but the images are streamed"):
        run("sisa", tiny, split, processes=2)
    assert isinstance(run("sisa", tiny, split).model, Ensemble)


def _pool(tiny: Any) -> tuple[MemberPool, list[Member]]:
    """Two processes, and a member for each."""
    setup = replace(_setup(tiny), preprocess=data.Preprocess())
    phase = Phase(torch.arange(8), 1, seed=0)
    return MemberPool(setup, 2), [Member(tiny.model(), [phase], setup) for _ in range(2)]


def test_a_process_that_ends_is_told_in_one_sentence(tiny: Any) -> None:
    pool, members = _pool(tiny)
    with closing(pool):
        for _ in pool.epoch(members, 0):
            pass
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        with pytest.raises(UserError, match="a process that trains a network ended with exit code -9"):
            list(pool.epoch(members, 0))


def test_what_goes_wrong_in_a_process_is_raised_here(tiny: Any) -> None:
    pool, members = _pool(tiny)
    members[1].phases[0].samples[0] = 10_000
    with closing(pool), pytest.raises(RuntimeError, match="Traceback"):
        list(pool.epoch(members, 0))
    assert not multiprocessing.active_children()


def test_a_process_that_is_one_of_several_starts_none(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    with pytest.raises(UserError, match="one of several at a time itself; expected 1"):
        run("sisa", tiny, world([4]), processes=2)


@BOTH
@pytest.mark.parametrize("stored", [False, True], ids=["", "store"])
@pytest.mark.parametrize("loop", ["original", "own"])
def test_an_interrupted_run_resumes_bit_for_bit(
    name: str, loop: str, stored: bool, tiny: Any, same_weights: Same, tmp_path: Path
) -> None:
    split = world([0, 5, 9, 11, 21, 29])
    whole, counted = run(name, tiny, split), Watcher()
    run(name, tiny, split, counted)
    chosen = "original" if loop == "original" else name
    assert whole.preparation is not None
    for epoch in range(len(whole.preparation.history if loop == "original" else whole.history)):
        store = ModelCache(tmp_path / f"{epoch}") if stored else None
        stop, after = Watcher(chosen, epoch), Watcher()
        with pytest.raises(KeyboardInterrupt):
            run(name, tiny, split, stop, store=store)
        resumed = run(name, tiny, split, after, store=store, resume=stop.read())
        assert same_weights(whole.model, resumed.model)
        total = stop.steps.get(chosen, 0) + after.steps[chosen]
        assert total == counted.steps[chosen]
        assert resumed.preparation is not None
        for mine, theirs in (
            (whole.preparation.history, resumed.preparation.history),
            (whole.history, resumed.history),
        ):
            assert [{**record, "seconds": 0} for record in mine] == [{**record, "seconds": 0} for record in theirs]


# Steps


def test_a_step_is_cross_entropy(tiny: Any) -> None:
    _, batch = pair()
    for optimizer, move in (("sgd", sgd(0.02, 0.1)), ("adam", adam(0.02, 0.1))):
        setup = _setup(tiny, optimizer=optimizer, lr=0.02, weight_decay=0.1)
        network = tiny.model(5).double()
        step = lambda: setup.step(network, setup.optimizer(network), batch)  # noqa: B023, E731
        check_step(network, step, lambda net: ce(net(batch.images), batch.targets), move)


def test_a_step_on_mixes_is_cross_entropy_with_soft_labels(tiny: Any) -> None:
    setup, network = _setup(tiny, lr=0.02), tiny.model(5).double()
    mix = Mix(torch.tensor([7, 2, 4, 0, 1, 9]), torch.tensor([0.1, 0.9, 0.4, 0.75, 0.5, 0.0], dtype=torch.float64))
    _, batch = pair()
    batch = Batch(batch.images, batch.targets, torch.tensor([5, 1, 0, 3, 2]))

    def loss(net: nn.Module) -> torch.Tensor:
        images, soft = [], []
        for x, y, place in zip(batch.images, batch.targets, batch.indices, strict=True):
            lam, beside = mix.lam[place], mix.partners[place]
            images.append(lam * x + (1 - lam) * setup.images.images[beside].double())
            label = torch.zeros(4, dtype=torch.float64)
            label[y] += lam
            label[setup.images.targets[beside]] += 1 - lam
            soft.append(label)
        p = net(torch.stack(images)).exp()
        return -(torch.stack(soft) * (p / p.sum(1, keepdim=True)).log()).sum() / len(soft)

    chance = torch.Generator()
    step = lambda: setup.step(network, setup.optimizer(network), batch, mix, chance)  # noqa: E731
    check_step(network, step, loss, sgd(0.02))


def _setup(tiny: Any, **fields: Any) -> TrainingSetup:
    job: UnlearnJob = tiny.double_job()
    return Sharding(ShardedConfig(shards=2, slices=2, **fields), job).setup


def test_the_training_set_is_put_together_in_its_own_order() -> None:
    split = world([4, 11, 29])
    view = SplitView.of(split, labels=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 4))
    sharding = Sharding(ShardedConfig(shards=2, slices=2), UnlearnJob(network, view, torch.device("cpu"), 0, (), None))
    assert torch.equal(sharding.setup.images.images, split.train.images)
    assert torch.equal(sharding.setup.images.targets, split.train.targets)
    assert sharding.gone.nonzero().squeeze(1).tolist() == [4, 11, 29]


def test_a_diverged_network_is_told_and_not_stored(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unlearning diverged: loss is nan"):
        run("sisa", tiny, world([4]), lr=1e30, store=ModelCache(tmp_path))
    assert not list(tmp_path.glob("*.json"))


def test_mixes_are_fixed_once_and_for_all() -> None:
    one, other = torch.arange(5), torch.arange(5, 9)
    assert copy.deepcopy(mixes(one, other, 1.0, 3))[1].lam.equal(mixes(one, other, 1.0, 3)[1].lam)
