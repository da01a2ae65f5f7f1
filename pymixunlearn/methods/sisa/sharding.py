"""The networks of a sharded training set: those trained on everything, and those that a deletion leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from pymixunlearn.methods.base import UnlearnJob
from pymixunlearn.methods.config import OURS, setting
from pymixunlearn.methods.loop import LoopConfig
from pymixunlearn.methods.sisa.member import Member, Phase, TrainingSetup
from pymixunlearn.methods.sisa.shards import Shard, divide, slice_epochs
from pymixunlearn.methods.view import labelled, together
from pymixunlearn.models import first_member
from pymixunlearn.models.autocast import carry_precision
from pymixunlearn.seeding import derive_seed
from pymixunlearn.tasks import indices_sha256
from pymixunlearn.training.cache import CachedModel, training_key
from pymixunlearn.training.fresh import fresh_weights
from pymixunlearn.training.supervised import TrainConfig

_STREAM = "sisa"
"""The random stream of shards and networks: methods that share it find each other's checkpoints."""


@dataclass(frozen=True)
class ShardedConfig(LoopConfig):
    """Settings of the methods that train an ensemble on shards; the training's are those of SISA's released code."""

    source = "released code of SISA"

    shards: int = setting(5, "S: networks, each trained on its own share of the data", low=1, high=1000)
    slices: int = setting(5, "R: parts that a share is learnt in, one after the other; a checkpoint after each", low=1)
    epochs: int = setting(20, "passes over its share that the training of a network amounts to", low=1)
    batch_size: int = setting(16, "images per step", low=1)
    lr: float = setting(1e-3, "learning rate", above=0)
    optimizer: Literal["sgd", "adam"] = setting("sgd", "which optimiser")
    momentum: float = setting(0.0, "momentum of SGD; Adam does not use it", low=0, below=1)
    weight_decay: float = setting(0.0, "coefficient of the squared norm's gradient", low=0)
    aggregate: Literal["mean", "majority"] = setting(
        "mean", "the ensemble predicts by the mean softmax, or by the shares of votes", source=OURS
    )
    weights: Literal["uniform", "size"] = setting(
        "uniform", "every network counts the same, or as its samples left do", source=OURS
    )
    processes: int = setting(
        1,
        "networks trained at the same time, in processes with a copy of the images each",
        low=1,
        source=OURS,
    )

    def training(self) -> TrainConfig:
        """Return the settings of a network's training."""
        return TrainConfig(
            self.epochs,
            self.lr,
            self.weight_decay,
            self.batch_size,
            self.optimizer,
            momentum=self.momentum,
            precision=self.precision or "float32",  # settled by then
        )


class Start(NamedTuple):
    """Where a member starts: after how many slices, and how many seconds an earlier run spent on what it skips."""

    member: Member
    slices: int
    seconds: float
    size: int
    """How many of the remaining samples it stands for."""


