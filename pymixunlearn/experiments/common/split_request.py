"""Which samples a command forgets: the options, and the split that they make.

Nothing here imports PyTorch before it is needed: the command line reads the fields to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.options import option

if TYPE_CHECKING:
    from pymixunlearn.data import Dataset
    from pymixunlearn.experiments.common.data_request import DataRequest
    from pymixunlearn.tasks import DeletionList, Split

FORGET = ("task", "classes", "fraction", "labelled", "indices", "id_column", "manifest")
"""Fields of :class:`SplitRequest`."""


@dataclass(frozen=True)
class SplitRequest:
    """Which samples to forget.

    Attributes:
        task: One of :data:`pymixunlearn.tasks.TASKS`; None follows from what else is given, and is "class" otherwise.
        classes: Indices or names; () means class 0 for task "class", 0 to 4 for "noisy", and otherwise 5 to 9.
        fraction: For all tasks but "class": the share of those classes' samples; None means 0.6 for "noisy", and
            otherwise 0.4.
        labelled: For task "semi": the share of all training samples that have labels; None means 0.4.
        indices: A list of samples by index or file, see :func:`pymixunlearn.tasks.read_deletion_list`; implies task
            "indices".
        id_column: The column of ids of that list, and of a table or ``hf:`` data where the list has nothing else.
        manifest: A split that was saved before; excludes everything else.
    """

    task: str | None = option(
        "--task",
        metavar="TASK",
        help="What to forget: class (whole classes), data (a random share of some classes' samples), noisy (such a "
        "share, given wrong labels first), semi (a share of the few labelled samples; the others have no labels), or "
        "indices (a list of samples).  [default: class]",
    )
    classes: tuple[str, ...] = option(
        "--forget-class",
        default=(),
        several=True,
        metavar="K",
        help="A class, by name or index (name:1 and index:1 say which); repeat for several.  [default: 0; for tasks "
        "data and semi 5 6 7 8 9; for noisy 0 1 2 3 4]",
    )
    fraction: float | None = option(
        "--forget-fraction",
        kind=float,
        above=0,
        most=1,
        metavar="F",
        help="Tasks data, noisy and semi: which share of those classes' samples.  [default: 0.4; for task noisy 0.6]",
    )
    labelled: float | None = option(
        "--labelled-fraction",
        kind=float,
        above=0,
        below=1,
        metavar="F",
        help="Task semi: which share of all training samples has labels.  [default: 0.4]",
    )
    indices: Path | None = option(
        "--forget",
        old="--forget-indices",
        kind=Path,
        metavar="FILE",
        help="A list of samples: indices as text (one per line, or commas), .json or .npy; or a CSV with a column "
        "'index', 'file' or 'id' (the data's own ids; all samples of each). Implies task indices.",
    )
    id_column: str | None = option(
        "--id-column",
        metavar="NAME",
        help="The column of ids. Beside 'index' or 'file' in the file of --forget these are your own, and the report "
        "holds a hash of them; otherwise the data's, there and in a table or hf: data.  [default: id]",
    )
    manifest: Path | None = option(
        "--split", kind=Path, metavar="FILE", help="A split.json of an earlier run, instead of a task."
    )

    def make(self, dataset: Dataset, seed: int) -> Split:
        """Make the split of ``dataset``.

        Raises:
            BadRequest: The fields contradict each other.
            UserError: The data set has no such classes or samples, or a file cannot be read.
        """
        from pymixunlearn import tasks
        from pymixunlearn.tasks import Split

        task = self._checked_task()
        if self.manifest is not None:
            return Split.load(self.manifest, dataset)
        if self.indices is not None:
            return tasks.index_split(dataset, self.deletion_list, seed=seed)
        classes = tuple(_class_index(name, dataset) for name in self.classes)
        if task == "class":
            return tasks.class_split(dataset, classes or (0,), seed=seed)
        # What is not given is the task's own default.
        chosen: dict[str, Any] = {"classes": classes} if classes else {}
        given = {"fraction": self.fraction, "labelled": self.labelled}
        chosen.update({name: share for name, share in given.items() if share is not None})
        make = {"data": tasks.data_split, "noisy": tasks.noisy_split, "semi": tasks.semi_supervised_split}[task]
        return make(dataset, seed=seed, **chosen)

    def check(self) -> None:
        """Find what is wrong before any data is loaded, and read the list of samples.

        Raises:
            BadRequest: The fields contradict each other.
            UserError: The list cannot be read.
        """
        self._checked_task()
        if self.indices is not None:
            _ = self.deletion_list

    @cached_property
    def deletion_list(self) -> DeletionList:
        """The list of samples to forget, read once."""
        from pymixunlearn.tasks.deletion_list import read_deletion_list

        assert self.indices is not None
        read = read_deletion_list(self.indices, self.id_column)
        if not len(read):
            raise UserError(f"'{self.indices}' lists no samples; expected at least one")
        return read

    @property
    def data_ids(self) -> str | None:
        """The column of the data's own ids; None where a list names samples otherwise, so that its ids are others."""
        if self.indices is not None and not self.deletion_list.by_id:
            return None
        return self.id_column

    def of_data(self, data: DataRequest) -> DataRequest:
        """Return a data request with the column of ids that this one says, if any.

        Raises:
            BadRequest: The data have no columns, nor has anything else.
        """
        column = self.data_ids
        if column is None:
            return data
        if data.has_columns:
            return replace(data, id_column=column)
        if self.indices is None:
            raise BadRequest("an id column belongs to a table, hf: data or a file of samples to forget")
        return data

    def _checked_task(self) -> str:
        from pymixunlearn.tasks import TASKS

        if self.task is not None:
            check_name("task", self.task, TASKS)
        if self.manifest is not None:
            if self != SplitRequest(manifest=self.manifest, id_column=self.id_column):
                raise BadRequest("a saved split already says what to forget; leave out the task and the other choices")
            return ""
        task = self.task or ("indices" if self.indices else "class")
        if self.indices is not None and (task != "indices" or self.classes or self.fraction is not None):
            raise BadRequest("a file of indices already says what to forget; leave out other tasks, classes, fractions")
        if self.labelled is not None and task != "semi":
            raise BadRequest(f"a share of labelled samples belongs to task 'semi'; in task '{task}' all have labels")
        if task == "indices" and self.indices is None:
            raise BadRequest("task 'indices' needs a file of indices to forget; expected --forget FILE (forget=…)")
        if task == "class" and self.fraction is not None:
            raise BadRequest("a fraction to forget belongs to tasks like 'data'; task 'class' forgets whole classes")
        return task


def _class_index(name: str, dataset: Dataset) -> int:
    """Return the index of a class given by index or by name."""
    from pymixunlearn.tasks.samples import class_index

    try:
        return class_index(name, dataset)
    except UserError as error:
        if name.isdecimal() and name not in dataset.train.classes:
            raise  # an index is correct usage; there is no such class
        raise BadRequest(str(error)) from error
