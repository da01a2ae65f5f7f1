"""Entries of a ledger: each holds the hash of the one before, and their order says what is pending or served."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymixunlearn.display import printable
from pymixunlearn.errors import UserError
from pymixunlearn.files import canonical_json, sha256

LEDGER_FORMAT = "pymixunlearn-ledger/1"
KINDS = ("init", "add", "begin", "serve", "refuse", "purge")
NEEDED = {
    "init": ("format", "key_id", "settings_sha256", "model_sha256", "data_sha256", "max_drop"),
    "add": ("request_id", "received", "due", "samples", "persons", "missing", "list"),
    "begin": ("batch", "run", "initial_sha256", "settings_sha256"),
    "serve": ("batch", "run", "samples", "not_found"),
    "refuse": ("batch", "run", "reason"),
    "purge": ("requests", "rows"),
}
"""Fields of each kind of entry, beside "seq", "kind", "time" and "previous"."""


@dataclass(frozen=True)
class Entry:
    """An entry: its content as the canonical JSON that its hash is of, the hash, and the signature if there is one."""

    text: str
    sha256: str
    signature: Mapping[str, Any] | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The content.

        Raises:
            UserError: It is no JSON object.
        """
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise UserError("an entry of the ledger is not JSON") from error
        if not isinstance(value, dict):
            raise UserError("an entry of the ledger is not a JSON object")
        return value


def make_entry(kind: str, seq: int, previous: str | None, time: str, body: Mapping[str, Any]) -> Entry:
    """Return an entry that follows the one with the hash ``previous``."""
    text = canonical_json({**body, "kind": kind, "seq": seq, "time": time, "previous": previous})
    return Entry(text, sha256(text.encode()))


def faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with the hashes, the order or the form of entries."""
    previous, known = None, set[str]()
    served: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        if sha256(entry.text.encode()) != entry.sha256:
            yield f"entry {number} is not what its sha256 says: it was changed"
        try:
            content = entry.content
        except UserError as error:
            yield f"entry {number}: {error}"
            previous = entry.sha256
            continue
        if content.get("previous") != previous or content.get("seq") != number:
            yield f"entry {number} does not follow the one before it: an entry was removed, added or moved"
        previous = entry.sha256
        kind = content.get("kind")
        lacking = [name for name in ("time", *NEEDED.get(str(kind), ())) if name not in content]
        if kind not in KINDS or lacking or (kind == "init") is not (number == 1):
            yield f"entry {number} has not the form of one ({kind}{': ' if lacking else ''}{', '.join(lacking)})"
            continue
        if kind == "add":
            if content["request_id"] in known:
                yield f"entry {number} adds the request '{content['request_id']}' once more"
            known.add(content["request_id"])
        if kind in ("begin", "serve", "refuse"):
            batch = content["batch"]
            if not isinstance(batch, list) or not {*batch} <= known - served:
                yield f"entry {number} is about requests that are not pending then"
            elif kind == "serve":
                served |= {*batch}
    if previous is None:
        yield "it has no entries"


@dataclass(frozen=True)
class Request:
    """A request as the entries tell it.

    Attributes:
        added: The content of the entry that added it.
        served: The content of the entry that served it; None while it is pending.
    """

    added: Mapping[str, Any]
    served: Mapping[str, Any] | None = None

    @property
    def request_id(self) -> str:
        """Its id."""
        return str(self.added["request_id"])


@dataclass(frozen=True)
class State:
    """What the entries of a ledger say.

    Attributes:
        init: The content of the first entry.
        requests: All requests by id, in the order in which they were added.
        open: The content of the entry that began to serve requests and has not ended; None where there is none.
        current: The content of the entry that gave the newest model; None where that is still the first one.
        purged: Ids of the requests whose clear ids were deleted.
        length: How many entries there are.
        head: The hash of the last.
    """

    init: Mapping[str, Any]
    requests: Mapping[str, Request]
    open: Mapping[str, Any] | None
    current: Mapping[str, Any] | None
    length: int
    head: str
    purged: frozenset[str] = field(default=frozenset())

    @property
    def pending(self) -> list[Request]:
        """The requests that are not served, in order."""
        return [request for request in self.requests.values() if request.served is None]

    @property
    def model_sha256(self) -> str:
        """Hash of the newest model's weights."""
        return str(self.init["model_sha256"] if self.current is None else self.current["unlearned_sha256"])


def check_format(entries: Sequence[Entry]) -> None:
    """Check that entries are in the form that this version reads.

    Raises:
        UserError: The first one says that they are in another.
    """
    try:
        found = entries[0].content.get("format") if entries else LEDGER_FORMAT
    except UserError:
        return  # damaged, which is for others to say
    if isinstance(found, str) and found != LEDGER_FORMAT:
        raise UserError(
            f"the ledger has the format '{printable(found)}', and this version of pymixunlearn reads "
            f"'{LEDGER_FORMAT}'; expected the version that wrote it, or a later one"
        )


def state_of(entries: Sequence[Entry]) -> State:
    """Return what entries say.

    Raises:
        UserError: They are damaged, or in the form of another version.
    """
    check_format(entries)
    for fault in faults(entries):
        raise UserError(f"the ledger is damaged: {fault}; 'request verify' says all")
    requests: dict[str, Request] = {}
    begun: Mapping[str, Any] | None = None
    current: Mapping[str, Any] | None = None
    purged: set[str] = set()
    for entry in entries:
        content = entry.content
        kind = content["kind"]
        if kind == "add":
            requests[content["request_id"]] = Request(content)
        elif kind == "begin":
            begun = content
        elif kind in ("serve", "refuse"):
            begun = None
            if kind == "serve":
                for name in content["batch"]:
                    requests[name] = Request(requests[name].added, content)
                current = content if content["run"] is not None else current
        elif kind == "purge":
            purged |= {*content["requests"]}
    return State(entries[0].content, requests, begun, current, len(entries), entries[-1].sha256, frozenset(purged))
