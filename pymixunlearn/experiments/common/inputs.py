"""Inputs of every command: data, forget set, model, device, seed and settings, before any data is loaded.

A field says its own option on the command line (:func:`option`). Nothing here imports PyTorch before it is needed: the
command line reads the fields to print its help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.experiments.common.options import option

if TYPE_CHECKING:
    from torch import nn

    from pymixunlearn.data import Dataset, Preprocess
    from pymixunlearn.experiments.common.progress import Observer
    from pymixunlearn.tasks import DeletionList, Split

FORGET = ("task", "classes", "fraction", "labelled", "indices", "id_column", "manifest")
"""Fields of :class:`SplitRequest`."""
LABELS = "--label-aware/--label-agnostic"
"""Name of the option for whether labels may be used."""


class BadRequest(UserError):
    """Inputs that name something unknown or contradict each other: wrong usage rather than a failed run."""


class AnswerIsNo(UserError):
    """The command ran, and what it was to find out is not so."""


@dataclass(frozen=True)
class DataRequest:
    """Which data set; the fields are those of :func:`pymixunlearn.data.load`."""

    dataset: str = option(
        "--dataset",
        default="digits",
        show_default=True,
        metavar="SPEC",
        help="digits (scikit-learn's, nothing to download), mnist, fashion-mnist, cifar10, cifar100, svhn; a "
        "folder or archive of images (photos/, photos.tar.gz); a table beside its images (photos.csv, photos.parquet: "
        "columns file, label, split, id); hf:NAME or hf:FOLDER; package.module:factory or file.py:factory. SPEC@10000 "
        "takes a random part of the training images, always the same 10000; others become the validation set.",
    )
    data_dir: Path | None = option(
        "--data-dir",
        kind=Path,
        metavar="DIR",
        help="Where the files of a data set with a name are or go.  [default: a cache folder]",
    )
    download: bool = option("--no-download", default=True, help="Fail rather than download files that are missing.")
    image_size: int | None = option(
        "--image-size",
        kind=int,
        least=8,
        metavar="PIXELS",
        help="Side of the network's input; 224 is the paper's for cifar10 and svhn.  [default: the data set's own]",
    )
    stream: bool | None = option(
        "--stream/--in-memory",
        help="For image files: read images from the decoded file batch by batch, or hold them all. The results are the "
        "same.  [default: --stream above 4 GiB of images]",
    )
    follow_links: bool = option(
        "--follow-links",
        default=False,
        help="For image files: symbolic links may lead out of the folder of the images.",
    )
    skip_unreadable: bool = option(
        "--skip-unreadable",
        default=False,
        help="For image files: leave out those that cannot be read, and count them, rather than fail and name them.",
    )
    validation_share: float | str | None = option(
        "--validation",
        metavar="SHARE|none",
        help="Share of the training images to take out as validation set, which no model is trained or tested on; the "
        "acceptance test needs one.  [default: the data's own, or what SPEC@N leaves out]",
    )

    class_list: Path | None = option(
        "--classes",
        kind=Path,
        metavar="FILE",
        help="All classes in their order, one name a line, so that a class whose last image is gone keeps its place.  "
        "[default: the data's]",
    )
    preprocess: Preprocess | None = None
    """How images become inputs, where the model says it."""

    def load(self, observer: Observer | None = None) -> Dataset:
        """Load it; where images have to be decoded, ``observer`` receives the progress as the phase "data".

        Raises:
            BadRequest: There is no such data set, or the validation share is none.
            UserError: Its files are missing or corrupt.
        """
        from pymixunlearn import data
        from pymixunlearn.data.classes import read_classes
        from pymixunlearn.data.registry import specification
        from pymixunlearn.data.validation import parse_share
        from pymixunlearn.experiments.common.data_progress import DataProgress
        from pymixunlearn.experiments.common.progress import Observer

        try:
            specification(self.dataset, self.data_dir)
            parse_share(self.validation_share)
        except UserError as error:
            raise BadRequest(str(error)) from error
        progress = DataProgress(Observer() if observer is None else observer)
        dataset = data.load(
            self.dataset,
            data_dir=self.data_dir,
            download=self.download,
            image_size=self.image_size,
            progress=progress,
            stream=self.stream,
            follow_links=self.follow_links,
            skip_unreadable=self.skip_unreadable,
            validation=self.validation_share,
            classes=None if self.class_list is None else read_classes(self.class_list),
            preprocess=self.preprocess,
        )
        progress.finish()
        return dataset


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
        id_column: The column of ids of that list.
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
        "'index' or 'file'. Implies task indices.",
    )
    id_column: str | None = option(
        "--id-column",
        metavar="NAME",
        help="The file of --forget is a CSV with a column NAME, your own ids of the samples; the report holds a hash "
        "of them.",
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
        return read_deletion_list(self.indices, self.id_column)

    def _checked_task(self) -> str:
        from pymixunlearn.tasks import TASKS

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
        model: A specification (it is then trained first, unless weights are given) or a checkpoint; None means ``cnn``
            for one-channel images and ``resnet18`` otherwise.
        architecture: The built-in network of a checkpoint that does not say its own.
        weights: A file of weights for ``model``.
        model_config: A file that says the rest, see :mod:`pymixunlearn.experiments.common.model_config`.
        allow_code: Whether a user's function may be run that only a file names.
    """

    model: str | None = option(
        "--model",
        metavar="SPEC|RUN|FILE",
        help="A network: cnn, resnet14, resnet18, vit, torchvision:NAME, timm:NAME, hf:NAME, hf:FOLDER, "
        "package.module:factory or file.py:factory; with --weights as they are in a file, otherwise trained first. Or "
        "a run folder, or a model file that says what it holds.  [default: cnn for grey images, resnet18 for colour]",
    )
    architecture: str | None = option(
        "--architecture",
        metavar="NAME",
        help="The network (cnn, resnet14, resnet18, vit) of a checkpoint that does not say its own: a plain PyTorch "
        "state dict.",
    )
    weights: Path | None = option(
        "--weights",
        kind=Path,
        metavar="FILE",
        help="The weights of --model: a state dict as PyTorch saves it, safetensors, or the index of several of these.",
    )
    model_config: Path | None = option(
        "--model-config",
        kind=Path,
        metavar="FILE.yaml",
        help="What the weights do not say: arguments, classes, class_map, feature_layer, preprocessing. Written by "
        "`train` and into every run folder as model.yaml.",
    )
    allow_code: bool = option(
        "--allow-code",
        default=False,
        help="Run a function (file.py:factory) that a model file or a model config names, not only one of --model.",
    )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of every command; each adds its own fields.

    Attributes:
        data: Which data set.
        split: Which samples to forget.
        model: Which initial model.
        device: "auto", "cpu", "cuda", "cuda:1", …
        seed: Fixes the whole run.
        plugin: Python files with plug-ins, see docs/plugins.md.
        settings: Dotted setting names to values, on top of defaults and preset.
    """

    data: DataRequest = field(default_factory=DataRequest)
    split: SplitRequest = field(default_factory=SplitRequest)
    model: ModelRequest = field(default_factory=ModelRequest)
    device: str | None = option(
        "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
    )
    seed: int = option("--seed", kind=int, default=0, show_default=True, help="Fixes every random choice of the run.")
    plugin: tuple[str, ...] = option(
        "--plugin",
        default=(),
        several=True,
        metavar="FILE.py",
        help="A Python file with methods, data sets or metrics of your own, which is run; repeat for several.",
    )
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainInputs(Inputs):
    """Inputs of ``train``; ``settings`` are plain names of the training's fields, and ``split`` is not used."""


