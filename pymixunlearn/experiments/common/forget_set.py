"""Forget set of a command: its list is read before the data, and what its models forgot before stays forgotten.

:func:`load_splits` is the only way from a request to a split. Whatever a command trains on or measures as remaining
comes from there, so that no command can put back what an earlier request took out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pymixunlearn import models
from pymixunlearn.data import Dataset
from pymixunlearn.data.listing import shown
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.known_samples import indices_of
from pymixunlearn.tasks.manifest import read_manifest
from pymixunlearn.training import read_metadata

_MANIFEST = "split.json"
_FORGETFUL = ("unlearned", "retrain")
"""Purposes of models, in their files, that have not seen, or have forgotten, a part of the data."""


def load_splits(
    data: DataRequest,
    forget: SplitRequest,
    *given: str | Path | None,
    seeds: Sequence[int],
    observer: Observer | None = None,
    prepare: Callable[[Dataset], Dataset] | None = None,
) -> dict[int, Split]:
    """Read the list of samples if there is one, load the data, and divide them once per seed.

    A run folder of ``unlearn`` or ``retrain`` says which samples its model forgot. They are left out of D_r, so that
    neither a method nor a retrained model sees them again; those that are requested once more are in D_f.

    Args:
        data: Which data set.
        forget: Which samples to forget.
        given: The models that the command is given: names of networks, files, run folders, or None.
        seeds: Seeds of the splits.
        observer: Receives the progress of decoding images, and notes on the splits.
        prepare: What to make of the data set before it is divided.

    Returns:
        The split of each seed.

    Raises:
        BadRequest: Choices contradict each other.
        UserError: Files are missing or corrupt, a class or a sample does not exist, a run folder's manifest is damaged,
            or nothing else remains.
    """
    watcher = Observer() if observer is None else observer
    said: dict[str, None] = {}
    forget.check()
    folders = list(_forgetful_folders(given, said))
    dataset = forget.of_data(data).load(observer)
    dataset = dataset if prepare is None else prepare(dataset)
    splits = {}
    for seed in seeds:
        split = forget.make(dataset, seed)
        for folder in folders:
            split = _without(split, folder, said)
        splits[seed] = split
        said.update(dict.fromkeys(notes(split, forget)))
    for note in said:
        watcher.note(note)
    return splits


def load_split(
    data: DataRequest,
    forget: SplitRequest,
    *given: str | Path | None,
    seed: int,
    observer: Observer | None = None,
) -> Split:
    """Return the split of one seed, see :func:`load_splits`."""
    return load_splits(data, forget, *given, seeds=(seed,), observer=observer)[seed]


def notes(split: Split, forget: SplitRequest) -> Iterator[str]:
    """Yield what a reader should know of a split: what was read, taken out elsewhere, and which copies remain."""
    if forget.indices is not None:
        rows = len(forget.deletion_list)
        removed = sum(len(indices) for indices in split.removed.values())
        yield f"Read {rows} rows from '{forget.indices}': {len(split.forget_indices) + removed} samples to forget."
    for part, indices in split.removed.items():
        yield f"{len(indices)} of them are images of the {part} set and are taken out of it."
    for part, indices in split.copies.items():
        images = {"retain": split.train, "test": split.test}.get(part, split.dataset.validation)
        names = [str(index) for index in indices.tolist()]
        if images is not None and images.paths is not None:
            names = [images.paths[index] for index in indices.tolist()]
        yield f"{len(indices)} exact copies of forgotten images stay in the {part} set: {shown(names)}."


def _forgetful_folders(given: Iterable[str | Path | None], said: dict[str, None]) -> Iterator[Path]:
    """Yield the run folders, each once, whose models have forgotten something; add to ``said`` what is not known.

    Raises:
        UserError: A manifest is damaged.
    """
    found = set()
    for model in given:
        if model is None or model in models.available():
            continue
        path = Path(model).expanduser()
        # A link to a run folder's model is that model.
        path = path if path.is_dir() else path.resolve()
        folder = path if path.is_dir() else path.parent
        if (folder / _MANIFEST).is_file() and (path.is_dir() or path.name == CHECKPOINT):
            if folder.resolve() not in found:
                read_manifest(folder / _MANIFEST)
                found.add(folder.resolve())
                yield folder
        elif path.is_file() and _purpose(path) in _FORGETFUL:
            kind = "an unlearned" if _purpose(path) == "unlearned" else "a retrained"
            said[
                f"'{model}' is {kind} model outside its run folder: which samples it forgot before is not known, and "
                "those that are in the data count as remaining."
            ] = None


def _purpose(file: Path) -> object:
    try:
        return read_metadata(file).get("purpose")
    except UserError:  # reported where the model is loaded, or a file of another kind, which says nothing
        return None


def _without(split: Split, folder: Path, said: dict[str, None]) -> Split:
    manifest: Any = read_manifest(folder / _MANIFEST)
    origin = split.dataset if split.origin is None else split.origin
    if manifest["dataset"]["fingerprint"] == origin.fingerprint():
        before = Split.load(folder / _MANIFEST, origin)
        forgotten = {*before.forget_indices.tolist(), *_listed(before.excluded_indices)}
        removed = before.removed
    else:
        found = indices_of(manifest, origin)
        if found is None:
            said[
                f"The model of '{folder}' forgot samples of other data ('{manifest['dataset']['name']}'): which of "
                "these data they are is not known, and those that are among them count as remaining."
            ] = None
            return split
        forgotten = set(found.pop("train").tolist())
        removed = {part: indices for part, indices in found.items() if len(indices)}
        gone = manifest["forget"]["count"] + manifest.get("excluded", {}).get("count", 0) - len(forgotten)
        if gone:
            said[f"{gone} of the samples that the model of '{folder}' forgot are not in these data, by their ids."] = (
                None
            )
    earlier = forgotten - set(split.forget_indices.tolist())
    if earlier:
        split = _excluding(split, torch.tensor(sorted(earlier | set(_listed(split.excluded_indices)))))
        said[
            f"The model of '{folder}' forgot {len(earlier)} other samples before: they are left out of the retain set."
        ] = None
    return split.without(removed)


def _excluding(split: Split, excluded: Tensor) -> Split:
    unlabelled = split.unlabelled_indices
    if unlabelled is not None:
        unlabelled = unlabelled[~torch.isin(unlabelled, excluded)]
    return replace(split, excluded_indices=excluded, unlabelled_indices=unlabelled)


def _listed(indices: Tensor | None) -> list[int]:
    return [] if indices is None else indices.tolist()
