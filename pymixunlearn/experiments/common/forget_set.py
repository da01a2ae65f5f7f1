"""Forget set of a command: its list is read before the data, and what its models forgot before stays forgotten.

:func:`load_splits` and :func:`saved_split` are the only ways from a request to a split. Whatever a command trains on or
measures as remaining comes from there, so that no command can put back what an earlier request took out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pymixunlearn import display
from pymixunlearn.data import Dataset
from pymixunlearn.data.listing import shown
from pymixunlearn.data.registry import specification
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.forget_history import MANIFEST, Earlier, History, SampleHashes, read_history
from pymixunlearn.experiments.common.given import GivenData
from pymixunlearn.experiments.common.history_request import HistoryRequest
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import read_json
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.known_samples import indices_of
from pymixunlearn.tasks.manifest import JSON, read_manifest


def load_splits(
    data: DataRequest,
    forget: SplitRequest,
    *given: str | Path | None,
    seeds: Sequence[int],
    history: HistoryRequest | None = None,
    observer: Observer | None = None,
    prepare: Callable[[Dataset], Dataset] | None = None,
) -> dict[int, Split]:
    """Read the list of samples if there is one, load the data, and divide them once per seed.

    A model of ``unlearn`` or ``retrain`` says which samples it forgot: by the chain of requests in its file, and one of
    an older version by the manifest in its run folder. They are left out of D_r and of the other parts, so that neither
    a method nor a retrained model sees them again; those that are requested once more are in D_f.

    Args:
        data: Which data set.
        forget: Which samples to forget.
        given: The models that the command is given: names of networks, files, run folders, or None.
        seeds: Seeds of the splits.
        history: Where the key of the models' chains is, and whether they count; None takes the defaults.
        observer: Receives the progress of decoding images, and notes on the splits.
        prepare: What to make of the data set before it is divided.

    Returns:
        The split of each seed.

    Raises:
        BadRequest: Choices contradict each other.
        UserError: Files are missing or corrupt, a class or a sample does not exist, a model's chain of requests is
            damaged or its key is missing, or nothing else remains.
    """
    watcher = Observer() if observer is None else observer
    forget.check()
    known = read_history(given, history or HistoryRequest())
    said: dict[str, None] = dict.fromkeys(known.notes)
    for note in _of_other_data(data, given):  # before the data are loaded, which then need not fit the model
        watcher.note(note)
    dataset = forget.of_data(data).load(observer)
    dataset = dataset if prepare is None else prepare(dataset)
    splits = {}
    hashes = SampleHashes(dataset)
    for seed in seeds:
        made = forget.make(dataset, seed)
        splits[seed] = _without_earlier(made, known, hashes, said)
        said.update(dict.fromkeys(notes(made, splits[seed], forget)))
    for note in said:
        watcher.note(note)
    return splits


def _of_other_data(data: DataRequest, given: Iterable[str | Path | None]) -> Iterator[str]:
    """Yield a note for every run folder among the models whose run was on another data set than the requested one."""
    if isinstance(data, GivenData):
        return
    for model in given:
        file = None if model is None else Path(model).expanduser() / "config.json"
        if file is None or not file.is_file():
            continue
        theirs = ours = None
        with suppress(UserError):  # what is wrong here is named where it is needed
            ours = specification(data.dataset, data.data_dir).absolute()
            theirs = read_json(file).get("dataset_spec")
        if theirs is not None and theirs != ours:
            yield f"The run in '{model}' was on the data '{theirs}', and these are '{ours}': --dataset takes others."


def load_split(
    data: DataRequest,
    forget: SplitRequest,
    *given: str | Path | None,
    seed: int,
    history: HistoryRequest | None = None,
    observer: Observer | None = None,
) -> Split:
    """Return the split of one seed, see :func:`load_splits`."""
    return load_splits(data, forget, *given, seeds=(seed,), history=history, observer=observer)[seed]


def saved_split(run: Path, dataset: Dataset, history: HistoryRequest, observer: Observer | None = None) -> Split:
    """Return the split of a finished run, without what its model had forgotten before.

    Args:
        run: The run folder.
        dataset: Its data, which may have grown since.
        history: As of :func:`load_splits`.
        observer: Receives notes.

    Raises:
        UserError: The manifest or the chain of requests is damaged, its key is missing, or the data are others.
    """
    said: dict[str, None] = {}
    split = Split.load(run / MANIFEST, dataset)
    known = read_history([run], history)
    known = replace(known, earlier=tuple(earlier for earlier in known.earlier if earlier.chain is not None))
    found = _without_earlier(split, known, SampleHashes(split.origin or split.dataset), said)
    for note in said:
        (observer or Observer()).note(note)
    return found


def notes(made: Split, split: Split, forget: SplitRequest) -> Iterator[str]:
    """Yield what a reader should know of a split: what was read, taken out elsewhere, and which copies remain.

    Args:
        made: The split as requested.
        split: The same without what was forgotten before.
        forget: The request.
    """
    if forget.indices is not None:
        rows = len(forget.deletion_list)
        removed = sum(len(indices) for indices in made.removed.values())
        yield (
            f"Read {display.counted(rows, 'row')} from '{forget.indices}': "
            f"{display.counted(len(made.forget_indices) + removed, 'sample')} to forget."
        )
    for part, indices in made.removed.items():
        yield f"{display.counted(len(indices), 'image')} of them taken out of the {part} set."
    unseen = {*split.train.targets[split.forget_indices].tolist()} - {*split.test.targets.tolist()}
    if unseen:
        classes = shown([split.train.classes[label] for label in unseen])
        yield f"The test set has no image of the forgotten {classes}: what needs one is not measured."
    for part, indices in split.copies.items():
        images = {"retain": split.train, "test": split.test}.get(part, split.dataset.validation)
        names = [str(index) for index in indices.tolist()]
        if images is not None and images.paths is not None:
            names = [images.paths[index] for index in indices.tolist()]
        yield (
            f"{display.counted(len(indices), 'exact copy', 'exact copies')} of forgotten images "
            f"{'stays' if len(indices) == 1 else 'stay'} in the {part} set: {shown(names)}."
        )


def _without_earlier(split: Split, known: History, hashes: SampleHashes, said: dict[str, None]) -> Split:
    """Return a split without what the models have forgotten before; what was noticed is added to ``said``."""
    counted = {"requests": 0, "samples": 0, "not_found": 0}
    for earlier in known.earlier:
        if earlier.chain is not None and earlier.key is not None:
            split = _without_chain(split, earlier, hashes.of(earlier.key), counted, said)
        elif earlier.folder is not None:
            split = _without_folder(split, earlier.folder, counted, said)
    if known.earlier:
        entry: dict[str, JSON] = {**counted, "classes": _lost_classes(split)}
        split = replace(split, history=entry)
    if known.overridden:
        split = replace(split, history={**split.history, "set_aside": sum(len(chain) for chain in known.overridden)})
    return split


def _without_chain(
    split: Split, earlier: Earlier, hashes: dict[str, list[bytes]], counted: dict[str, int], said: dict[str, None]
) -> Split:
    chain = earlier.chain
    assert chain is not None
    found = {
        part: [index for index, digest in enumerate(digests) if digest in chain.samples]
        for part, digests in hashes.items()
    }
    present = {hashes[part][index] for part, indices in found.items() for index in indices}
    gone = len(chain.samples) - len(present)
    if gone:
        said[
            f"{gone} of the samples that the model of '{earlier.name}' forgot are not in these data, by their ids."
        ] = None
    counted["requests"] += len(chain)
    counted["samples"] += len(chain.samples)
    counted["not_found"] += gone
    forgotten = set(found.pop("train"))
    removed = {part: torch.tensor(indices) for part, indices in found.items() if indices}
    for part, indices in removed.items():
        images = display.counted(len(indices), "image")
        said[f"The model of '{earlier.name}' forgot {images} of the {part} set before: left out."] = None
    return _leaving_out(split, forgotten, earlier.name, said).without(removed)


def _without_folder(split: Split, folder: Path, counted: dict[str, int], said: dict[str, None]) -> Split:
    """Take out what the manifest of an older version's run folder says."""
    manifest: Any = read_manifest(folder / MANIFEST)
    origin = split.dataset if split.origin is None else split.origin
    gone = 0
    if manifest["dataset"]["fingerprint"] == origin.fingerprint():
        before = Split.load(folder / MANIFEST, origin)
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
    counted["requests"] += 1
    counted["samples"] += len(forgotten) + gone + sum(len(indices) for indices in removed.values())
    counted["not_found"] += gone
    return _leaving_out(split, forgotten, str(folder), said).without(removed)


def _leaving_out(split: Split, forgotten: set[int], name: str, said: dict[str, None]) -> Split:
    earlier = forgotten - set(split.forget_indices.tolist())
    if not earlier:
        return split
    said[f"The model of '{name}' forgot {len(earlier)} other samples before: they are left out of the retain set."] = (
        None
    )
    return _excluding(split, torch.tensor(sorted(earlier | set(_listed(split.excluded_indices)))))


def _lost_classes(split: Split) -> list[JSON]:
    """Return the classes that earlier requests have left no sample of, and that are not forgotten now."""
    remaining = torch.bincount(split.train.targets[split.retain_indices], minlength=split.num_classes)
    return [label for label in (remaining == 0).nonzero().flatten().tolist() if label not in split.forget_classes]


def _excluding(split: Split, excluded: Tensor) -> Split:
    unlabelled = split.unlabelled_indices
    if unlabelled is not None:
        unlabelled = unlabelled[~torch.isin(unlabelled, excluded)]
    return replace(split, excluded_indices=excluded, unlabelled_indices=unlabelled)


def _listed(indices: Tensor | None) -> list[int]:
    return [] if indices is None else indices.tolist()
