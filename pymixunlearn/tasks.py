"""What is to be forgotten: a data set divided into forgetting and remaining samples.

Every split can be written down as a manifest (fingerprint of the data, indices, seed, sha256) and read back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pymixunlearn import seeding
from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.training_set import TrainingSet
from pymixunlearn.deletion_list import DeletionList
from pymixunlearn.errors import UserError, reason_of, unknown_name
from pymixunlearn.files import atomic_path
from pymixunlearn.indices import indices_sha256, read_indices, to_indices

__all__ = [
    "JSON",
    "MANIFEST_FORMAT",
    "TASKS",
    "Split",
    "class_split",
    "data_split",
    "index_split",
    "indices_sha256",
    "noisy_split",
    "read_indices",
    "semi_supervised_split",
]

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

TASKS = ("class", "data", "noisy", "semi", "indices")
MANIFEST_FORMAT = "pymixunlearn-split/1"


@dataclass(frozen=True, eq=False)
class Split:
    """A data set and which of its training samples are to be forgotten (D_f; the others are D_r).

    Attributes:
        dataset: The data, on the CPU; for task "noisy", with the labels that the model was trained with.
        task: "class", "data", "noisy", "semi" or "indices".
        forget_indices: int64 ``[N_f]`` into ``dataset.train``, sorted, each once.
        seed: What the choice was drawn with.
        params: What the task was given, JSON-able, e.g. ``{"classes": [0]}``.
        origin: The data as they were loaded, where ``dataset`` has other labels for D_f; otherwise None.
        unlabelled_indices: int64 ``[N_u]`` into ``dataset.train``, sorted: the samples whose labels no training may
            know (task "semi"); they remain, and only the evaluation looks at their labels. Otherwise None.

    Raises:
        UserError: An unknown task, an index out of range or given twice, nothing to forget, or nothing that remains.
    """

    dataset: Dataset
    task: str
    forget_indices: Tensor
    seed: int
    params: dict[str, JSON]
    origin: Dataset | None = None
    unlabelled_indices: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the indices and sort them."""
        if self.task not in TASKS:
            raise unknown_name("task", self.task, TASKS)
        count = len(self.dataset.train)
        object.__setattr__(self, "forget_indices", _checked_indices(self.forget_indices, count, "forget"))
        if (self.task == "semi") is not (self.unlabelled_indices is not None):
            raise UserError(f"unlabelled_indices belong to the task 'semi' and to no other, got the task '{self.task}'")
        if self.unlabelled_indices is not None:
            unlabelled = _checked_indices(self.unlabelled_indices, count, "unlabelled")
            if torch.isin(unlabelled, self.forget_indices).any():
                raise UserError("the forget set must have labels, got samples of it among the unlabelled ones")
            object.__setattr__(self, "unlabelled_indices", unlabelled)
            if not len(self.labelled_retain_indices):
                raise UserError("the remaining set must have at least one labelled sample, got none")

    @cached_property
    def retain_indices(self) -> Tensor:
        """int64 ``[N_r]``, sorted: every training sample that is not to be forgotten."""
        keep = torch.ones(len(self.dataset.train), dtype=torch.bool)
        keep[self.forget_indices] = False
        return keep.nonzero().squeeze(1)

    @cached_property
    def labelled_retain_indices(self) -> Tensor:
        """int64, sorted: the samples of D_r whose labels a training may know; all of D_r unless the task is "semi"."""
        if self.unlabelled_indices is None:
            return self.retain_indices
        return self.retain_indices[~torch.isin(self.retain_indices, self.unlabelled_indices)]

    @property
    def train(self) -> ImageSet:
        """All training samples, D."""
        return self.dataset.train

    @cached_property
    def training_set(self) -> TrainingSet:
        """All training samples as the initial model sees them: some without labels where the task is "semi"."""
        if self.unlabelled_indices is None:
            return TrainingSet(self.train)
        labelled = torch.cat([self.forget_indices, self.labelled_retain_indices]).sort().values
        return TrainingSet(self.train.subset(labelled), self._unlabelled)

    @cached_property
    def retained_training_set(self) -> TrainingSet:
        """D_r as Retrain sees it, likewise."""
        if self.unlabelled_indices is None:
            return TrainingSet(self.retain)
        return TrainingSet(self.train.subset(self.labelled_retain_indices), self._unlabelled)

    @cached_property
    def _unlabelled(self) -> UnlabelledImages:
        assert self.unlabelled_indices is not None
        return self.train.subset(self.unlabelled_indices).unlabelled()

    @cached_property
    def forget(self) -> ImageSet:
        """The samples to forget, D_f, in the order of ``forget_indices``."""
        return self.dataset.train.subset(self.forget_indices)

    @cached_property
    def retain(self) -> ImageSet:
        """The remaining samples, D_r, in the order of ``retain_indices``."""
        return self.dataset.train.subset(self.retain_indices)

    @property
    def test(self) -> ImageSet:
        """The test samples."""
        return self.dataset.test

    @property
    def preprocess(self) -> Preprocess:
        """What turns the stored images into network inputs."""
        return self.dataset.preprocess

    @property
    def num_classes(self) -> int:
        """The number of classes, forgotten ones included."""
        return self.dataset.num_classes

    @property
    def forget_classes(self) -> tuple[int, ...]:
        """The classes that are forgotten as a whole; empty unless the task is "class"."""
        classes = self.params.get("classes")
        if self.task != "class" or not isinstance(classes, list):
            return ()
        return tuple(label for label in classes if isinstance(label, int))

    def manifest(self) -> dict[str, JSON]:
        """Return a JSON-able record from which :meth:`load` rebuilds this very split."""
        special: dict[str, JSON] = {}
        if self.origin is not None:
            targets = self.forget.targets
            special["labels"] = {"sha256": indices_sha256(targets), "targets": targets.tolist()}
        if self.unlabelled_indices is not None:
            special["unlabelled"] = _listed(self.unlabelled_indices)
        return {
            "format": MANIFEST_FORMAT,
            "dataset": {
                "name": self.dataset.name,
                "fingerprint": (self.origin or self.dataset).fingerprint(),
                "train": len(self.train),
                "test": len(self.test),
            },
            "task": self.task,
            "params": self.params,
            "seed": self.seed,
            "forget": _listed(self.forget_indices),
            "retain": {"count": len(self.retain_indices), "sha256": indices_sha256(self.retain_indices)},
            **special,
        }

    def save(self, path: Path | str) -> None:
        """Write the manifest as JSON; the file appears whole or not at all."""
        with atomic_path(Path(path)) as partial:
            partial.write_text(json.dumps(self.manifest()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, dataset: Dataset) -> Split:
        """Read a manifest and apply it to ``dataset``.

        Raises:
            UserError: The file is missing or not a manifest, was made for other data, or its indices or labels do not
                have the sha256 that it states.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        stated = manifest["dataset"]
        if stated["fingerprint"] != dataset.fingerprint():
            raise UserError(
                f"'{path}' was made for other data: expected the dataset '{stated['name']}' with fingerprint "
                f"{str(stated['fingerprint'])[:12]}…, got '{dataset.name}' with {dataset.fingerprint()[:12]}…"
            )
        indices = to_indices(manifest["forget"]["indices"], f"'{path}'")
        unlabelled = None
        if manifest["task"] == "semi":
            unlabelled = to_indices(manifest["unlabelled"]["indices"], f"'{path}'")
        split = cls(
            dataset,
            manifest["task"],
            indices,
            manifest["seed"],
            manifest["params"],
            unlabelled_indices=unlabelled,
        )
        if split.task == "noisy":
            split = _relabelled(split, to_indices(manifest["labels"]["targets"], f"'{path}'"))
            if manifest["labels"]["sha256"] != indices_sha256(split.forget.targets):
                raise UserError(f"'{path}' is damaged: its labels do not have the sha256 that it states")
        parts = {"forget": split.forget_indices, "retain": split.retain_indices}
        if split.unlabelled_indices is not None:
            parts["unlabelled"] = split.unlabelled_indices
        for part, chosen in parts.items():
            if manifest[part]["sha256"] != indices_sha256(chosen):
                raise UserError(f"'{path}' is damaged: its {part} indices do not have the sha256 that it states")
        return split


def class_split(dataset: Dataset, classes: Iterable[int] = (0,), *, seed: int = 0) -> Split:
    """Forget every training sample of ``classes``.

    Raises:
        UserError: A class that does not exist or is given twice, no class, or all of them.
    """
    chosen = _checked_classes(dataset, classes)
    indices = torch.isin(dataset.train.targets, torch.tensor(chosen)).nonzero().squeeze(1)
    return Split(dataset, "class", indices, seed, {"classes": list(chosen)})


def data_split(
    dataset: Dataset, *, fraction: float = 0.4, classes: Iterable[int] = (5, 6, 7, 8, 9), seed: int = 0
) -> Split:
    """Forget a random ``fraction`` of the training samples whose label is one of ``classes``.

    Raises:
        UserError: ``fraction`` outside (0, 1], a class that does not exist, or nothing left to forget or to remain.
    """
    chosen = _checked_classes(dataset, classes)
    indices = _random_share(dataset, chosen, fraction, seeding.generator(seed, "split", "data"))
    return Split(dataset, "data", indices, seed, {"fraction": fraction, "classes": list(chosen)})


def noisy_split(
    dataset: Dataset, *, fraction: float = 0.6, classes: Iterable[int] = (0, 1, 2, 3, 4), seed: int = 0
) -> Split:
    """Give a random ``fraction`` of the training samples of ``classes`` wrong labels, and forget these samples.

    A wrong label is drawn uniformly from the other classes. The split's ``dataset`` has the wrong labels, so that the
    initial model is trained with them; D_r has none of them.

    Raises:
        UserError: ``fraction`` outside (0, 1], a class that does not exist, only one class in all, or nothing left to
            forget or to remain.
    """
    chosen = _checked_classes(dataset, classes)
    if dataset.num_classes < 2:
        raise UserError(f"a wrong label needs another class, but '{dataset.name}' has only one")
    indices = _random_share(dataset, chosen, fraction, seeding.generator(seed, "split", "noisy")).sort().values
    stream = seeding.generator(seed, "split", "noisy", "labels")
    steps = torch.randint(1, dataset.num_classes, (len(indices),), generator=stream)
    split = Split(dataset, "noisy", indices, seed, {"fraction": fraction, "classes": list(chosen)})
    return _relabelled(split, (dataset.train.targets[indices] + steps) % dataset.num_classes)


def semi_supervised_split(
    dataset: Dataset,
    *,
    labelled: float = 0.4,
    fraction: float = 0.4,
    classes: Iterable[int] = (5, 6, 7, 8, 9),
    seed: int = 0,
) -> Split:
    """Take most labels away, and forget a random ``fraction`` of the samples of ``classes`` that keep theirs.

    A random share ``labelled`` of all training samples keeps its labels. The others remain and are trained on without.

    Raises:
        UserError: ``labelled`` outside (0, 1), ``fraction`` outside (0, 1], a class that does not exist, or nothing
            left to forget, to remain with labels, or without.
    """
    chosen = _checked_classes(dataset, classes)
    if not 0 < labelled < 1:
        raise UserError(f"labelled must be a share above 0 and below 1, got {labelled}")
    count = len(dataset.train)
    order = torch.randperm(count, generator=seeding.generator(seed, "split", "semi", "labels"))
    known, unknown = order[: round(labelled * count)], order[round(labelled * count) :]
    indices = _random_share(dataset, chosen, fraction, seeding.generator(seed, "split", "semi"), among=known)
    params: dict[str, JSON] = {"labelled": labelled, "fraction": fraction, "classes": list(chosen)}
    return Split(dataset, "semi", indices, seed, params, unlabelled_indices=unknown)


def index_split(dataset: Dataset, indices: Tensor | Sequence[int] | DeletionList, *, seed: int = 0) -> Split:
    """Forget the training samples at ``indices``, in any order: a deletion request.

    Of a list with ids, the split keeps what :meth:`DeletionList.summary` says of them.

    Raises:
        UserError: An index out of range or given twice, none, or all of them.
    """
    ids: dict[str, JSON] = {}
    if isinstance(indices, DeletionList):
        ids = {"ids": indices.summary()}
        indices = indices.indices
    chosen = indices if isinstance(indices, Tensor) else to_indices(list(indices), "indices")
    return Split(dataset, "indices", chosen, seed, {"count": len(chosen), **ids})


def _listed(indices: Tensor) -> dict[str, JSON]:
    return {"count": len(indices), "sha256": indices_sha256(indices), "indices": indices.tolist()}


def _random_share(
    dataset: Dataset,
    classes: tuple[int, ...],
    fraction: float,
    stream: torch.Generator,
    among: Tensor | None = None,
) -> Tensor:
    """Return the places of a random ``fraction`` of the training samples of ``classes``, in random order.

    ``among``, int64 ``[M]``, are the only samples to choose from.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must be above 0 and at most 1, got {fraction}")
    eligible = torch.isin(dataset.train.targets, torch.tensor(classes))
    if among is not None:
        eligible &= torch.zeros_like(eligible).index_fill_(0, among, True)
    pool = eligible.nonzero().squeeze(1)
    return pool[torch.randperm(len(pool), generator=stream)[: round(fraction * len(pool))]]


def _relabelled(split: Split, targets: Tensor) -> Split:
    """Return the same split of data in which D_f has the labels ``targets``, int64 ``[N_f]``."""
    train = split.train
    if len(targets) != len(split.forget_indices):
        raise UserError(f"labels must be one per sample to forget, {len(split.forget_indices)}, got {len(targets)}")
    replaced = train.targets.clone()
    replaced[split.forget_indices] = targets
    dataset = replace(split.dataset, train=train.with_targets(replaced))
    return replace(split, dataset=dataset, origin=split.dataset)


def _checked_indices(indices: Tensor, count: int, kind: str) -> Tensor:
    """Sorted int64 indices on the CPU, after every check that a split needs."""
    if indices.ndim != 1 or indices.dtype.is_floating_point or indices.dtype == torch.bool:
        raise UserError(f"indices must be integers of shape [N], got {indices.dtype} of shape {list(indices.shape)}")
    ordered = indices.detach().to("cpu", torch.int64).sort().values
    if not len(ordered):
        raise UserError(f"the {kind} set must have at least one training sample, got none")
    lowest, highest = int(ordered[0]), int(ordered[-1])
    if lowest < 0 or highest >= count:
        raise UserError(
            f"index out of range: expected 0..{count - 1} ({count} training samples), "
            f"got {lowest if lowest < 0 else highest}"
        )
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise UserError(f"every index must be given once, got {int(repeated[0])} more than once")
    if len(ordered) == count:
        raise UserError(f"the remaining set must have at least one training sample, got all {count} in the {kind} set")
    return ordered


def _checked_classes(dataset: Dataset, classes: Iterable[int]) -> tuple[int, ...]:
    chosen = tuple(sorted(int(label) for label in classes))
    if not chosen:
        raise UserError("classes must name at least one class, got none")
    for label in chosen:
        if not 0 <= label < dataset.num_classes:
            raise UserError(f"class {label} does not exist: '{dataset.name}' has classes 0..{dataset.num_classes - 1}")
        if chosen.count(label) > 1:
            raise UserError(f"every class must be given once, got {label} more than once")
    return chosen


def _read_manifest(path: Path) -> Mapping[str, Any]:
    """Parse a manifest and check that every field that is used has its type."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as a split manifest: {reason_of(error)}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise UserError(f"'{path}' is not a split manifest: expected a JSON object with format '{MANIFEST_FORMAT}'")
    kinds = {"dataset": dict, "task": str, "params": dict, "seed": int, "forget": dict, "retain": dict}
    needed = {"dataset": ("name", "fingerprint"), "forget": ("indices", "sha256"), "retain": ("sha256",)}
    if manifest.get("task") == "noisy":
        kinds["labels"], needed["labels"] = dict, ("targets", "sha256")
    if manifest.get("task") == "semi":
        kinds["unlabelled"], needed["unlabelled"] = dict, ("indices", "sha256")
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise UserError(f"'{path}' is not a split manifest: expected '{key}' to be of type {kind.__name__}")
    for key, names in needed.items():
        for name in names:
            if name not in manifest[key]:
                raise UserError(f"'{path}' is not a split manifest: expected '{name}' in '{key}'")
    return manifest
