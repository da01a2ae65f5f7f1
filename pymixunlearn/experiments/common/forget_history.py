"""What models have forgotten before: read from their files, and found again among the samples of today."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymixunlearn import models
from pymixunlearn.data import Dataset, ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import check_name
from pymixunlearn.experiments.common.forget_chain import (
    KEY_FILE,
    Chain,
    find_key,
    key_id,
    keyed_sha256,
    new_key,
    read_key,
    sample_hash,
    write_key,
)
from pymixunlearn.experiments.common.history_request import HISTORIES, HistoryRequest
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.files import canonical_json
from pymixunlearn.tasks import Split
from pymixunlearn.tasks.known_samples import parts_of
from pymixunlearn.tasks.manifest import read_manifest
from pymixunlearn.training import read_metadata

MANIFEST = "split.json"
CHAIN = "chain"
"""Key of the chain in a model's file and in ``metrics.json``."""
_FORGETFUL = ("unlearned", "retrain")
"""Purposes of models, in their files, that have not seen, or have forgotten, a part of the data."""


@dataclass(frozen=True)
class Earlier:
    """What one model has forgotten before.

    Attributes:
        name: The model, for messages.
        chain: Its chain of requests; None for a model of an older version.
        key: The key of the chain.
        folder: The run folder of a model of an older version, whose manifest says it.
    """

    name: str
    chain: Chain | None = None
    key: bytes | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class History:
    """What the models of a command have forgotten before.

    Attributes:
        earlier: The models that have.
        notes: What a reader should know, such as models of which it is not known.
        overridden: Chains that ``--forget-history none`` sets aside.
    """

    earlier: tuple[Earlier, ...] = ()
    notes: tuple[str, ...] = ()
    overridden: tuple[Chain, ...] = field(default=())


def read_history(given: Iterable[str | Path | None], request: HistoryRequest) -> History:
    """Read what models have forgotten before; no data are needed.

    Args:
        given: The models that a command is given: names of networks, files, run folders, or None.
        request: Where the key is, and whether earlier requests count.

    Raises:
        BadRequest: The request is none that exists.
        UserError: A model has a chain of requests and its key is not found, or a chain, key or manifest is damaged.
    """
    check_name("history", request.forget_history, HISTORIES)
    keep = request.forget_history == "keep"
    if request.forget_key is not None:
        read_key(request.forget_key)
    found: dict[Path, Earlier] = {}
    notes: dict[str, None] = {}
    overridden: list[Chain] = []
    for model in given:
        file = _model_file(model)
        if file is None or file.resolve() in found:
            continue
        metadata = _metadata(file)
        if CHAIN in metadata:
            chain = Chain.read(metadata[CHAIN], f"model '{model}'")
            if keep:
                found[file.resolve()] = Earlier(str(model), chain, _key_of(chain, file, str(model), request.forget_key))
            else:
                overridden.append(chain)
                notes[
                    f"'{model}' has forgotten {len(chain.samples)} samples before, and --forget-history none counts "
                    "them as remaining."
                ] = None
        elif (file.parent / MANIFEST).is_file() and file.name == CHECKPOINT:
            read_manifest(file.parent / MANIFEST)
            if keep:
                found[file.resolve()] = Earlier(str(model), folder=file.parent)
            else:
                notes[
                    f"'{model}' has forgotten samples before, and --forget-history none counts them as remaining."
                ] = None
        elif metadata.get("purpose") in _FORGETFUL:
            kind = "an unlearned" if metadata["purpose"] == "unlearned" else "a retrained"
            notes[
                f"'{model}' is {kind} model of an older version outside its run folder: which samples it forgot before "
                "is not known, and those that are in the data count as remaining."
            ] = None
    return History(tuple(found.values()), tuple(notes), tuple(overridden))


def line_key(history: History, request: HistoryRequest) -> bytes:
    """Return the key of a new model: that of the model before it, the given one, or a new one."""
    known = next((earlier.key for earlier in history.earlier if earlier.key is not None), None)
    if known is not None:
        return known
    return new_key() if request.forget_key is None else read_key(request.forget_key)


def keep_key(partial: Path, history: History, request: HistoryRequest) -> bytes:
    """Return the key of a run's model, which lies in the unfinished run from its beginning, so that it can go on."""
    if (partial / KEY_FILE).is_file():
        return read_key(partial / KEY_FILE)
    key = line_key(history, request)
    write_key(partial / KEY_FILE, key)
    return key


