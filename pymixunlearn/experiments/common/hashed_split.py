"""Split whose samples are known by keyed hashes of their ids alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.forget_history import SampleHashes
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.tasks import Split


class NothingToForget(UserError):
    """No sample that is to be forgotten is among the training images."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HashedSplit(SplitRequest):
    """Samples to forget by keyed hashes of their ids, as a ledger of requests knows them.

    Attributes:
        key: The key of the hashes.
        hashes: Of the samples' ids, as of :func:`~pymixunlearn.experiments.common.forget_chain.sample_hash`.
        requests: Ids of the requests that name them.
    """

    key: bytes = field(repr=False)
    hashes: frozenset[bytes]
    requests: tuple[str, ...]

    def make(self, dataset: Dataset, seed: int) -> Split:
        """Return the split of the samples that are in the data.

        Raises:
            NothingToForget: None of them is a training image.
        """
        found = {
            part: torch.tensor([index for index, digest in enumerate(digests) if digest in self.hashes])
            for part, digests in SampleHashes(dataset).of(self.key).items()
        }
        forget = found.pop("train")
        if not len(forget):
            raise NothingToForget("none of the requests' samples is a training image of these data")
        split = Split(dataset, "indices", forget, seed, {"count": len(forget), "requests": list(self.requests)})
        return split.without({part: indices for part, indices in found.items() if len(indices)})
