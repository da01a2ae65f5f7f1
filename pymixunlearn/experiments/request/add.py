"""`request add`: one request more, by the list of its samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pymixunlearn.data import Dataset
from pymixunlearn.data.image_set import image_hashes
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.forget_chain import keyed_sha256, sample_hash
from pymixunlearn.experiments.common.forget_history import SampleHashes
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.signing import Signer
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.request.copies import CopyPair, both_ways, near_copies
from pymixunlearn.experiments.request.embeddings import embedding_copies
from pymixunlearn.experiments.request.entries import Request, State
from pymixunlearn.experiments.request.inputs import AddInputs
from pymixunlearn.experiments.request.ledger import Ledger, month_after, parse_date
from pymixunlearn.experiments.request.newest import newest_model
from pymixunlearn.experiments.request.settings import settings_inputs
from pymixunlearn.files import canonical_json, sha256
from pymixunlearn.tasks.deletion_list import DeletionList, read_deletion_list
from pymixunlearn.tasks.known_samples import parts_of
from pymixunlearn.tasks.samples import find_samples, known_rows

_SHOWN = 20


@dataclass(frozen=True)
class Added:
    """Result of adding a request.

    Attributes:
        request: The request.
        known: Whether it had been added before.
        missing: The samples that are not in the data.
        copies: Near copies of its samples; None where they were not looked for.
    """

    request: Request
    known: bool
    missing: tuple[str, ...] = ()
    copies: tuple[CopyPair, ...] | None = None


def run_add(inputs: AddInputs, *, observer: Observer | None = None) -> Added:
    """Read a list of samples, find them in the ledger's data, and add the request.

    Raises:
        BadRequest: The date is none, or the id is empty.
        UserError: Samples are not in the data, another request has the id, or the ledger cannot be written.
    """
    signer = None if inputs.sign_key is None else Signer(inputs.sign_key)
    received = parse_date(inputs.received)
    if inputs.request_id is not None and not inputs.request_id.strip():
        raise BadRequest("the id of a request is empty; expected a text such as R-17")
    listed = read_deletion_list(inputs.file, inputs.id_column)
    ledger = Ledger(inputs.ledger, inputs.ledger_dir)
    state = ledger.state()
    dataset = ledger_data(ledger, state, observer, ids=inputs.id_column if listed.by_id else None)
    known, missing = known_rows(dataset, listed)
    if missing and not inputs.allow_missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        shown = ", ".join(f"'{printable(name)}'" for name in missing[:_SHOWN])
        raise UserError(
            f"{len(missing)} of {len(listed)} samples of '{inputs.file}' are not in the data '{dataset.name}': "
            f"{shown}{more}; expected a list without them, or --allow-missing"
        )
    found = {part: set(indices.tolist()) for part, indices in find_samples(dataset, known).items()}
    copies = None
    if inputs.check_copies or inputs.check_embeddings or inputs.also_forget_copies:
        pairs = list(near_copies(dataset, found, observer=observer, limit=inputs.copy_distance))
        if inputs.check_embeddings:
            model, device = newest_model(ledger, state, dataset)
            pairs = both_ways(pairs, embedding_copies(dataset, found, model, device=device, observer=observer))
        copies = tuple(pairs)
        if inputs.also_forget_copies:
            found["train"] |= {pair.copy for pair in copies if pair.part == "train"}
    samples = _hashes(ledger, dataset, found)
    gone = {sample_hash(ledger.key, "path", name): None for name in missing if listed.files}
    persons = sorted({ledger.person_hash(name) for name in listed.ids})
    every = {**gone, **samples}
    digest = _list_hash(ledger, listed, inputs)
    body = {
        "request_id": inputs.request_id or f"R-{digest[:8]}",
        "received": received.isoformat(),
        "due": month_after(received).isoformat(),
        "samples": {"count": len(samples), "sha256": sha256(b"".join(sorted(every)))},
        "persons": {"count": len(persons), "sha256": sha256("".join(persons).encode())},
        "missing": len(missing),
        "list": digest,
    }
    with ledger.store.writing() as writer:
        contents = [entry.content for entry in writer.entries()]
        before = next((entry for entry in contents if entry.get("request_id") == body["request_id"]), None)
        if before is not None:
            if before["list"] != digest:
                raise UserError(
                    f"the ledger has a request '{body['request_id']}' already, with other samples or other people; "
                    "expected another --request-id"
                )
            return Added(Request(before), True, missing, copies)
        entry = writer.append("add", body, signer)
        writer.add_samples(entry["seq"], every)
        writer.add_persons(entry["seq"], persons)
        writer.add_clear_ids(entry["seq"], zip(listed.ids or [None] * len(listed), _names(listed), strict=True))
    return Added(Request(entry), False, missing, copies)


def ledger_data(
    ledger: Ledger,
    state: State,
    observer: Observer | None = None,
    *,
    ids: str | None = None,
    other: tuple[str, Path | None] | None = None,
) -> Dataset:
    """Load the data of a ledger, as its model takes them.

    Args:
        ledger: The ledger.
        state: What its entries say.
        observer: Receives the progress.
        ids: A column of the data that a list is about.
        other: Another data set, and the folder of its files, to load in the same way: pixels can be compared only
            where images have the same size.
    """
    text = ledger.store.settings(str(state.init["settings_sha256"]))
    inputs = settings_inputs(text, split=SplitRequest(), model=None, key=ledger.key_file)
    load_plugins(inputs.plugin)
    data = fed(inputs.data, inputs.model)
    if other is not None:
        data = replace(data, dataset=other[0], data_dir=other[1], class_list=None, validation_share=None)
    return (replace(data, id_column=ids) if ids is not None and data.has_columns else data).load(observer)


def _names(listed: DeletionList) -> tuple[str, ...]:
    return listed.ids if listed.by_id else listed.files or tuple(map(str, listed.indices))


def _list_hash(ledger: Ledger, listed: DeletionList, inputs: AddInputs) -> str:
    """Return a keyed hash of a list's rows in any order, by which the same request is known again."""
    added = ["copies", *(["embeddings"] if inputs.check_embeddings else [])] if inputs.also_forget_copies else []
    rows = sorted(zip(listed.ids or [""] * len(listed), _names(listed), strict=True))
    return keyed_sha256(ledger.key, "list", canonical_json([rows, *added]))


def _hashes(ledger: Ledger, dataset: Dataset, found: dict[str, set[int]]) -> dict[bytes, bytes | None]:
    """Return the keyed hashes of the samples' ids with those of their pixels."""
    samples: dict[bytes, bytes | None] = {}
    hashed = SampleHashes(dataset).of(ledger.key)
    for part, images in parts_of(dataset).items():
        indices = sorted(found.get(part, ()))
        chosen = images.subset(torch.tensor(indices, dtype=torch.int64))
        for index, pixels in zip(indices, image_hashes(chosen), strict=True):
            samples[hashed[part][index]] = pixel_hash(ledger, pixels)
    return samples


def pixel_hash(ledger: Ledger, pixels: bytes) -> bytes:
    """Return the keyed hash of an image's pixels, by which it is found under another name."""
    return sample_hash(ledger.key, "pixels", pixels.hex())