@dataclass(frozen=True)
class RetrainInputs(Inputs):
    """Inputs of ``retrain``; ``settings`` are plain names of the training's fields."""


@dataclass(frozen=True)
class EvaluateInputs(Inputs):
    """Inputs of ``evaluate``; ``model`` is the network of checkpoints that do not say their own.

    Attributes:
        checkpoint: A model file, or the run folder it is in; None for a ``model`` in memory.
        reference: Another, usually Retrain's, to show the gap to.
        initial: The model before unlearning, which the acceptance test must refuse before it can accept another.
        expect_accuracy: The model's test accuracy in percent, as its owner knows it.
        attacker: The membership attack's classifier.
    """

    checkpoint: Path | None
    reference: Path | None = option(
        "--reference",
        kind=Path,
        metavar="CHECKPOINT",
        help="Another model, usually Retrain's, to show the gap to.",
    )
    initial: Path | None = option(
        "--initial",
        kind=Path,
        metavar="CHECKPOINT",
        help="The model before unlearning: without it the acceptance test can refuse a model and not accept one.",
    )
    expect_accuracy: float | None = option(
        "--expect-accuracy",
        kind=float,
        least=0,
        most=100,
        metavar="P",
        help="The test accuracy that you know of the model, in percent: the command ends with 3 where it finds "
        "another, off by more than 0.5.",
    )
    attacker: str = option(
        "--attacker",
        default="hist-gradient-boosting",
        show_default=True,
        metavar="NAME",
        help="Classifier of the membership attack: hist-gradient-boosting, or xgboost if it is installed.",
    )


