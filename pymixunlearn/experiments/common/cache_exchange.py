"""The caches of trained models and of metrics, where a task runs on another machine than the caches are on.

There the task has an empty folder in their place. What it looks up is brought from the caches, and what it adds to the
folder goes back to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from pymixunlearn.data import cache_dir
from pymixunlearn.files import write_atomically
from pymixunlearn.training import CachedModel, ModelCache, TrainResult
from pymixunlearn.training.cache import Trainer

KINDS = ("models", "metrics")
"""The folders of the cache whose entries travel."""
_LAST = ".json"
"""Suffix of the file without which an entry's others do not count."""


class Exchange(Protocol):
    """The way to the caches."""

    def bring(self, name: str, *, to_make: bool) -> Mapping[str, bytes]:
        """Return the files of an entry by their suffixes, none where the caches lack it.

        Args:
            name: The entry: its folder in the cache and its hash, "models/0a1b…".
            to_make: Whether the caller makes it if it is not there; whoever asks for it meanwhile waits.
        """

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        """Hand over the files of an entry; none if it was not made after all."""


_exchange: Exchange | None = None


@contextmanager
def exchanging(exchange: Exchange) -> Iterator[None]:
    """Use ``exchange`` in the block."""
    global _exchange
    before, _exchange = _exchange, exchange
    try:
        yield
    finally:
        _exchange = before


@contextmanager
def exchanged(entry: Path, *, to_make: bool = True) -> Iterator[None]:
    """Have an entry of the cache in its folder in the block, if there is one, and hand over what the block makes of it.

    Args:
        entry: One of its files.
        to_make: As of :meth:`Exchange.bring`.
    """
    if _exchange is None:
        yield
        return
    name = f"{entry.parent.name}/{entry.stem}"
    before = _exchange.bring(name, to_make=to_make)
    write_entry(name, before)
    made: dict[str, bytes] = {}
    try:
        yield
        made = read_entry(name)
    finally:
        if to_make:
            _exchange.give(name, {} if made == before else made)


def entry_names() -> set[str]:
    """Return the names of all entries of the cache."""
    found: set[str] = set()
    for kind in KINDS:
        last = _LAST if kind == "models" else ".safetensors"
        found.update(f"{kind}/{path.stem}" for path in (cache_dir() / kind).glob(f"*{last}"))
    return found


def read_entry(name: str) -> dict[str, bytes]:
    """Return the files of an entry by their suffixes, none where it is not whole; they carry hashes of their own."""
    kind, _, stem = name.partition("/")
    found = {}
    for suffix in (".safetensors", ".about", _LAST):
        path = cache_dir() / kind / f"{stem}{suffix}"
        if path.is_file():
            found[suffix] = path.read_bytes()
    whole = ".safetensors" in found and (kind != "models" or _LAST in found)
    return found if whole else {}


def write_entry(name: str, files: Mapping[str, bytes]) -> None:
    """Write the files of an entry, the one without which the others do not count last.

    Raises:
        UserError: The folder cannot be written.
    """
    kind, _, stem = name.partition("/")
    for suffix in sorted(files, key=lambda suffix: suffix == _LAST):
        write_atomically(cache_dir() / kind / f"{stem}{suffix}", files[suffix])


class ExchangedCache(ModelCache):
    """:class:`pymixunlearn.training.ModelCache` whose entries are exchanged, where there is an exchange."""

    def get_or_train(self, key: Mapping[str, Any], build: Trainer, *, into: nn.Module | None = None) -> CachedModel:
        """As of the class, with the entry of another machine if that has it."""
        with exchanged(self.place(key)):
            return super().get_or_train(key, build, into=into)

    def get(self, key: Mapping[str, Any], *, into: nn.Module | None = None) -> CachedModel | None:
        """As of the class, with the entry of another machine if that has it."""
        with exchanged(self.place(key), to_make=False):
            return super().get(key, into=into)

    def put(self, key: Mapping[str, Any], result: TrainResult) -> None:
        """As of the class, for other machines too."""
        super().put(key, result)
        if _exchange is not None:
            name = f"{self.root.name}/{self.place(key).stem}"
            _exchange.give(name, read_entry(name))
