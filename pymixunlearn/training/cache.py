"""Cache of trained models on disk, so that no model is trained twice.

An entry is files named by the sha256 of its key: ``.safetensors`` (weights), ``.json`` (the key in full, seconds,
history, and the hashes of both files), ``.about`` (which data) and ``.lock``. While a training runs, ``.partial`` holds
its last epoch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import nn

from pymixunlearn.data import ImageSet, Preprocess, TrainingSet
from pymixunlearn.data.cache_origin import note_origin
from pymixunlearn.errors import UserError
from pymixunlearn.files import canonical_json, file_sha256, json_sha256, sha256, write_atomically
from pymixunlearn.models.registry import beyond_weights
from pymixunlearn.parallel import processes
from pymixunlearn.training.checkpoints import load_model, model_hash, save_model
from pymixunlearn.training.loop import Callback, StateDict
from pymixunlearn.training.snapshots import SnapshotFile
from pymixunlearn.training.supervised import TrainResult

_LOG = logging.getLogger(__name__)


class Trainer(Protocol):
    """A training that can be watched and continued: ``train`` with everything else filled in."""

    def __call__(self, *, callbacks: Sequence[Callback], resume: StateDict | None) -> TrainResult:
        """Train from ``resume`` (or from the start), telling ``callbacks`` of every epoch."""


class SettingsLike(Protocol):
    """Settings of a training or of an unlearning method."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""


@dataclass(frozen=True)
class CachedModel:
    """A model from the cache, or trained for it just now.

    Attributes:
        model: On the CPU, in evaluation mode.
        seconds: What its training took, also when that was in an earlier run.
        history: One record per epoch of its training.
        hit: Whether it was in the cache.

    Example:
        >>> from torch import nn
        >>> CachedModel(nn.Linear(2, 2), seconds=1.5, history=[], hit=True).hit
        True
    """

    model: nn.Module
    seconds: float
    history: list[dict[str, float]]
    hit: bool


class ModelStore(Protocol):
    """Store of trained models by what determines them; it may drop any.

    Example:
        >>> class InMemory:
        ...     def __init__(self): self.models = {}
        ...     def get(self, key, *, into=None): return self.models.get(str(key))
        ...     def put(self, key, result):
        ...         self.models[str(key)] = CachedModel(result.model, result.seconds, result.history, hit=True)
        >>> from torch import nn
        >>> store = InMemory()
        >>> store.put({"seed": 0}, TrainResult(nn.Linear(2, 2), 1.5, []))
        >>> store.get({"seed": 0}).seconds
        1.5
    """

    def get(self, key: Mapping[str, Any], *, into: nn.Module | None = None) -> CachedModel | None:
        """Return the model of ``key``, or None where none is stored."""

    def put(self, key: Mapping[str, Any], result: TrainResult) -> None:
        """Store a model under ``key``, JSON-able; the model itself is left as it is."""


def training_key(
    model: nn.Module,
    images: ImageSet | TrainingSet,
    preprocess: Preprocess,
    config: SettingsLike,
    *,
    device: torch.device,
    seed: int,
) -> dict[str, Any]:
    """Return everything that determines what ``fit`` makes of ``model``, as JSON-able values.

    Args:
        model: The model before its training; its weights count, not only its architecture, and where no name says
            that, its structure and the code of its classes.
        images: The training set; its pixels and targets count, so two splits never share an entry.
        preprocess: As given to ``fit``.
        config: As given to ``fit``.
        device: Where to train. On the CPU the number of threads counts too: it changes the order of sums.
        seed: As given to ``fit``.

    Example:
        >>> from pymixunlearn import data, models, training
        >>> digits = data.load("digits")
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> device, config = training.resolve_device("cpu"), training.TrainConfig(epochs=1)
        >>> key = training_key(model, digits.train, digits.preprocess, config, device=device, seed=0)
        >>> key["seed"], key["config"]["epochs"], key["device"]
        (0, 1, 'cpu')
    """
    return {
        "architecture": getattr(model, "architecture", type(model).__qualname__),
        "weights": model_hash(model),
        **beyond_weights(model),
        "images": images.fingerprint(),
        "preprocess": preprocess.to_dict(),
        "config": config.to_dict(),
        "seed": seed,
        **rounding_key(device),
        # Their number is left open, so that another number of processes can go on with a training.
        **({"processes": "several"} if processes() > 1 else {}),
    }


def rounding_key(device: torch.device) -> dict[str, str]:
    """Return what determines how a computation rounds beside its own inputs: device, machine and versions."""
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return {
        "device": device.type,
        "machine": machine,
        "torch": torch.__version__,
        "pymixunlearn": _package_version(),
    }