@dataclass(frozen=True)
class VerifyInputs:
    """Inputs of ``verify``; the run says everything else.

    Attributes:
        folder: The run folder.
        data_dir: Where the data set's files are; None takes the folder that the run read.
        download: Whether missing data may be downloaded.
        initial: The model before unlearning, whose hash and metrics are then checked too.
        retrain: Retrain's model, likewise; what compares with Retrain's predictions can be measured with it alone.
        deletion_list: The list of samples to forget, to check that these were requested.
        allow_code: Whether to run a user's file that the record names.
        hashes_only: Neither load the data nor measure.
        dataset: The data of a run that was made from data in memory.
        network: A network of the structure of the run's, where that was in memory; the initial model, or one like it.
        device: Where to measure.
    """

    folder: Path
    data_dir: Path | None = option(
        "--data-dir", kind=Path, metavar="DIR", help="Where the data set is.  [default: where the run read it]"
    )
    download: bool = option("--no-download", default=True, help="Fail rather than download files that are missing.")
    initial: Path | None = option(
        "--initial", kind=Path, metavar="CHECKPOINT", help="The model before unlearning, to check it too."
    )
    retrain: Path | None = option(
        "--retrain", kind=Path, metavar="CHECKPOINT", help="Retrain's model, to check it too."
    )
    deletion_list: Path | None = option(
        "--forget",
        old="--forget-indices",
        kind=Path,
        metavar="FILE",
        help="The list of samples that was to be forgotten: are these the ones, and their ids?",
    )
    allow_code: bool = option(
        "--allow-code",
        default=False,
        help="Run the Python file that makes the model, where the record names one; without it, what needs the model "
        "is not checked.",
    )
    dataset: Dataset | None = None
    network: nn.Module | None = None
    hashes_only: bool = option("--hashes-only", default=False, help="Neither load the data nor measure anything.")
    device: str | None = option(
        "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
    )


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise :class:`BadRequest`, suggesting the nearest name, unless ``name`` is known."""
    names = list(known)
    if name not in names:
        raise BadRequest(str(unknown_name(kind, name, names)))


def _class_index(name: str, dataset: Dataset) -> int:
    """Return the index of a class given by index or by name."""
    from pymixunlearn.tasks.samples import class_index

    try:
        return class_index(name, dataset)
    except UserError as error:
        if name.isdecimal() and name not in dataset.train.classes:
            raise  # an index is correct usage; there is no such class
        raise BadRequest(str(error)) from error
