"""The user's cache: what lies in it, of which data it is made, whether it is whole, and how to be rid of it.

Everything in it can be computed or fetched again. Decoded images, models, snapshots and predictions of data that were
forgotten stay there until they are purged.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pymixunlearn.data import cache_dir
from pymixunlearn.data.cache_origin import SUFFIX, read_origin
from pymixunlearn.data.image_file import map_images
from pymixunlearn.data.registry import source_of
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_origin import IN_MEMORY, data_of_run
from pymixunlearn.experiments.common.provenance import utc_now
from pymixunlearn.experiments.common.run_folder import LAST, read_json, write_json
from pymixunlearn.experiments.unlearn.figures import PICTURES
from pymixunlearn.experiments.unlearn.report import PURGE, write_report
from pymixunlearn.files import file_sha256, json_sha256, read_with_hash
from pymixunlearn.reporting import RECORD

Kind = Literal["images", "models", "snapshots", "predictions", "unfinished", "downloads"]
KINDS: dict[Kind, str] = {
    "images": "decoded images",
    "models": "trained models",
    "snapshots": "snapshots of trainings that were interrupted",
    "predictions": "predictions of models, and their metrics",
    "unfinished": "parts of files that were not finished",
    "downloads": "downloaded data sets",
}
PURGE_FORMAT = "pymixunlearn-purge/1"

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
_PART = re.compile(r"@\d+$")
_TEMPORARY_SECONDS = 600
"""A file that is younger may be one that another process is writing."""


@dataclass(frozen=True)
class CacheEntry:
    """Something in the cache.

    Attributes:
        kind: One of :data:`KINDS`.
        files: Its files and folders; the first is the one that counts.
        size: Bytes.
        modified: When it was last written, in seconds since 1970.
        source: Where its data came from, as ``Dataset.place`` has it; None where that is not recorded.
        dataset: Name of the data set, "" where that is not recorded.
        fingerprint: Of the data set, None where that is not recorded.
        model: What was trained, "" for anything but a model.
        without: Hashes of the samples that a model was trained without; None for one that has seen all.
        lock: The file that a process at work on it holds.
    """

    kind: Kind
    files: tuple[Path, ...]
    size: int
    modified: float
    source: str | None = None
    dataset: str = ""
    fingerprint: str | None = None
    model: str = ""
    without: tuple[str, ...] | None = None
    lock: Path | None = None

    @property
    def seconds(self) -> float:
        """Its age."""
        return max(0.0, time.time() - self.modified)

    def damage(self) -> str | None:
        """Return what is wrong with it; None where its hashes hold, or it has none (unfinished files, downloads)."""
        path = self.files[0]
        if any(file.suffix == SUFFIX and read_origin(file) is None for file in self.files):
            return "the note on its data is not what was written"
        if self.kind == "images":
            return None if map_images(path) is not None else "the images are not what was written"
        if self.kind == "models":
            return _damage_of_model(path)
        if self.kind in ("snapshots", "predictions"):
            return None if read_with_hash(path) is not None else "it is not what was written"
        return None

    @property
    def checkable(self) -> bool:
        """Whether it has a hash."""
        return self.kind not in ("unfinished", "downloads")

    def remove(self) -> bool:
        """Delete it, unless another process is at work on it; return whether it is gone.

        Raises:
            UserError: It cannot be deleted.
        """
        lock = None if self.lock is None else FileLock(self.lock)
        try:
            with nullcontext() if lock is None else lock.acquire(blocking=False):
                for path in self.files:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink(missing_ok=True)
                if self.lock is not None:
                    self.lock.unlink(missing_ok=True)
        except Timeout:
            return False
        except OSError as error:
            raise UserError(f"'{error.filename or self.files[0]}' cannot be removed: {error.strerror}") from error
        return True


def list_cache() -> list[CacheEntry]:
    """Return everything in the cache, kind by kind and the newest first."""
    root = cache_dir()
    found = [
        *_images(root / "images"),
        *_models(root / "models"),
        *_predictions(root / "metrics"),
        *_unfinished(root),
        *_downloads(root / "datasets"),
    ]
    order = list(KINDS)
    return sorted(found, key=lambda entry: (order.index(entry.kind), -entry.modified))


def _images(folder: Path) -> Iterator[CacheEntry]:
    for path in folder.glob("*.safetensors"):
        yield _entry("images", [path, path.with_suffix(SUFFIX)])


def _predictions(folder: Path) -> Iterator[CacheEntry]:
    for path in folder.glob("*.safetensors"):
        yield _entry("predictions", [path, path.with_suffix(SUFFIX)])


def _models(folder: Path) -> Iterator[CacheEntry]:
    parts: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in folder.glob("[!.]*"):
        parts[path.stem][path.suffix] = path
    for found in parts.values():
        lock = found.pop(".lock", None)
        first = ".json" if ".json" in found else ".partial"
        if first in found:
            files = sorted(found.values(), key=lambda path: path.suffix != first)
            yield _entry("models" if first == ".json" else "snapshots", files, lock)
        elif ".safetensors" in found or SUFFIX in found:
            yield _entry("unfinished", list(found.values()), lock)


def _unfinished(root: Path) -> Iterator[CacheEntry]:
    for path in (root / "decoding").glob("[!.]*"):
        if path.is_dir():
            yield _entry("unfinished", [path], path.with_name(f"{path.name}.lock"), note=path / "images")
    for path in root.glob("*/.*"):
        if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _TEMPORARY_SECONDS:
            yield _entry("unfinished", [path])


def _downloads(folder: Path) -> Iterator[CacheEntry]:
    for path in folder.glob("[!.]*"):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) or path.stat().st_size
        yield CacheEntry("downloads", (path,), size, path.stat().st_mtime, dataset=path.name)


def _entry(kind: Kind, files: Iterable[Path], lock: Path | None = None, note: Path | None = None) -> CacheEntry:
    there = tuple(path for path in files if path.exists())
    every = [path for path in there if not path.is_dir()]
    every += [file for path in there if path.is_dir() for file in path.rglob("*") if file.is_file()]
    status = [path.stat() for path in every]
    origin = read_origin(note or there[0]) or {}
    without = origin.get("without")
    return CacheEntry(
        kind,
        there,
        sum(one.st_size for one in status),
        max((one.st_mtime for one in status), default=time.time()),
        origin.get("source"),
        str(origin.get("dataset", "")),
        origin.get("fingerprint"),
        str(origin.get("model", "")),
        None if without is None else tuple(without),
        lock,
    )


def _damage_of_model(record: Path) -> str | None:
    try:
        body = json.loads(record.read_bytes())
        if body["sha256"] != json_sha256(body["content"]):
            return "its record is not what was written"
        if body["content"]["weights"] != file_sha256(record.with_suffix(".safetensors")):
            return "its weights are not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its record cannot be read ({type(error).__name__})"
    return None


@dataclass(frozen=True)
class RunData:
    """Data of a run, as the cache knows them: place, hash, and the hashes of what the run's Retrain has not seen."""

    source: str
    fingerprint: str
    without: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> RunData:
        """Read it from a run folder.

        Raises:
            UserError: It holds no finished run.
        """
        if not (folder / LAST).is_file() or not (folder / "config.json").is_file():
            raise UserError(f"'{folder}' holds no finished run; expected its folder")
        config = read_json(folder / "config.json")
        split = read_json(folder / "split.json") if (folder / "split.json").is_file() else {}
        without = tuple(split[part]["sha256"] for part in ("forget", "excluded") if part in split)
        return cls(_source(config), str(config["fingerprint"]), without)

    def holds(self, entry: CacheEntry) -> bool:
        """Tell whether an entry is made of these data, forgotten samples among them or not known to be absent."""
        if entry.kind == "downloads" or (entry.without is not None and entry.without == self.without):
            return False
        if entry.fingerprint == self.fingerprint:
            return True
        return is_of(entry, self.source)