class Sharding:
    """The shards of one job's training set, and the networks to train on them.

    Neither shards nor seeds depend on what is to be forgotten. A checkpoint is stored under the hashes of its slices,
    so that the same lookup finds what was trained on everything and what was trained after an earlier deletion.

    Attributes:
        gone: bool [N], which samples are to be forgotten, in the order of the whole training set.
        shards: The shards of everything.
        setup: What the training of all networks has in common.

    Raises:
        UserError: There are fewer samples than slices in all.
    """

    def __init__(self, config: ShardedConfig, job: UnlearnJob) -> None:
        """Put the training set together again and divide it."""
        view = job.split
        assert view.indices is not None  # given with labels, which the methods need
        order = view.indices.argsort()
        self._images = labelled(together(view.forget, view.retain)).subset(order)
        self.gone = order < len(view.forget)
        self._job, self._template = job, first_member(job.model)
        carry_precision(job.model, self._template)
        self.shards = divide(len(order), config.shards, config.slices, self.seed())
        self.setup = TrainingSetup(self._images.to(job.device), view.preprocess, config.training(), job.device)
        self.slices = config.slices
        self._epochs = slice_epochs(config.epochs, config.slices)
        self._keys: dict[int, Mapping[str, Any]] = {}
        self._digests: dict[str, Mapping[str, str]] = {}

    def originals(self, starts: Sequence[int] | None) -> list[Start]:
        """Return a member per shard, to be trained on all of it, that saves its last checkpoint without D_f.

        Args:
            starts: After how many slices each starts, as returned before; the weights are the caller's matter then.
                None goes on from what the store has.
        """
        return [
            self._original(index, shard, None if starts is None else starts[index])
            for index, shard in enumerate(self.shards)
        ]

    def successors(self, originals: Sequence[Member] | None, starts: Sequence[int] | None) -> list[Start]:
        """Return a member per shard that has samples left, to be trained on these from its last clean checkpoint.

        Args:
            originals: The members of :meth:`originals` after their training; None where the weights are the caller's
                matter.
            starts: As for :meth:`originals`.
        """
        left = [index for index, shard in enumerate(self.shards) if len(shard.without(self.gone))]
        return [
            self.successor(
                index, None if originals is None else originals[index], None if starts is None else starts[order]
            )
            for order, index in enumerate(left)
        ]

    def successor(self, index: int, original: Member | None, start: int | None) -> Start:
        """Return the member that follows the original one of a shard; see :meth:`successors`."""
        shard = self.shards[index]
        left, clean, seconds = shard.without(self.gone), shard.untouched(self.gone), 0.0
        network, spent = self.fresh(index), 0.0
        if original is not None:
            assert original.saved is not None  # its training is over
            network.load_state_dict(original.saved["network"])
            spent = original.saved["seconds"]
        if start is None:
            start = clean
            found = self._latest(index, left, range(self.slices, clean, -1))
            if found is not None:
                start, network = found[0], found[1].model.to(self.setup.device)
                seconds = found[1].seconds - spent
                spent = found[1].seconds
        member = Member(network, self._phases(index, left, start), self.setup, spent)
        return Start(member, start, seconds, len(left))

    def fresh(self, *names: str | int) -> nn.Module:
        """Return a network that knows nothing, its weights fixed by the seed and ``names``, on the device."""
        return fresh_weights(copy.deepcopy(self._template), self.seed(*names), keep_frozen=True).to(self.setup.device)

    def seed(self, *names: str | int) -> int:
        """Return the seed of the stream ``names``."""
        return derive_seed(self._job.seed, _STREAM, *names)

    def _original(self, index: int, shard: Shard, start: int | None) -> Start:
        clean, network, seconds = shard.untouched(self.gone), self.fresh(index), 0.0
        if start is not None:
            member = Member(network, self._phases(index, shard, start, save=clean), self.setup)
            return Start(member, start, 0.0, len(shard))
        start = 0
        found = self._latest(index, shard, range(clean, 0, -1))
        if found is not None:
            start, network, seconds = found[0], found[1].model.to(self.setup.device), found[1].seconds
        whole = None
        if start == clean:
            whole = self._latest(index, shard, range(self.slices, clean, -1))
        # What lies between the clean checkpoint and the latest one has seen D_f: it is trained, but never gone back to.
        phases = self._phases(index, shard, start if whole is None else whole[0], save=clean)
        member = Member(network, phases, self.setup, seconds)
        if start == clean:
            member.save()
        if whole is not None:
            start, seconds = whole[0], whole[1].seconds
            member.network.load_state_dict(whole[1].model.state_dict())
            member.seconds = seconds
        return Start(member, start, seconds, len(shard))

    def _phases(self, index: int, shard: Shard, start: int, save: int | None = None) -> list[Phase]:
        """Return a phase for each slice after the first ``start``, of all samples up to there."""
        stored = self._job.store is not None
        return [
            Phase(
                samples,
                self._epochs[count - 1],
                self.seed(index, "slice", count),
                key=self._key(index, shard, count) if stored else None,
                save=count == save,
            )
            for count in range(start + 1, self.slices + 1)
            if len(samples := shard.first(count))
        ]

    def _latest(self, index: int, shard: Shard, counts: Iterable[int]) -> tuple[int, CachedModel] | None:
        """Return the first of the numbers of slices whose checkpoint is in the store, and what it holds."""
        if self._job.store is None:
            return None
        for count in counts:
            found = self._job.store.get(self._key(index, shard, count), into=copy.deepcopy(self._template))
            if found is not None:
                return count, found
        return None

    def _key(self, index: int, shard: Shard, count: int) -> dict[str, Any]:
        """Return what determines the network of a shard after ``count`` slices."""
        if index not in self._keys:
            setup = self.setup
            self._keys[index] = training_key(
                self.fresh(index),
                self._images.subset(self.shards[index].slices[0]),
                setup.preprocess,
                setup.training,
                device=setup.device,
                seed=self.seed(index),
            )
        slices = [self._digest(part) for part in shard.slices[:count]]
        return {**self._keys[index], "images": slices, "slice_epochs": self._epochs[:count]}

    def _digest(self, samples: Tensor) -> Mapping[str, str]:
        """Return the hashes of a slice's indices and of its samples."""
        digest = indices_sha256(samples)
        if digest not in self._digests:
            self._digests[digest] = {"indices": digest, "content": self._images.subset(samples).fingerprint()}
        return self._digests[digest]