class ModelCache:
    """A folder of trained models, safe for several processes at once.

    Args:
        root: The folder; created when first written to.
        origin: What the models are made of, JSON-able; noted beside each that is trained, stored or found.

    Example:
        >>> import tempfile
        >>> from pymixunlearn import models, training
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> cache = ModelCache(tempfile.mkdtemp())
        >>> cache.get({"example": 1}) is None
        True
        >>> cache.put({"example": 1}, training.TrainResult(model, 2.0, []))
        >>> found = cache.get({"example": 1})
        >>> found.seconds, training.model_hash(found.model) == training.model_hash(model)
        (2.0, True)
    """

    def __init__(self, root: str | Path, *, origin: Mapping[str, Any] | None = None) -> None:
        """Remember the folder."""
        self.root = Path(root)
        self._origin = origin

    def place(self, key: Mapping[str, Any]) -> Path:
        """Return the file that holds the record of ``key``, whether it is there or not; its others have its stem."""
        return _Entry(self.root, canonical_json(key)).record

    def get_or_train(self, key: Mapping[str, Any], build: Trainer, *, into: nn.Module | None = None) -> CachedModel:
        """Return the model of ``key``, training it when the cache has none that is intact.

        A second process that wants the same model waits for the first. An interrupted training (Ctrl-C, a crash)
        continues from its last complete epoch at the next call. A folder that cannot be written is read all the same;
        a warning says that what is trained is not stored.

        Args:
            key: Everything that determines the model, JSON-able (:func:`training_key`).
            build: Trains the model, with the callbacks and the snapshot it is given; it is called again without a
                snapshot if it rejects the one it was given.
            into: A module to fill on a hit; only for networks that ``models.build`` does not know.

        Raises:
            UserError: ``build`` raised it.
        """
        entry = _Entry(self.root, canonical_json(key))
        with entry.locked():
            self._note(entry)
            cached = entry.read(into)
            if cached is not None:
                return cached
            result = _trained(build, entry)
            model = result.model.cpu().eval()
            entry.write(model, result)
            return CachedModel(model, result.seconds, result.history, hit=False)

    def get(self, key: Mapping[str, Any], *, into: nn.Module | None = None) -> CachedModel | None:
        """Return the model of ``key`` if the cache has one that is intact.

        Args:
            key: As given to :meth:`put`.
            into: As for :meth:`get_or_train`.
        """
        entry = _Entry(self.root, canonical_json(key))
        if not entry.record.exists():
            return None
        with entry.locked():
            return entry.read(into)

    def put(self, key: Mapping[str, Any], result: TrainResult) -> None:
        """Store a model that was trained elsewhere, in place of any that ``key`` has already.

        Where the folder cannot be written, a warning says so and nothing is stored.
        """
        entry = _Entry(self.root, canonical_json(key))
        with entry.locked():
            self._note(entry)
            entry.write(result.model, result)

    def _note(self, entry: _Entry) -> None:
        if self._origin is not None:
            note_origin(entry.record, self._origin)


class _Entry:
    """The files of one key."""

    def __init__(self, root: Path, key: str) -> None:
        name = sha256(key.encode())
        self.key = key
        self.weights = root / f"{name}.safetensors"
        self.record = root / f"{name}.json"
        self.snapshot = SnapshotFile(root / f"{name}.partial", "training", spare=_LOG.warning)
        self._lock = FileLock(root / f"{name}.lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the entry's lock for a block, waiting for whoever has it; without one where it cannot be written."""
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                _LOG.info("another process is training this model; waiting for it")
                self._lock.acquire()
        except OSError as error:
            self.snapshot.enabled = False
            warn_not_stored(self.record.parent, "models", error.strerror or error)
        try:
            yield
        finally:
            self._lock.release()

    def read(self, into: nn.Module | None) -> CachedModel | None:
        """Return the stored model, or None when there is none or a file is not what was written."""
        if not self.record.exists():
            return None
        try:
            body = json.loads(self.record.read_bytes())
            content = body["content"]
            intact = body["sha256"] == json_sha256(content) and canonical_json(content["key"]) == self.key
            if not intact or content["weights"] != file_sha256(self.weights):
                raise ValueError("a hash differs")
            # Whoever knows the key has built the network with the same code already.
            model = load_model(self.weights, into=into, allow_code=True)
            found = CachedModel(model, content["seconds"], content["history"], hit=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("cache entry '%s' is corrupt (%s); training the model again", self.record, error)
            return None
        with suppress(OSError):  # of a process that was killed right after it had stored the model
            self.snapshot.discard()
        return found

    def write(self, model: nn.Module, result: TrainResult) -> None:
        """Store a model, or say why not: the model is there, and a full cache only costs the next run time."""
        if not self.snapshot.enabled:
            return
        try:
            self._write(model, result)
        except (UserError, OSError) as error:
            _LOG.warning("the model is not cached: %s", error)

    def _write(self, model: nn.Module, result: TrainResult) -> None:
        """Store a model. The record goes last: without it, or with another's hash in it, the weights do not count."""
        save_model(self.weights, model)
        content = {
            "key": json.loads(self.key),
            "weights": file_sha256(self.weights),
            "seconds": result.seconds,
            "history": result.history,
        }
        body = {"sha256": json_sha256(content), "content": content}
        write_atomically(self.record, json.dumps(body, indent=1).encode())
        self.snapshot.discard()


_warned: set[Path] = set()


def warn_not_stored(folder: Path, what: str, reason: object) -> None:
    """Warn, once for each folder of a cache, that it is read, but that nothing can be stored in it.

    Args:
        folder: The folder.
        what: What would be stored: "models".
        reason: Why it cannot be written.
    """
    if folder not in _warned:
        _warned.add(folder)
        _LOG.warning("%s are not stored in the cache '%s', only read from it: %s", what, folder, reason)


def _trained(build: Trainer, entry: _Entry) -> TrainResult:
    """Train, from the entry's snapshot where there is one that the training takes."""

    def attempt(resume: StateDict | None) -> TrainResult:
        return build(callbacks=[entry.snapshot], resume=resume)

    return entry.snapshot.run(attempt, _LOG.warning)


def _package_version() -> str:
    """Return the installed version, or "unknown" when the package runs from its sources."""
    try:
        return metadata.version("pymixunlearn")
    except metadata.PackageNotFoundError:
        return "unknown"
