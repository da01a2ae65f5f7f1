"""Chain of the requests that a model has served: for each a keyed hash of every sample's id, and what it is bound to.

It stands in the header of the model's file. Without the key nobody can tell whether a sample is in it, and with the key
anyone can; it holds no id, no path and no name. Each entry holds the hash of the one before.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError, reason_of
from pymixunlearn.files import atomic_path, json_sha256, sha256

FORMAT = "pymixunlearn-chain/1"
KEY_FILE = "forget.key"
"""The file of the key, beside the model's file or in the folder of the ledger."""
_HASH_BYTES = 16
_KEY_BYTES = 32
_ENTRY = ("command", "data_sha256", "initial_sha256", "method", "previous", "request", "samples", "unlearned_sha256")


@dataclass(frozen=True)
class Chain:
    """Requests that a model has served, the first one first.

    Attributes:
        key_id: Which key the hashes of the samples were made with.
        requests: JSON-able entries; "samples" holds the hashes of the ids, sorted, in Base64.

    Raises:
        UserError: An entry has not the form of one, is not what its own hash says, or does not follow the one before.

    Example:
        >>> key = bytes(32)
        >>> chain = Chain(key_id(key)).extended({"request": None}, [sample_hash(key, "path", "cat/0.jpg")])
        >>> len(chain), len(chain.samples), sample_hash(key, "path", "cat/0.jpg") in chain.samples
        (1, 1, True)
    """

    key_id: str
    requests: tuple[Mapping[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        """Check the entries."""
        previous = None
        for number, entry in enumerate(self.requests, start=1):
            content = {name: value for name, value in entry.items() if name != "sha256"}
            if not {*_ENTRY} <= {*entry} or json_sha256(content) != entry.get("sha256"):
                raise UserError(f"entry {number} of a model's chain of requests is not what its own sha256 says")
            if entry["previous"] != previous:
                raise UserError(f"entry {number} of a model's chain of requests does not follow the one before it")
            previous = entry["sha256"]

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.requests)

    @property
    def head(self) -> str | None:
        """The hash of the last entry, by which the whole chain is fixed; None without entries."""
        return str(self.requests[-1]["sha256"]) if self.requests else None

    @cached_property
    def samples(self) -> frozenset[bytes]:
        """Hashes of all samples of all requests."""
        return frozenset(part for entry in self.requests for part in unpacked(entry["samples"]))

    @cached_property
    def unlearned(self) -> frozenset[bytes]:
        """Those of requests that changed the weights: a run that went back to the model before forgot nothing."""
        changed = (
            entry
            for entry in self.requests
            if entry["unlearned_sha256"] is None or entry["unlearned_sha256"] != entry["initial_sha256"]
        )
        return frozenset(part for entry in changed for part in unpacked(entry["samples"]))

    def extended(self, entry: Mapping[str, Any], samples: Iterable[bytes]) -> Chain:
        """Return the chain with one more request.

        Args:
            entry: What is known of it; what is left out of the fields is None.
            samples: Hashes of the samples' ids.
        """
        content = {**dict.fromkeys(_ENTRY), **entry, "previous": self.head, "samples": packed(samples)}
        return Chain(self.key_id, (*self.requests, {**content, "sha256": json_sha256(content)}))

    def to_dict(self) -> dict[str, Any]:
        """Return the chain JSON-able, for :meth:`read`."""
        return {"format": FORMAT, "key_id": self.key_id, "requests": [dict(entry) for entry in self.requests]}

    def summary(self) -> dict[str, Any]:
        """Return the chain with a hash of the samples of each request in their place."""
        requests = []
        for entry in self.requests:
            samples = unpacked(entry["samples"])
            digest = sha256(b"".join(sorted(samples)))
            requests.append({**entry, "samples": {"count": len(samples), "sha256": digest}})
        return {"key_id": self.key_id, "head": self.head, "samples": len(self.samples), "requests": requests}

    @classmethod
    def read(cls, content: Any, where: str) -> Chain:
        """Return the chain of :meth:`to_dict`.

        Raises:
            UserError: It has another form, or its hashes do not hold.
        """
        requests = content.get("requests") if isinstance(content, dict) else None
        if (
            not isinstance(requests, list)
            or content.get("format") != FORMAT
            or not isinstance(content.get("key_id"), str)
            or not all(isinstance(entry, dict) and isinstance(entry.get("samples"), str) for entry in requests)
        ):
            raise UserError(f"{where} holds a chain of requests of another form; expected the format '{FORMAT}'")
        try:
            return cls(content["key_id"], tuple(requests))
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"{where} is damaged or was changed: {error}") from error


