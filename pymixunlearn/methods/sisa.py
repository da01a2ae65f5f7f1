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
from typing import Any, ClassVar

from torch import nn

from pymixunlearn.methods.base import Job, Method, Outcome, Preparation, register
from pymixunlearn.methods.loop import Loop, Measured, Stage
from pymixunlearn.methods.member_pool import MemberPool
from pymixunlearn.methods.members import Member
from pymixunlearn.methods.sharding import ShardedConfig, Sharding, Start
from pymixunlearn.models import ensemble_of

NAME = "sisa"
ORIGINAL = "original"
"""The loop, before the method's own, that trains the ensemble on everything."""


@dataclass(frozen=True)
class SisaConfig(ShardedConfig):
    """Settings of :class:`Sisa`."""


class Facts(dict[str, Any]):
    """What a resumed loop has to know besides its weights, as a part that a snapshot keeps."""

    def state_dict(self) -> dict[str, Any]:
        """Return the facts."""
        return dict(self)

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take the facts over."""
        self.update(state_dict)


class MembersLoop(Loop[ShardedConfig]):
    """Epochs in which every member that has something left to learn gets one of its own."""

    def __init__(
        self, config: ShardedConfig, job: Job, starts: Sequence[Start], pool: MemberPool, facts: Facts
    ) -> None:
        """Keep the members, and note where they start."""
        super().__init__(config, job)
        self.members = [start.member for start in starts]
        self.facts = facts
        self._pool = pool
        facts["starts"] = [start.slices for start in starts]
        facts["earlier"] = sum(start.seconds for start in starts)
        self.parts = {"facts": facts, **{f"member {place}": member for place, member in enumerate(self.members)}}

    def stages(self) -> list[Stage]:
        """Return as many epochs as the longest training has."""
        epochs = max((member.epochs for member in self.members), default=0)
        steps = [sum(member.steps(epoch) for member in self.members) for epoch in range(epochs)]
        return [Stage(1, count, self._epoch) for count in steps]

    def _epoch(self, epoch: int) -> Iterator[Measured]:
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

    def _run(self, job: Job) -> Outcome:
        sharding = Sharding(self.config, job)
        with closing(MemberPool(sharding.setup, self.config.processes)) as pool:
            return self._carry_out(job, sharding, pool)

    def _carry_out(self, job: Job, sharding: Sharding, pool: MemberPool) -> Outcome:
        resume, facts = job.resume, Facts()
        originals, starts = None, None
        if resume is None or resume.get("name") == ORIGINAL:
            known = None if resume is None else resume["state"]["facts"]["starts"]
            first = OriginalLoop(self.config, job, sharding.originals(known), pool, Facts())
            history = first.run()
            seconds = first.facts["earlier"] + sum(record["seconds"] for record in history)
            facts = Facts(seconds=seconds, history=history)
            originals, job = first.members, replace(job, resume=None)
        else:
            starts = resume["state"]["facts"]["starts"]
        after = self.successors(sharding, originals, starts)
        loop = self.loop_class(self.config, job, after, pool, facts)
        history = loop.run()
        sizes = [start.size for start in after] if self.config.weights == "size" else None
        networks: list[nn.Module] = [member.network for member in loop.members]
        ensemble = ensemble_of(networks, sizes, self.config.aggregate)
        preparation = Preparation(facts["seconds"], facts["history"])
        return Outcome(ensemble, history, self.config, preparation=preparation, earlier=facts["earlier"])


@register
class Sisa(ShardedMethod):
    """Sharded, isolated, sliced, aggregated training; needs labels, returns a :class:`pymixunlearn.models.Ensemble`.

    The given model lends its architecture only: the method has an ensemble of its own, trained on everything, to forget
    from. A ``store`` keeps its checkpoints, for the next request to go on from.
    """

    name = NAME
    summary = "an ensemble on shards of the data, whose affected networks go back to a checkpoint and retrain"
    config_class = SisaConfig
    loop_class = SisaLoop

    def successors(
        self, sharding: Sharding, originals: Sequence[Member] | None, starts: Sequence[int] | None
    ) -> list[Start]:
        """Return a member per shard, the affected ones at their last clean checkpoint."""
        return sharding.successors(originals, starts)
