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
    from pymixunlearn.tasks import DeletionList, Split


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenData(DataRequest):
    """Data set in memory."""

    loaded: Dataset

    @property
    def has_columns(self) -> bool:
        """No: its ids are its own."""
        return False

    def load(self, observer: Observer | None = None) -> Dataset:
        """Return it."""
        return self.loaded


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenSplit(SplitRequest):
    """Split in memory, or indices to forget.

    Attributes:
        made: The split; None makes one of the others.
        listed: A list of samples.
        chosen: Indices into the training set.
    """

    made: Split | None = None
    listed: DeletionList | None = None
    chosen: tuple[int, ...] = ()

    @property
    def data_ids(self) -> str | None:
        """As of a file that lists samples."""
        return None if self.listed is not None and not self.listed.by_id else self.id_column

    def make(self, dataset: Dataset, seed: int) -> Split:
        """Return the split, or make it.

        Raises:
            UserError: The split is of other data, or an index is out of range or given twice.
        """
        from pymixunlearn import tasks

        if self.listed is not None:
            return tasks.index_split(dataset, self.listed, seed=seed)
        if self.made is None:
            return tasks.index_split(dataset, list(self.chosen), seed=seed)
        if dataset not in (self.made.dataset, self.made.origin):
            raise UserError(f"the split divides data set '{self.made.dataset.name}'; expected one of the data given")
        return self.made


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenModel(ModelRequest):
    """Model in memory."""

    network: nn.Module
