"""What a run is asked for, as a user would say it, before any data is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymixunlearn import data, tasks
from pymixunlearn.data import Dataset
from pymixunlearn.data.registry import split_name
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.deletion_list import read_deletion_list

TASKS = tasks.TASKS


class BadRequest(UserError):
    """What was asked for names something unknown or contradicts itself: wrong usage rather than a failed run."""


@dataclass(frozen=True)
class DataRequest:
    """Which data set; the fields are those of :func:`pymixunlearn.data.load`."""

    dataset: str = "digits"
    data_dir: Path | None = None
    download: bool = True
    image_size: int | None = None
    stream: bool | None = None
    follow_links: bool = False
    skip_unreadable: bool = False

    def load(self, observer: Observer | None = None) -> Dataset:
        """Load it; where images have to be decoded, ``observer`` is told of it as the phase "data".

        Raises:
            BadRequest: There is no data set of this name.
            UserError: Its files are missing or corrupt.
        """
        try:
            split_name(self.dataset)
        except UserError as error:
            raise BadRequest(str(error)) from error
        watcher = Observer() if observer is None else observer
        decoded = 0

        def progress(done: int, total: int | None) -> None:
            nonlocal decoded
            # Training and test images may come one after the other, each counted from 1.
            if done == 1:
                watcher.phase_started("data", total)
            watcher.phase_advanced("data", done, f"{done} images")
            decoded += 1

        dataset = data.load(
            self.dataset,
            data_dir=self.data_dir,
            download=self.download,
            image_size=self.image_size,
            progress=progress,
            stream=self.stream,
            follow_links=self.follow_links,
            skip_unreadable=self.skip_unreadable,
        )
        if decoded:
            watcher.phase_finished("data", f"{decoded} images decoded")
        return dataset


@dataclass(frozen=True)
class SplitRequest:
    """Which samples to forget.

    Attributes:
        task: One of :data:`TASKS`; None follows from what else is given, and is "class" otherwise.
        classes: Indices or names; () means class 0 for task "class", 0 to 4 for "noisy", and otherwise 5 to 9.
        fraction: For all tasks but "class": the share of those classes' samples; None means 0.6 for "noisy", and
            otherwise 0.4.
        labelled: For task "semi": the share of all training samples that have labels; None means 0.4.
        indices: A file of indices into the training set; implies task "indices".
        id_column: The column of ids, where that file is a CSV with a heading; see :mod:`pymixunlearn.deletion_list`.
        manifest: A split that was saved before; excludes everything else.
    """

    task: str | None = None
    classes: tuple[str, ...] = ()
    fraction: float | None = None
    labelled: float | None = None
    indices: Path | None = None
    id_column: str | None = None
    manifest: Path | None = None

    def make(self, dataset: Dataset, seed: int) -> Split:
        """Make the split of ``dataset``.

        Raises:
            BadRequest: The fields contradict each other.
            UserError: The data set has no such classes or samples, or a file cannot be read.
        """
        task = self._checked_task()
        if self.manifest is not None:
            return Split.load(self.manifest, dataset)
        if self.indices is not None:
            if self.id_column is None:
                return tasks.index_split(dataset, tasks.read_indices(self.indices), seed=seed)
            return tasks.index_split(dataset, read_deletion_list(self.indices, self.id_column), seed=seed)
        classes = tuple(_class_index(name, dataset) for name in self.classes)
        if task == "class":
            return tasks.class_split(dataset, classes or (0,), seed=seed)
        # What is not asked for is the task's own default.
        chosen: dict[str, Any] = {"classes": classes} if classes else {}
        given = {"fraction": self.fraction, "labelled": self.labelled}
        chosen.update({name: share for name, share in given.items() if share is not None})
        make = {"data": tasks.data_split, "noisy": tasks.noisy_split, "semi": tasks.semi_supervised_split}[task]
        return make(dataset, seed=seed, **chosen)

    def _checked_task(self) -> str:
        if self.task is not None:
            check_name("task", self.task, TASKS)
        if self.manifest is not None:
            if self != SplitRequest(manifest=self.manifest):
                raise BadRequest("a saved split already says what to forget; leave out the task and the other choices")
            return ""
        task = self.task or ("indices" if self.indices else "class")
        if self.indices is not None and (task != "indices" or self.classes or self.fraction is not None):
            raise BadRequest("a file of indices already says what to forget; leave out other tasks, classes, fractions")
        if self.id_column is not None and self.indices is None:
            raise BadRequest("an id column belongs to a file of indices to forget")
        if self.labelled is not None and task != "semi":
            raise BadRequest(f"a share of labelled samples belongs to task 'semi'; in task '{task}' all have labels")
        if task == "indices" and self.indices is None:
            raise BadRequest("task 'indices' needs a file of indices to forget")
        if task == "class" and self.fraction is not None:
            raise BadRequest("a fraction to forget belongs to tasks like 'data'; task 'class' forgets whole classes")
        return task


@dataclass(frozen=True)
class ModelRequest:
    """Which initial model.

    Attributes:
        model: A network's name (it is then trained first) or a checkpoint; None means ``cnn`` for one-channel images
            and ``resnet18`` otherwise.
        architecture: The network of a checkpoint that does not say its own (a plain PyTorch state dict).
    """

    model: str | None = None
    architecture: str | None = None


@dataclass(frozen=True)
class RunRequest:
    """A whole run: forget something, retrain for comparison, evaluate.

    Attributes:
        method: The unlearning method's name.
        data: Which data set.
        split: Which samples to forget.
        model: Which initial model.
        label_aware: Whether the method may use labels; None leaves it to the settings.
        stop: When to end, "epochs" or "auto"; None leaves it to the settings.
        device: "auto", "cpu", "cuda", "cuda:1", …
        seed: Fixes the whole run.
        settings: Dotted setting names to values, on top of defaults and preset.
        retrain: Whether to train Retrain for comparison.
        relearn: Whether to measure how soon each model learns the forgotten samples again.
        tsne: Whether to draw the t-SNE of representations.
        thumbnails: Whether images of the data may be in the report.
    """

    method: str = "mixunlearn"
    data: DataRequest = field(default_factory=DataRequest)
    split: SplitRequest = field(default_factory=SplitRequest)
    model: ModelRequest = field(default_factory=ModelRequest)
    label_aware: bool | None = None
    stop: str | None = None
    device: str | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    retrain: bool = True
    relearn: bool = False
    tsne: bool = False
    thumbnails: bool = True


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise :class:`BadRequest`, suggesting the nearest name, unless ``name`` is known."""
    names = list(known)
    if name not in names:
        raise BadRequest(str(unknown_name(kind, name, names)))


def _class_index(name: str, dataset: Dataset) -> int:
    """Return the index of a class given by index or by name."""
    try:
        return int(name)
    except ValueError:
        classes = dataset.train.classes
        check_name(f"class of '{dataset.name}'", name, classes)
        return classes.index(name)
