"""Metrics cached on disk: an initial model and Retrain are measured once, however many methods are compared with them.

An entry is named by the sha256 of its key: a hash in the first line, then a safetensors file with the model's
predictions, and in its header the key in full and the numbers. It is written whole; one that is damaged is measured
again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from pymixunlearn.data import cache_dir
from pymixunlearn.data.cache_origin import note_origin
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import Metrics
from pymixunlearn.evaluation.plugged import plugged_metrics
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.experiments.common.cache_exchange import exchanged
from pymixunlearn.experiments.common.identity import data_identity, origin_of
from pymixunlearn.files import read_with_hash, write_with_hash
from pymixunlearn.tasks import Split
from pymixunlearn.training import model_hash
from pymixunlearn.training.cache import rounding_key, warn_not_stored

_LOG = logging.getLogger(__name__)
_FIELD = "pymixunlearn"


def cached_metrics(
    network: nn.Module,
    split: Split,
    reference: nn.Module | None,
    measured: Metrics | None,
    device: torch.device,
    settings: Mapping[str, Any],
    measure: Callable[[], Metrics],
) -> Metrics:
    """Return what was measured before of the same model on the same samples, or measure it now and cache it.

    Args:
        network: The model.
        split: The samples.
        reference: Retrain, where the model is compared with it and is not Retrain itself.
        measured: The metrics of ``reference``.
        device: Where it is computed.
        settings: What else determines the metrics, JSON-able.
        measure: Computes them.
    """
    key = {
        "model": model_hash(network),
        "reference": None if reference is None else model_hash(reference),
        **data_identity(split),
        **rounding_key(device),
        **settings,
        **({"plugged": _codes()} if plugged_metrics() else {}),
    }
    text = json.dumps(key, sort_keys=True)
    path = cache_dir() / "metrics" / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
    with exchanged(path):
        note_origin(path, origin_of(split, "predictions"))
        found = _read(path, text, split, measured)
        if found is None:
            found = measure()
            _write(path, text, found)
        return found


def _codes() -> dict[str, str]:
    """Return what tells a plug-in's metric from another version of it, by key."""
    codes = {}
    for key, plugged in plugged_metrics().items():
        code = getattr(plugged.compute, "__code__", None)
        text = repr((plugged.summary, code and (code.co_code, code.co_names)))
        codes[key] = hashlib.sha256(text.encode()).hexdigest()
    return codes


def _read(path: Path, key: str, split: Split, reference: Metrics | None) -> Metrics | None:
    if not path.exists():
        return None
    try:
        content = read_with_hash(path)
        if content is None:
            raise ValueError("it is not what was written")
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_FIELD])
        tensors = load(content)
        if header["key"] != key:
            raise ValueError("it is of another model")
        predictions = Predictions(split, tensors["train"], tensors["test"], tensors.get("augmented"))
        return Metrics(header["values"], reference, details=header["details"], predictions=predictions)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        _LOG.warning("cached metrics '%s' cannot be read (%s); measuring again", path, error)
        return None


def _write(path: Path, key: str, metrics: Metrics) -> None:
    predictions = metrics.predictions
    assert predictions is not None  # they were just measured
    tensors = {"train": predictions.train, "test": predictions.test}
    if predictions.augmented is not None:
        tensors["augmented"] = predictions.augmented
    header = {"key": key, "values": dict(metrics), "details": metrics.details}
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {_FIELD: json.dumps(header)})
    try:
        write_with_hash(path, content)
    except UserError as error:  # a cache that is full or read-only costs time, not the run
        warn_not_stored(path.parent, "metrics", error)
