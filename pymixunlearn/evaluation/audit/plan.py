"""Plan of an audit: the audited samples, and which of them each shadow model sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pymixunlearn.data import Dataset, ImageSet
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit.margins import Mask
from pymixunlearn.seeding import generator
from pymixunlearn.tasks import Split

MIN_CANDIDATES = 10
MAX_CANDIDATES = 5000
MAX_POPULATION = 2000
MAX_RETAINED = 1000
POPULATION_SHARE = 0.25
"""Of the unseen samples of the forgotten classes, how many are set aside for RMIA's population."""


@dataclass(frozen=True, eq=False)
class ShadowPlan:
    """The samples of an audit and the shadow models' training sets.

    Shadow model k is trained on D_r, on what of D_f is no candidate, and on half of the candidates: as many samples as
    the model under audit. Every candidate is seen by half of the models; models 2 i and 2 i + 1 see complementary
    halves.

    Attributes:
        split: What was forgotten.
        members: Samples of D_f, int64 ``[m]`` into the training set.
        unseen: Test samples of the same classes, class by class as many, int64 ``[m]`` into the test set.
        population: Other test samples, int64 ``[z]``, which no model sees.
        retained: Samples of D_r, int64 ``[r]`` into the training set, which all models see.
        seen: Which candidates (members, then unseen) each shadow model sees, ``[N, 2 m]``.
    """

    split: Split
    members: Tensor
    unseen: Tensor
    population: Tensor
    retained: Tensor
    seen: Mask

    @property
    def candidates(self) -> int:
        """The number of candidates, 2 m."""
        return len(self.members) + len(self.unseen)

    def audited(self) -> ImageSet:
        """Return the images that margins are taken of: members, unseen, population, retained."""
        train, test = self.split.train, self.split.test
        return _joined(
            train.subset(self.members),
            test.subset(self.unseen),
            test.subset(self.population),
            train.subset(self.retained),
        )

    def shadow_split(self, shadow: int) -> Split:
        """Return the data of one shadow model: what it is trained on, and what of that it is to forget."""
        chosen = torch.from_numpy(self.seen[shadow])
        left_out = self.members[~chosen[: len(self.members)]]
        added = self.unseen[chosen[len(self.members) :]]
        kept = torch.ones(len(self.split.train), dtype=torch.bool)
        kept[left_out] = False
        if self.split.excluded_indices is not None:
            kept[self.split.excluded_indices] = False
        forgotten = torch.zeros(len(self.split.train), dtype=torch.bool)
        forgotten[self.split.forget_indices] = True
        train = _joined(self.split.train.subset(kept.nonzero().squeeze(1)), self.split.test.subset(added))
        forget = torch.cat([forgotten[kept], torch.ones(len(added), dtype=torch.bool)])
        whole = self.split.dataset
        dataset = Dataset(
            whole.name, train, whole.test, whole.preprocess, validation=whole.validation, source=whole.place
        )
        return Split(dataset, self.split.task, forget.nonzero().squeeze(1), self.split.seed, self.split.params)


def check_auditable(split: Split) -> None:
    """Tell whether a split can be audited.

    Raises:
        UserError: There are no unseen samples like the forgotten ones (task "noisy"), shadow models would have to be
            trained with unlabelled images (task "semi"), or the images are streamed from a file.
    """
    if split.task == "noisy":
        raise UserError("an audit compares forgotten samples with unseen ones, which have no wrong labels like theirs")
    if split.task == "semi":
        raise UserError("an audit trains its shadow models with all labels; expected another task than 'semi'")
    if isinstance(split.train, StreamedImageSet):
        raise UserError("an audit holds the images in memory, and these are streamed from a file; load them in memory")


def plan_shadows(split: Split, shadows: int, *, seed: int = 0) -> ShadowPlan:
    """Choose the samples of an audit and what each shadow model sees.

    Args:
        split: What was forgotten.
        shadows: The number of shadow models N, even.
        seed: Fixes every choice; the samples do not depend on N, nor do the first models on how many follow.

    Raises:
        UserError: The test set has too few samples of the forgotten classes, or as :func:`check_auditable`.
    """
    check_auditable(split)
    members, unseen = _matched(split, seed)
    if len(members) < MIN_CANDIDATES:
        raise UserError(
            f"an audit compares at least {MIN_CANDIDATES} samples to forget with as many unseen ones of their "
            f"classes; expected enough of both, got {len(split.forget_indices)} to forget and, of the test set, "
            f"{len(members)} to compare them with"
        )
    free = torch.ones(len(split.test), dtype=torch.bool)
    free[unseen] = False
    population = _some(free.nonzero().squeeze(1), MAX_POPULATION, seed, "population")
    retained = _some(split.retain_indices, MAX_RETAINED, seed, "retained")
    seen = np.concatenate([_pair(2 * len(members), seed, pair) for pair in range(shadows // 2)])
    return ShadowPlan(split, members, unseen, population, retained, seen)


def _matched(split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Draw as many samples of D_f as unseen ones from each class, at most MAX_CANDIDATES on a side."""
    inside, outside = [], []
    forget_targets = split.train.targets[split.forget_indices]
    for label in sorted(set(forget_targets.tolist())):
        forgotten = split.forget_indices[forget_targets == label]
        unseen = (split.test.targets == label).nonzero().squeeze(1)
        reserved = math.ceil(POPULATION_SHARE * len(unseen))
        count = min(len(forgotten), len(unseen) - reserved)
        inside.append(_some(forgotten, count, seed, "members", label))
        outside.append(_some(unseen, count, seed, "unseen", label))
    # The same indices on both sides, so that the classes stay matched when some are dropped.
    pairs = torch.stack([torch.cat(inside), torch.cat(outside)], dim=1)
    kept = pairs[torch.randperm(len(pairs), generator=generator(seed, "audit", "candidates"))[:MAX_CANDIDATES]]
    return kept[:, 0], kept[:, 1]


def _some(indices: Tensor, count: int, seed: int, *names: str | int) -> Tensor:
    return indices[torch.randperm(len(indices), generator=generator(seed, "audit", *names))[:count]]


def _pair(candidates: int, seed: int, pair: int) -> Mask:
    """Return what two models see: half of the candidates, and the other half."""
    seen = np.zeros((2, candidates), bool)
    order = torch.randperm(candidates, generator=generator(seed, "audit", "halves", pair)).numpy()
    seen[0, order[: candidates // 2]] = True
    seen[1] = ~seen[0]
    return seen


def _joined(*parts: ImageSet) -> ImageSet:
    return ImageSet(
        torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts]), parts[0].classes
    )
