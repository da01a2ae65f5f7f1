"""Split of a data set into forget set D_f and retain set D_r, with a manifest that can be saved and read back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.halving import Halves, halves
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages, image_hashes
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.training_set import TrainingSet
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.files import atomic_path
from pymixunlearn.tasks.indices import indices_sha256, to_indices
from pymixunlearn.tasks.known_samples import ids_at, same_data, samples_entry
from pymixunlearn.tasks.manifest import JSON, MANIFEST_FORMAT, read_manifest

TASKS = ("class", "data", "noisy", "semi", "indices")


@dataclass(frozen=True, eq=False)
class Split:
    """Data set whose training samples are divided into a forget set D_f and a retain set D_r.

    Attributes:
        dataset: The data, on the CPU; for task "noisy", with the labels that the model was trained with.
        task: "class", "data", "noisy", "semi" or "indices".
        forget_indices: int64 ``[N_f]`` into ``dataset.train``, sorted, each once.
        seed: Seed that the forget set was drawn with.
        params: Arguments of the task, JSON-able, e.g. ``{"classes": [0]}``.
        origin: The data as loaded, where ``dataset`` has other labels for D_f; otherwise None.
        excluded_indices: int64 ``[N_e]`` into ``dataset.train``, sorted: samples that the initial model was made to
            forget before; they are neither in D_f nor in D_r. None where there are none.
        removed: For "test" and "validation", sorted int64 indices into that part of ``origin`` of the images that the
            request names there; ``dataset`` is without them.
        history: What the initial model had forgotten before, JSON-able: how many "requests" and "samples", how many of
            these are not in the data ("not_found"), and the "classes" that are left without any sample; empty where
            nothing is known to have been forgotten.
        unlabelled_indices: int64 ``[N_u]`` into ``dataset.train``, sorted: the samples of D_r whose labels no training
            may use (task "semi"); only the evaluation reads them. Otherwise None.

    Raises:
        UserError: An unknown task, an index out of range or given twice, a forget set or retain set that is empty, or a
            sample in two of the sets.

    Example:
        >>> import torch
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.Split(data.load("digits"), "indices", torch.tensor([5, 2]), seed=0, params={"count": 2})
        >>> split.forget_indices, len(split.forget), len(split.retain)
        (tensor([2, 5]), 2, 1436)
    """

    dataset: Dataset
    task: str
    forget_indices: Tensor
    seed: int
    params: dict[str, JSON]
    origin: Dataset | None = None
    unlabelled_indices: Tensor | None = None
    excluded_indices: Tensor | None = None
    removed: Mapping[str, Tensor] = field(default_factory=dict)
    history: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the indices and sort them."""
        if self.task not in TASKS:
            raise unknown_name("task", self.task, TASKS)
        count = len(self.dataset.train)
        object.__setattr__(self, "forget_indices", _checked_indices(self.forget_indices, count, "forget"))
        if self.excluded_indices is not None:
            excluded = _checked_indices(self.excluded_indices, count, "excluded")
            if torch.isin(excluded, self.forget_indices).any():
                raise UserError("the forget set holds samples that were forgotten before")
            object.__setattr__(self, "excluded_indices", excluded)
            if not len(self.retain_indices):
                raise UserError("the retain set must have at least one training sample, got none")
        if (self.task == "semi") is not (self.unlabelled_indices is not None):
            raise UserError(f"unlabelled_indices belong to the task 'semi' and to no other, got the task '{self.task}'")
        if self.unlabelled_indices is not None:
            unlabelled = _checked_indices(self.unlabelled_indices, count, "unlabelled")
            if torch.isin(unlabelled, self.forget_indices).any():
                raise UserError("the forget set must have labels, got samples of it among the unlabelled ones")
            object.__setattr__(self, "unlabelled_indices", unlabelled)
            if not len(self.labelled_retain_indices):
                raise UserError("the retain set must have at least one labelled sample, got none")

    @cached_property
    def retain_indices(self) -> Tensor:
        """int64 ``[N_r]``, sorted: every training sample that is neither forgotten nor excluded."""
        retained = torch.ones(len(self.dataset.train), dtype=torch.bool)
        retained[self.forget_indices] = False
        if self.excluded_indices is not None:
            retained[self.excluded_indices] = False
        return retained.nonzero().squeeze(1)

    @cached_property
    def labelled_retain_indices(self) -> Tensor:
        """int64, sorted: the samples of D_r whose labels a training may use; all of D_r unless the task is "semi"."""
        if self.unlabelled_indices is None:
            return self.retain_indices
        return self.retain_indices[~torch.isin(self.retain_indices, self.unlabelled_indices)]

    @property
    def train(self) -> ImageSet:
        """All training samples D."""
        return self.dataset.train

    @cached_property
    def training_set(self) -> TrainingSet:
        """D_f and D_r as the initial model sees them: some without labels where the task is "semi"."""
        if self.unlabelled_indices is None and self.excluded_indices is None:
            return TrainingSet(self.train)
        if self.unlabelled_indices is None:
            return TrainingSet(self.train.subset(torch.cat([self.forget_indices, self.retain_indices]).sort().values))
        labelled = torch.cat([self.forget_indices, self.labelled_retain_indices]).sort().values
        return TrainingSet(self.train.subset(labelled), self._unlabelled)

    @cached_property
    def retained_training_set(self) -> TrainingSet:
        """D_r as the retrained model sees it, likewise."""
        if self.unlabelled_indices is None:
            return TrainingSet(self.retain)
        return TrainingSet(self.train.subset(self.labelled_retain_indices), self._unlabelled)

    @cached_property
    def _unlabelled(self) -> UnlabelledImages:
        assert self.unlabelled_indices is not None
        return self.train.subset(self.unlabelled_indices).unlabelled()

    @cached_property
    def forget(self) -> ImageSet:
        """Forget set D_f, in the order of ``forget_indices``."""
        return self.dataset.train.subset(self.forget_indices)

    @cached_property
    def retain(self) -> ImageSet:
        """Retain set D_r, in the order of ``retain_indices``."""
        return self.dataset.train.subset(self.retain_indices)

    @property
    def test(self) -> ImageSet:
        """The test samples."""
        return self.dataset.test

    @cached_property
    def validation_halves(self) -> Halves | None:
        """The validation set in two halves, to choose by and to judge by; None without a validation set."""
        validation = self.dataset.validation
        return None if validation is None else halves(validation)

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing from stored images to network inputs."""
        return self.dataset.preprocess

    @property
    def num_classes(self) -> int:
        """Number of classes, forgotten ones included."""
        return self.dataset.num_classes

    @property
    def lost_classes(self) -> tuple[int, ...]:
        """Indices of the classes that earlier requests have left no sample of; the present one is not about them."""
        classes = self.history.get("classes")
        return tuple(label for label in classes if isinstance(label, int)) if isinstance(classes, list) else ()

    @property
    def forget_classes(self) -> tuple[int, ...]:
        """Indices of the classes that are forgotten as a whole; empty unless the task is "class"."""
        classes = self.params.get("classes")
        if self.task != "class" or not isinstance(classes, list):
            return ()
        return tuple(label for label in classes if isinstance(label, int))

    def relabelled(self, targets: Tensor) -> Split:
        """Return the same split of data in which D_f has the labels ``targets``, int64 ``[N_f]``.

        Raises:
            UserError: Not one label per sample of D_f, or a label outside the classes.
        """
        if len(targets) != len(self.forget_indices):
            raise UserError(f"labels must be one per sample to forget, {len(self.forget_indices)}, got {len(targets)}")
        replaced = self.train.targets.clone()
        replaced[self.forget_indices] = targets
        dataset = replace(self.dataset, train=self.train.with_targets(replaced))
        return replace(self, dataset=dataset, origin=self.dataset)

    def without(self, parts: Mapping[str, Tensor]) -> Split:
        """Return the same split without some test and validation images, indices by part into the data as loaded.

        Raises:
            UserError: An unknown part, an index out of range, or no image left in a part.
        """
        origin = self.dataset if self.origin is None else self.origin
        merged = dict(self.removed)
        for part, indices in parts.items():
            before = merged[part].tolist() if part in merged else ()
            both = torch.tensor(sorted({*indices.tolist(), *before}), dtype=torch.int64)
            merged[part] = _checked_indices(both, len(_part(origin, part)), f"removed {part}")
        if not merged:
            return self
        rest = {}
        for part, indices in merged.items():
            images = _part(origin, part)
            remaining = torch.ones(len(images), dtype=torch.bool)
            remaining[indices] = False
            rest[part] = images.subset(remaining.nonzero().squeeze(1))
        dataset = replace(self.dataset, **rest)  # type: ignore[arg-type]
        return replace(self, dataset=dataset, origin=origin, removed=merged)

    @cached_property
    def copies(self) -> dict[str, Tensor]:
        """Sorted int64 indices of the images in "retain" (D_r), "test" and "validation" whose pixels are in D_f, too.

        Indices of D_r are into ``dataset.train``. A part without copies has no entry.
        """
        forgotten = set(image_hashes(self.forget))
        found = {}
        for part, images, indices in (
            ("retain", self.retain, self.retain_indices),
            ("test", self.test, None),
            ("validation", self.dataset.validation, None),
        ):
            if images is None:
                continue
            same = torch.tensor([digest in forgotten for digest in image_hashes(images)]).nonzero().squeeze(1)
            if len(same):
                found[part] = same if indices is None else indices[same]
        return found

    def manifest(self) -> dict[str, JSON]:
        """Return a JSON-able record from which :meth:`load` rebuilds this split."""
        return dict(self._manifest)

    @cached_property
    def _manifest(self) -> dict[str, JSON]:
        """The manifest; its hashes are taken once, since nothing of a split changes."""
        special: dict[str, JSON] = {}
        if self.task == "noisy" and self.origin is not None:
            targets = self.forget.targets
            special["labels"] = {"sha256": indices_sha256(targets), "targets": targets.tolist()}
        if self.unlabelled_indices is not None:
            special["unlabelled"] = _listed(self.unlabelled_indices)
        if self.history:
            special["history"] = dict(self.history)
        if self.excluded_indices is not None:
            special["excluded"] = _named(self.excluded_indices, self.train)
        origin = self.origin or self.dataset
        if self.removed:
            special["removed"] = {part: _named(indices, _part(origin, part)) for part, indices in self.removed.items()}
        if origin.validation is not None:
            special["validation"] = {"count": len(origin.validation), "sha256": origin.validation.fingerprint()}
        if self.copies:
            special["copies"] = {part: _listed(indices) for part, indices in self.copies.items()}
        return {
            "format": MANIFEST_FORMAT,
            "dataset": {
                "name": self.dataset.name,
                "fingerprint": origin.fingerprint(),
                "train": len(self.train),
                "test": len(self.test),
            },
            "task": self.task,
            "params": self.params,
            "seed": self.seed,
            "samples": samples_entry(origin),
            "forget": _named(self.forget_indices, self.train),
            "retain": {"count": len(self.retain_indices), "sha256": indices_sha256(self.retain_indices)},
            **special,
        }

    def save(self, path: Path | str) -> None:
        """Write the manifest as JSON; the file appears whole or not at all."""
        with atomic_path(Path(path)) as partial:
            partial.write_text(json.dumps(self.manifest()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, dataset: Dataset) -> Split:
        """Read a manifest and apply it to ``dataset``, which may have grown or changed its order since.

        Samples are found by their ids; those that came later are in no part of the split.

        Raises:
            UserError: The file is missing or not a manifest, was made for other data or beside another validation set,
                or its indices or labels do not have the sha256 that it states. Data without a validation set are taken.
        """
        path = Path(path)
        manifest = read_manifest(path)
        stated = manifest["dataset"]
        known = same_data(dataset, manifest)
        if known is None:
            raise UserError(
                f"'{path}' was made for other data: expected the dataset '{stated['name']}' with fingerprint "
                f"{str(stated['fingerprint'])[:12]}…, got '{dataset.name}' with {dataset.fingerprint()[:12]}…"
            )
        if known is not dataset:
            warnings.warn(
                f"'{path}' was made for {len(known.train)} of the {len(dataset.train)} training images of "
                f"'{dataset.name}', or for another order of them: it is read by their ids, others are left out",
                stacklevel=2,
            )
        dataset = known
        validation = manifest.get("validation", {}).get("sha256")
        # Where there is none, nothing is judged by another one.
        if validation is not None and dataset.validation is not None:
            found = dataset.validation.fingerprint()
            if found != validation:
                raise UserError(
                    f"'{path}' was made beside another validation set: expected one with fingerprint "
                    f"{str(validation)[:12]}…, got {found[:12]}…; validation 'none' leaves it out"
                )
        indices = to_indices(manifest["forget"]["indices"], f"'{path}'")
        excluded = unlabelled = None
        if "excluded" in manifest:
            excluded = to_indices(manifest["excluded"]["indices"], f"'{path}'")
        if manifest["task"] == "semi":
            unlabelled = to_indices(manifest["unlabelled"]["indices"], f"'{path}'")
        split = cls(
            dataset,
            manifest["task"],
            indices,
            manifest["seed"],
            manifest["params"],
            unlabelled_indices=unlabelled,
            excluded_indices=excluded,
            history=manifest.get("history", {}),
        )
        if split.task == "noisy":
            split = split.relabelled(to_indices(manifest["labels"]["targets"], f"'{path}'"))
            if manifest["labels"]["sha256"] != indices_sha256(split.forget.targets):
                raise UserError(f"'{path}' is damaged: its labels do not have the sha256 that it states")
        removed = manifest.get("removed", {})
        split = split.without({part: to_indices(entry["indices"], f"'{path}'") for part, entry in removed.items()})
        parts = {"forget": split.forget_indices, "retain": split.retain_indices}
        if split.unlabelled_indices is not None:
            parts["unlabelled"] = split.unlabelled_indices
        if split.excluded_indices is not None:
            parts["excluded"] = split.excluded_indices
        for part, indices in parts.items():
            if manifest[part]["sha256"] != indices_sha256(indices):
                raise UserError(f"'{path}' is damaged: its {part} indices do not have the sha256 that it states")
        for part, indices in split.removed.items():
            if removed[part]["sha256"] != indices_sha256(indices):
                raise UserError(f"'{path}' is damaged: its removed {part} images do not have the sha256 that it states")
        return split


def _part(dataset: Dataset, part: str) -> ImageSet:
    images = {"test": dataset.test, "validation": dataset.validation}.get(part)
    if images is None:
        raise UserError(f"'{dataset.name}' has no {part} set to take images out of")
    return images


def _named(indices: Tensor, images: ImageSet) -> dict[str, JSON]:
    return {**_listed(indices), "ids": list(ids_at(images, indices))}


def _listed(indices: Tensor) -> dict[str, JSON]:
    return {"count": len(indices), "sha256": indices_sha256(indices), "indices": indices.tolist()}


def _checked_indices(indices: Tensor, count: int, kind: str) -> Tensor:
    """Sorted int64 indices on the CPU, after every check that a split needs."""
    if indices.ndim != 1 or indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
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
        raise UserError(f"the retain set must have at least one training sample, got all {count} in the {kind} set")
    return ordered
