"""Forget set of a command: its list is read before the data, and what the model forgot before stays forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pymixunlearn import models
from pymixunlearn.data.listing import shown
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.inputs import DataRequest, ModelRequest, SplitRequest
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.manifest import read_manifest
from pymixunlearn.training import read_metadata


def load_split(
    data: DataRequest, forget: SplitRequest, model: ModelRequest, seed: int, observer: Observer | None
) -> Split:
    """Read the list of samples if there is one, load the data, and divide them.

    Args:
        data: Which data set.
        forget: Which samples to forget.
        model: Which initial model; what it forgot before is left out, see :func:`leave_out_earlier`.
        seed: Seed of the split.
        observer: Told how far the decoding of images has come, and what :func:`notes` say.

    Raises:
        BadRequest: Choices contradict each other.
        UserError: Files are missing or corrupt, or a class or a sample does not exist.
    """
    forget.check()
    split = leave_out_earlier(forget.make(data.load(observer), seed), model, observer)
    if observer is not None:
        for note in notes(split, forget):
            observer.note(note)
    return split


def notes(split: Split, forget: SplitRequest) -> Iterator[str]:
    """Yield what a reader should know of a split: what was read, taken out elsewhere, and which copies remain."""
    if forget.indices is not None:
        rows = len(forget.deletion_list)
        removed = sum(len(indices) for indices in split.removed.values())
        yield f"Read {rows} rows from '{forget.indices}': {len(split.forget_indices) + removed} samples to forget."
    for part, indices in split.removed.items():
        yield f"{len(indices)} of them are images of the {part} set and are taken out of it."
    for part, indices in split.copies.items():
        images, what = (split.train, "the retain set") if part == "retain" else (split.test, "the test set")
        names = [str(index) for index in indices.tolist()]
        if images.paths is not None:
            names = [images.paths[index] for index in indices.tolist()]
        yield f"{len(indices)} exact copies of forgotten images stay in {what}: {shown(names)}."


def leave_out_earlier(split: Split, model: ModelRequest, observer: Observer | None = None) -> Split:
    """Return the split without the samples that the model forgot before.

    A run folder of ``unlearn`` or ``retrain`` says which samples its model forgot. They are left out of D_r, so that
    neither the method nor the retrained model sees them again; those that are requested once more are in D_f.

    Args:
        split: The data and what to forget now.
        model: The initial model; only a run folder's, or a file of an unlearned model, has forgotten anything.
        observer: Told what is left out, or what is not known.

    Raises:
        UserError: The run folder's manifest is damaged, or nothing else remains.
    """
    watcher = Observer() if observer is None else observer
    path = None if model.model is None or model.model in models.available() else Path(model.model).expanduser()
    if path is None or not path.exists():
        return split
    folder = path if path.is_dir() else path.parent
    if (folder / "split.json").is_file() and (path.is_dir() or path.name == CHECKPOINT):
        return _without(split, folder, watcher)
    if path.is_file() and path.suffix == ".safetensors" and _purpose(path) == "unlearned":
        watcher.note(
            f"'{path}' is an unlearned model outside its run folder: which samples it forgot before is not known, and "
            "those that are in the data count as remaining."
        )
    return split


def _purpose(file: Path) -> object:
    try:
        return read_metadata(file).get("purpose")
    except UserError:  # told where the model is loaded
        return None


def _without(split: Split, folder: Path, observer: Observer) -> Split:
    manifest: Any = read_manifest(folder / "split.json")
    origin = split.dataset if split.origin is None else split.origin
    if manifest["dataset"]["fingerprint"] != origin.fingerprint():
        observer.note(
            f"The model of '{folder}' forgot samples of other data ('{manifest['dataset']['name']}'): which of these "
            "data they are is not known, and those that are among them count as remaining."
        )
        return split
    before = Split.load(folder / "split.json", origin)
    earlier = {*before.forget_indices.tolist(), *_listed(before.excluded_indices)} - set(split.forget_indices.tolist())
    if earlier:
        split = _excluding(split, torch.tensor(sorted(earlier | set(_listed(split.excluded_indices)))))
        observer.note(
            f"The model of '{folder}' forgot {len(earlier)} other samples before: they are left out of the retain set."
        )
    return split.without(before.removed)


def _excluding(split: Split, excluded: Tensor) -> Split:
    unlabelled = split.unlabelled_indices
    if unlabelled is not None:
        unlabelled = unlabelled[~torch.isin(unlabelled, excluded)]
    return replace(split, excluded_indices=excluded, unlabelled_indices=unlabelled)


def _listed(indices: Tensor | None) -> list[int]:
    return [] if indices is None else indices.tolist()
