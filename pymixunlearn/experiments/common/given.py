"""Data, forget set and model that a caller has in memory, in the place of those that inputs name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.split_request import SplitRequest

if TYPE_CHECKING:
    from torch import nn

    from pymixunlearn.data import Dataset
    from pymixunlearn.experiments.common.progress import Observer
    from pymixunlearn.tasks import Split


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenData(DataRequest):
    """Data set in memory."""

    loaded: Dataset

    def load(self, observer: Observer | None = None) -> Dataset:
        """Return it."""
        return self.loaded


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenSplit(SplitRequest):
    """Split in memory, or indices to forget.

    Attributes:
        made: The split; None makes one of ``chosen``.
        chosen: Indices into the training set.
    """

    made: Split | None = None
    chosen: tuple[int, ...] = ()

    def make(self, dataset: Dataset, seed: int) -> Split:
        """Return the split, or make it.

        Raises:
            UserError: The split is of other data, or an index is out of range or given twice.
        """
        from pymixunlearn import tasks

        if self.made is None:
            return tasks.index_split(dataset, list(self.chosen), seed=seed)
        if dataset not in (self.made.dataset, self.made.origin):
            raise UserError(f"the split divides data set '{self.made.dataset.name}'; expected one of the data given")
        return self.made


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenModel(ModelRequest):
    """Model in memory."""

    network: nn.Module
