"""DSMixup: SISA that replaces two affected networks by one, trained on mixes of what is left of their data.

Zhou et al., "Dynamically Selected Mixup Machine Unlearning", TrustCom 2022; a baseline of "Adversarial Mixup
Unlearning", ICLR 2025. No code was released: this is a reconstruction from the abstract and from that comparison. The
affected shards are taken in pairs; each sample of the larger one is mixed once and for all with one of the other, with
soft labels (Zhang et al., "mixup", ICLR 2018), and a network with fresh weights is trained on the mixes. A last shard
without a partner is retrained as SISA does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pymixunlearn.methods.config import OURS, setting
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.sisa.member import Member, Mix, Phase
from pymixunlearn.methods.sisa.sharding import ShardedConfig, Sharding, Start
from pymixunlearn.methods.sisa.sisa import MembersLoop, ShardedMethod
from pymixunlearn.seeding import derive_seed, generator

NAME = "dsmixup"


@dataclass(frozen=True)
class DsMixupConfig(ShardedConfig):
    """Settings of :class:`DsMixup`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.DsMixupConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    alpha: float = setting(
        0.75, "the mixing ratio of each pair of samples is drawn from Beta(alpha, alpha)", above=0, source=OURS
    )


class DsMixupLoop(MembersLoop):
    """Trains the networks of the merged shards."""

    name = NAME


def mixes(one: Tensor, other: Tensor, alpha: float, seed: int) -> tuple[Tensor, Mix]:
    """Return the samples of the larger of two shards, and what each is mixed with.

    Args:
        one: int64 [n], indices into the training set.
        other: int64 [m]; of the smaller of the two, samples are used again, each about as often.
        alpha: The mixing ratios are drawn from Beta(alpha, alpha).
        seed: Fixes partners and ratios.
    """
    samples, others = (one, other) if len(one) >= len(other) else (other, one)
    stream = generator(seed, "partners")
    rounds = -(-len(samples) // len(others))
    order = torch.cat([torch.randperm(len(others), generator=stream) for _ in range(rounds)])[: len(samples)]
    beta = random.Random(derive_seed(seed, "lam"))
    lam = torch.tensor([beta.betavariate(alpha, alpha) for _ in range(len(samples))])
    return samples, Mix(others[order], lam)


@method(NAME, summary="SISA whose affected networks are replaced, two by two, by one trained on mixes of their data")
class DsMixup(ShardedMethod):
    """SISA with merged shards; needs labels, and returns a :class:`pymixunlearn.models.Ensemble`.

    With the same settings and seed it goes on from the same ensemble as :class:`pymixunlearn.methods.Sisa`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.DsMixup(shards=3).config.slices
        5
    """

    config_class = DsMixupConfig
    config: DsMixupConfig
    loop_class = DsMixupLoop

    def successors(
        self, sharding: Sharding, originals: Sequence[Member] | None, starts: Sequence[int] | None
    ) -> list[Start]:
        """Return the members that D_f does not touch, one per pair of the others, and the last without a partner."""
        left = [shard.without(sharding.gone) for shard in sharding.shards]
        touched = [
            index
            for index, shard in enumerate(sharding.shards)
            if len(left[index]) and shard.untouched(sharding.gone) < sharding.slices
        ]
        pairs = list(zip(touched[::2], touched[1::2], strict=False))
        merged = {shard for pair in pairs for shard in pair}
        alone = [shard for shard in range(len(left)) if len(left[shard]) and shard not in merged]
        singles = [
            sharding.successor(
                shard, None if originals is None else originals[shard], None if starts is None else starts[index]
            )
            for index, shard in enumerate(alone)
        ]
        return [*singles, *(self._merger(sharding, *pair) for pair in pairs)]

    def _merger(self, sharding: Sharding, one: int, other: int) -> Start:
        """Return the member that replaces two."""
        left, beside = (sharding.shards[shard].without(sharding.gone).first(sharding.slices) for shard in (one, other))
        seed = sharding.seed("mix", one, other)
        samples, mix = mixes(left, beside, self.config.alpha, seed)
        phase = Phase(samples, self.config.epochs, seed, mix)
        network = sharding.fresh("mix", one, other)
        return Start(Member(network, [phase], sharding.setup), 0, 0.0, len(left) + len(beside))