def sample_hash(key: bytes, kind: str, name: str) -> bytes:
    """Return the keyed hash of a sample's id: 128 bits of HMAC-SHA256.

    Args:
        key: The key of the chain.
        kind: What the id is: "given", "path" or "content".
        name: The id.
    """
    text = f"sample\0{kind}\0{name}".encode("utf-8", "surrogateescape")
    return hmac.digest(key, text, "sha256")[:_HASH_BYTES]


def keyed_sha256(key: bytes, purpose: str, text: str) -> str:
    """Return HMAC-SHA256 (hex) of a text under a key; one purpose's hashes are not another's."""
    return hmac.digest(key, f"{purpose}\0{text}".encode("utf-8", "surrogateescape"), "sha256").hex()


def packed(hashes: Iterable[bytes]) -> str:
    """Return hashes of samples as one text: sorted, each once, in Base64."""
    return base64.b64encode(b"".join(sorted(set(hashes)))).decode()


def unpacked(text: str) -> frozenset[bytes]:
    """Return the hashes of :func:`packed`.

    Raises:
        UserError: The text holds something else.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise UserError("hashes of samples are not in Base64") from error
    if len(content) % _HASH_BYTES:
        raise UserError(f"hashes of samples are {len(content)} bytes; expected {_HASH_BYTES} each")
    return frozenset(content[start : start + _HASH_BYTES] for start in range(0, len(content), _HASH_BYTES))


def new_key() -> bytes:
    """Return a key that nobody else has."""
    return secrets.token_bytes(_KEY_BYTES)


def key_id(key: bytes) -> str:
    """Return what tells one key from another, and nothing about it."""
    return keyed_sha256(key, "key", "id")[:16]


def write_key(path: Path, key: bytes) -> None:
    """Write a key that only the owner of the file can read.

    Raises:
        UserError: The path cannot be written.
    """
    try:
        with atomic_path(path) as partial:
            # The mode first: an open file would go on being readable by those who had opened it.
            partial.touch(mode=0o600)
            os.chmod(partial, 0o600)
            partial.write_bytes(f"{key.hex()}\n".encode())
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from error


def read_key(path: Path) -> bytes:
    """Read a key.

    Raises:
        UserError: The file is missing, or holds none.
    """
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as a {KEY_FILE}: {reason_of(error)}") from error
    if len(key) != _KEY_BYTES:
        raise UserError(f"'{path}' is no {KEY_FILE}: expected {_KEY_BYTES} bytes in hexadecimal, got {len(key)}")
    return key


def find_key(folder: Path, wanted: str, *, levels: int = 3) -> tuple[Path, bytes] | None:
    """Return the key of the id ``wanted``, and its file; None where there is none.

    Args:
        folder: Where the model's file lies.
        wanted: The id of the key.
        levels: How many folders to look in: the first, and those above it, as that of a ledger.
    """
    for place in (folder.absolute(), *folder.absolute().parents)[:levels]:
        try:
            key = read_key(place / KEY_FILE)
        except UserError:  # missing, or something else of that name
            continue
        if key_id(key) == wanted:
            return place / KEY_FILE, key
    return None
