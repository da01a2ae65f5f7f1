"""SISA: an ensemble whose networks each see a share of the data, so that forgetting retrains few of them, from late on.

Bourtoule, Chandrasekaran, Choquette-Choo, Jia, Travers, Zhang, Lie, Papernot, "Machine Unlearning", IEEE S&P 2021. The
training set is divided into shards, one network each, and every shard into slices that are added one after the other,
with a checkpoint after each. What is forgotten is gone exactly: each network that has seen any of it goes back to its
last checkpoint that has not, and trains on from there without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from pymixunlearn.methods.base import Method, MethodOutput, Preparation, UnlearnJob
from pymixunlearn.methods.loop import ORIGINAL, Loop, Measured, Stage
from pymixunlearn.methods.parts import Facts
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.sisa.member import Member
from pymixunlearn.methods.sisa.member_pool import MemberPool
from pymixunlearn.methods.sisa.sharding import ShardedConfig, Sharding, Start
from pymixunlearn.models import ensemble_of

NAME = "sisa"


@dataclass(frozen=True)
class SisaConfig(ShardedConfig):
    """Settings of :class:`Sisa`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.SisaConfig.from_mapping({"epochs": "7"}).epochs
        7
    """


class MembersLoop(Loop[ShardedConfig]):
    """Epochs in which every member that has something left to learn gets one of its own.

    Args:
        config: The settings.
        starts: The members and where they start.
        pool: Trains them.
        facts: What else a resumed run has to know; where the members start is added.
    """

    config_class = ShardedConfig
    in_place = False

    def __init__(self, config: ShardedConfig, starts: Sequence[Start], pool: MemberPool, facts: Facts) -> None:
        """Note where the members start."""
        super().__init__(config)
        self.members = [start.member for start in starts]
        self.facts = facts
        self._pool = pool
        facts["starts"] = [start.slices for start in starts]
        facts["earlier"] = sum(start.seconds for start in starts)

    def setup(self) -> None:
        """Put the members in the place of the model."""
        self.parts = {"facts": self.facts, **{f"member {index}": member for index, member in enumerate(self.members)}}

    def stages(self) -> list[Stage]:
        """Return as many epochs as the longest training has."""
        epochs = max((member.epochs for member in self.members), default=0)
        steps = [sum(member.steps(epoch) for member in self.members) for epoch in range(epochs)]
        return [Stage(1, count, self.epoch) for count in steps]

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Give every member that has one left its next epoch."""
        due = [member for member in self.members if epoch < member.epochs]
        for member, losses in self._pool.epoch(due, epoch):
            for loss in losses:
                yield {"loss": loss}
            member.end(epoch, self.job.store)


class OriginalLoop(MembersLoop):
    """Trains the ensemble on everything."""

    name = ORIGINAL


class SisaLoop(MembersLoop):
    """Trains on without D_f, from the last checkpoints that have not seen it."""

    name = NAME


class ShardedMethod(Method):
    """A method whose ensemble is first trained on everything, and then on without D_f; needs labels."""

    config: ShardedConfig
    loop_class: ClassVar[type[MembersLoop]]

    @abstractmethod
    def successors(
        self, sharding: Sharding, originals: Sequence[Member] | None, starts: Sequence[int] | None
    ) -> list[Start]:
        """Return the members of the ensemble without D_f; see :meth:`Sharding.successors`."""

    def _run(self, job: UnlearnJob) -> MethodOutput:
        sharding = Sharding(self.config, job)
        with closing(MemberPool(sharding.setup, self.config.processes)) as pool:
            return self._carry_out(job, sharding, pool)

    def _carry_out(self, job: UnlearnJob, sharding: Sharding, pool: MemberPool) -> MethodOutput:
        resume, facts = job.resume, Facts()
        originals, starts = None, None
        if resume is None or resume.get("name") == ORIGINAL:
            known = None if resume is None else resume["state"]["facts"]["starts"]
            first = OriginalLoop(self.config, sharding.originals(known), pool, Facts()).begin(job)
            history = first.run()
            seconds = first.facts["earlier"] + sum(record["seconds"] for record in history)
            facts = Facts(seconds=seconds, history=history)
            originals, job = first.members, replace(job, resume=None)
        else:
            starts = resume["state"]["facts"]["starts"]
        after = self.successors(sharding, originals, starts)
        loop = self.loop_class(self.config, after, pool, facts).begin(job)
        history = loop.run()
        sizes = [start.size for start in after] if self.config.weights == "size" else None
        networks: list[nn.Module] = [member.network for member in loop.members]
        ensemble = ensemble_of(networks, sizes, self.config.aggregate)
        preparation = Preparation(facts["seconds"], facts["history"])
        return MethodOutput(ensemble, history, self.config, preparation=preparation, earlier=facts["earlier"])


@method(NAME, summary="an ensemble on shards of the data, whose affected networks go back to a checkpoint and retrain")
class Sisa(ShardedMethod):
    """Sharded, isolated, sliced, aggregated training; needs labels, returns a :class:`pymixunlearn.models.Ensemble`.

    The given model lends its architecture only: the method has an ensemble of its own, trained on everything, to forget
    from. A ``store`` holds its checkpoints, for the next request to go on from.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Sisa(shards=3).config.aggregate
        'mean'
    """

    config_class = SisaConfig
    loop_class = SisaLoop

    def successors(
        self, sharding: Sharding, originals: Sequence[Member] | None, starts: Sequence[int] | None
    ) -> list[Start]:
        """Return a member per shard, the affected ones at their last clean checkpoint."""
        return sharding.successors(originals, starts)
