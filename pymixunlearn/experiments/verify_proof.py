"""Checks of a run's chain of requests, in the model's file and in the record, and of the record's signature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pymixunlearn.display import counted
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.forget_chain import (
    KEY_FILE,
    Chain,
    find_key,
    key_id,
    read_key,
    sample_hash,
    unpacked,
)
from pymixunlearn.experiments.common.forget_history import CHAIN
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.run_folder import read_json
from pymixunlearn.experiments.common.signing import DELETION, UNSIGNED, PublicKey
from pymixunlearn.experiments.unlearn.report import SIGNATURE
from pymixunlearn.experiments.verify_metrics import Check
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import RECORD
from pymixunlearn.training import read_metadata


def check_chain(
    folder: Path, metrics: Mapping[str, Any], split: Mapping[str, Any], missing: list[str]
) -> Iterator[Check]:
    """Compare the chain in a model's file with the files beside it; ``missing`` gets what cannot be checked.

    Args:
        folder: The run folder.
        metrics: The content of ``metrics.json``.
        split: The content of ``split.json``.
        missing: Sentences about what was not checked.
    """
    stated = metrics.get(CHAIN)
    metadata = read_metadata(folder / CHECKPOINT)
    if stated is None and CHAIN not in metadata:  # a run of an older version
        return
    try:
        chain = Chain.read(metadata.get(CHAIN), "the model's file")
    except UserError as error:
        yield Check("chain", False, str(error))
        return
    last = chain.requests[-1] if chain.requests else {}
    wrong = []
    if chain.summary() != stated:
        wrong.append("the model's file and metrics.json differ")
    for name in ("initial", "unlearned"):
        if last.get(f"{name}_sha256") != metrics["hashes"][name]:
            wrong.append(f"its last request is of another {name} model")
    if last.get("data_sha256") != split["dataset"]["fingerprint"]:
        wrong.append("its last request is of other data")
    yield Check(
        "chain",
        not wrong,
        "; ".join(wrong) or f"{counted(len(chain), 'request')}, {counted(len(chain.samples), 'sample')}",
    )
    if wrong:
        return
    if (folder / KEY_FILE).is_file():
        check = _check_key(folder / KEY_FILE, chain.key_id)
        yield check
        if not check.holds:
            return
    found = find_key(folder, chain.key_id)
    if found is None:
        missing.append(f"samples of the chain of requests: their hashes are keyed, and {KEY_FILE} is not here")
        return
    if split["samples"]["kind"] == "given":
        missing.append("samples of the chain of requests: split.json knows them by other ids than the chain may")
        return
    yield _check_samples(found[1], split, unpacked(last["samples"]), chain.samples)


def check_signature(inputs: VerifyInputs, missing: list[str]) -> Iterator[Check]:
    """Check the signature of ``report.json``, or say what it takes to, and what is open without one.

    Raises:
        UserError: The public key cannot be read.
    """
    path = inputs.folder / SIGNATURE
    key = None if inputs.public_key is None else PublicKey(inputs.public_key)
    if key is None:
        missing.append("signature of report.json: --public-key checks it" if path.is_file() else UNSIGNED)
        return
    try:
        fault = key.fault(read_json(path), DELETION, file_sha256(inputs.folder / RECORD))
    except UserError:
        fault = "there is none that can be read"
    yield Check(SIGNATURE, fault is None, fault or "report.json is signed by this key")


def _check_key(path: Path, wanted: str) -> Check:
    """Compare the key in a run folder with the one that the chain's hashes were made with; no record has its hash."""
    try:
        same = key_id(read_key(path)) == wanted
    except UserError:
        return Check(KEY_FILE, False, "holds no key: it was changed")
    return Check(KEY_FILE, same, "the key of the chain" if same else "is not the key of the chain: it was changed")


def _check_samples(key: bytes, split: Mapping[str, Any], now: frozenset[bytes], ever: frozenset[bytes]) -> Check:
    kind = split["samples"]["kind"]
    forgotten = {sample_hash(key, kind, name) for name in split["forget"]["ids"]}
    before = {sample_hash(key, kind, name) for name in split.get("excluded", {}).get("ids", [])}
    # Images of other parts may be named by another kind of id.
    others = sum(entry["count"] for entry in split.get("removed", {}).values())
    same = forgotten <= now and len(now - forgotten) <= others and before <= ever
    return Check(
        "chain, samples",
        same,
        f"{len(forgotten)} forgotten and {len(before)} before, by their ids" if same else "are not those of split.json",
    )