def is_of(entry: CacheEntry, source: str) -> bool:
    """Tell whether an entry is made of the data of ``source``, or of a part of that folder."""
    return entry.source is not None and (entry.source == source or Path(source) in Path(entry.source).parents)


def _source(config: Mapping[str, Any]) -> str:
    if "data" in config.get(IN_MEMORY, ()):
        return f"in memory: {config['dataset']}, {config['fingerprint'][:12]}"
    request = data_of_run(config)
    return place_of(request.dataset, request.data_dir)


def place_of(dataset: str, data_dir: Path | None = None) -> str:
    """Return ``Dataset.place`` of a data set, also of one that has been deleted.

    Raises:
        UserError: There is no such data set, and nothing in the cache is made of one.
    """
    try:
        return source_of(dataset, data_dir)
    except UserError:
        place = str((data_dir or Path(_PART.sub("", dataset))).expanduser().resolve())
        if any(is_of(entry, place) for entry in list_cache()):
            return place
        raise


def entries_of(place: str) -> tuple[CacheEntry, ...]:
    """Return what the cache holds of the data at a place, downloads aside."""
    return tuple(entry for entry in list_cache() if entry.kind != "downloads" and is_of(entry, place))


@dataclass(frozen=True)
class Remains:
    """Where the forgotten data of a finished run are still.

    Attributes:
        entries: In the cache: everything that is made of the run's data, but for what was trained without the forgotten
            samples.
        unknown: Entries of earlier versions that do not say what they are made of.
        initial_model: The file of the model before unlearning, where it was given; it is not this package's to delete.
        pictures: Whether the report may show images of the data.
    """

    entries: tuple[CacheEntry, ...]
    unknown: tuple[CacheEntry, ...]
    initial_model: str | None
    pictures: bool