def lasting_ids(images: ImageSet) -> tuple[str, tuple[str, ...]]:
    """Return the kind of the ids that a chain knows images by, and the ids.

    Paths come first: other ids are there or not according to how the data are loaded.
    """
    return ("path", images.paths) if images.paths is not None else (images.id_kind, images.ids)


class SampleHashes:
    """Keyed hashes of the ids of all samples of a data set, computed once for each key."""

    def __init__(self, dataset: Dataset) -> None:
        self._names = {part: lasting_ids(images) for part, images in parts_of(dataset).items()}
        self._known: dict[bytes, dict[str, list[bytes]]] = {}

    def of(self, key: bytes) -> dict[str, list[bytes]]:
        """Return the hashes by part, in the order of its samples."""
        if key not in self._known:
            self._known[key] = {
                part: [sample_hash(key, kind, name) for name in names] for part, (kind, names) in self._names.items()
            }
        return self._known[key]


def next_chain(
    history: History,
    key: bytes,
    split: Split,
    *,
    command: str,
    method: str | None,
    initial_sha256: str | None,
    unlearned_sha256: str,
) -> Chain:
    """Return the chain of a model that was made with a split.

    Args:
        history: What the model before it had forgotten.
        key: The key of the line of models.
        split: What was forgotten now, and what was left out since it had been before.
        command: What made the model.
        method: The unlearning method.
        initial_sha256: Hash of the weights before; None for a model that was trained anew.
        unlearned_sha256: Hash of its weights.
    """
    dataset = split.dataset if split.origin is None else split.origin
    hashes = SampleHashes(dataset).of(key)
    forgotten = _at(hashes, {"train": split.forget_indices.tolist()})
    left_out = {part: indices.tolist() for part, indices in split.removed.items()}
    before = [] if split.excluded_indices is None else split.excluded_indices.tolist()
    chains = (earlier.chain for earlier in history.earlier if earlier.key == key)
    chain = next((chain for chain in chains if chain is not None), Chain(key_id(key)))
    # What an older version's folder, another model or a saved split had left out has no entry of its own.
    unlisted = _at(hashes, {"train": before}) - chain.samples
    if unlisted:
        chain = chain.extended({"command": "before"}, unlisted)
    asked = {"task": split.task, "params": split.params, "samples": sorted(part.hex() for part in forgotten)}
    entry: dict[str, Any] = {
        "command": command,
        "method": method,
        "request": keyed_sha256(key, "request", canonical_json(asked)),
        "data_sha256": dataset.fingerprint(),
        "initial_sha256": initial_sha256,
        "unlearned_sha256": unlearned_sha256,
    }
    if history.overridden:
        entry["set_aside"] = [{"requests": len(other), "head": other.head} for other in history.overridden]
    return chain.extended(entry, forgotten | (_at(hashes, left_out) - chain.samples))


def is_above(folder: Path, key: bytes) -> bool:
    """Tell whether a folder above a run folder holds the key already, as that of a ledger does."""
    return find_key(folder.absolute().parent, key_id(key), levels=2) is not None


def _at(hashes: Mapping[str, Sequence[bytes]], indices: Mapping[str, Iterable[int]]) -> frozenset[bytes]:
    return frozenset(hashes[part][index] for part, chosen in indices.items() for index in chosen)


def _model_file(model: str | Path | None) -> Path | None:
    """Return the file of a model that is given by a path; a link to a run folder's model is that model."""
    if model is None or model in models.available():
        return None
    path = Path(model).expanduser()
    if path.is_dir():
        return path / CHECKPOINT if (path / CHECKPOINT).is_file() else None
    return path.resolve() if path.is_file() and path.suffix != ".py" else None


def _metadata(file: Path) -> dict[str, Any]:
    try:
        return read_metadata(file)
    except UserError:  # reported where the model is loaded, or a file of another kind, which says nothing
        return {}


def _key_of(chain: Chain, file: Path, name: str, given: Path | None) -> bytes:
    """Find the key of a chain.

    Raises:
        UserError: It is not found.
    """
    if given is not None and key_id(key := read_key(given)) == chain.key_id:
        return key
    found = find_key(file.parent, chain.key_id)
    if found is not None:
        return found[1]
    wrong = "" if given is None else f"; '{given}' is the key of other models"
    raise UserError(
        f"'{name}' has forgotten {len(chain.samples)} samples before, and which they are cannot be told without its "
        f"forget.key{wrong}; expected it by --forget-key FILE, or --forget-history none to count them as remaining"
    )