def remains_of(folder: Path) -> Remains:
    """Find where the forgotten data of a finished run are still.

    Raises:
        UserError: The folder holds no finished run.
    """
    run, config = RunData.of(folder), read_json(folder / "config.json")
    entries = list_cache()
    unknown = (entry for entry in entries if entry.source is None and entry.checkable)
    given = (config.get("weights") or config.get("model")) if config.get("checkpoint_sha256") is not None else None
    return Remains(
        tuple(entry for entry in entries if run.holds(entry) or (entry.kind == "unfinished" and entry.source is None)),
        tuple(unknown),
        None if given is None else str(given),
        any((folder / PICTURES / name).is_file() for name in ("forgotten.svg", "mixes.svg")),
    )


@dataclass(frozen=True)
class Purged:
    """What a purge has removed, and the entries that another process is at work on and that stay."""

    removed: tuple[CacheEntry, ...]
    in_use: tuple[CacheEntry, ...]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number and bytes of what was removed, by kind."""
        found: dict[str, dict[str, int]] = {}
        for entry in self.removed:
            counted = found.setdefault(entry.kind, {"count": 0, "bytes": 0})
            counted["count"] += 1
            counted["bytes"] += entry.size
        return found


def purge(entries: Iterable[CacheEntry]) -> Purged:
    """Delete entries of the cache.

    Raises:
        UserError: One cannot be deleted; those before it are gone.
    """
    done = [(entry, entry.remove()) for entry in entries]
    return Purged(tuple(entry for entry, gone in done if gone), tuple(entry for entry, gone in done if not gone))


def purge_run(folder: Path) -> Purged:
    """Delete from the cache what is made of a finished run's data, and say so in the run's deletion record.

    What was trained without the forgotten samples stays. So do the data set itself and a model file that the run was
    given: they are the user's.

    Raises:
        UserError: The folder holds no finished run, or something cannot be deleted or written.
    """
    done = purge(remains_of(folder).entries)
    if (folder / RECORD).is_file():
        events = read_json(folder / PURGE)["events"] if (folder / PURGE).is_file() else []
        event = {"time": utc_now(), "removed": done.counts, "in_use": len(done.in_use)}
        write_json(folder / PURGE, {"format": PURGE_FORMAT, "events": [*events, event]})
        write_report(folder)
    return done
