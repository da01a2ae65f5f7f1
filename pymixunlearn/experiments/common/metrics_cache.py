"""Cached metrics: an initial model and Retrain are measured and judged once, however many methods stand beside them.

There are the metrics, and what the acceptance test said. An entry is named by the sha256 of its key: a hash in the
first line, then a safetensors file with the model's predictions, or the margins that the test compared, and in its
header the key in full and the numbers. It is written whole; one that is damaged is measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pymixunlearn.data import cache_dir
from pymixunlearn.data.cache_origin import note_origin
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import Acceptance, Metrics
from pymixunlearn.evaluation.accept import Margins
from pymixunlearn.evaluation.plugged import plugged_metrics
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.experiments.common.cache_exchange import exchanged
from pymixunlearn.experiments.common.identity import data_identity, origin_of
from pymixunlearn.experiments.common.plugins import plugin_code
from pymixunlearn.files import json_sha256, read_with_hash, write_with_hash
from pymixunlearn.models.registry import beyond_weights
from pymixunlearn.tasks import Split
from pymixunlearn.training import model_hash
from pymixunlearn.training.cache import rounding_key, warn_not_stored

_LOG = logging.getLogger(__name__)
_FIELD = "pymixunlearn"
_FOLDER = "metrics"
_COMPARED = ("at_once", "resurfaced")
"""Names of the two parts of the acceptance test, whose margins are kept."""

T = TypeVar("T")


class _Content(NamedTuple):
    """What an entry holds: numbers, JSON-able, and tensors by name."""

    numbers: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


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
    plugged = {"plugged": _codes()} if plugged_metrics() else {}
    key = _key(network, "reference", reference, split, device, {**settings, **plugged})

    def content(metrics: Metrics) -> _Content:
        predictions = metrics.predictions
        assert predictions is not None  # they were just measured
        tensors = {"train": predictions.train, "test": predictions.test}
        if predictions.augmented is not None:
            tensors["augmented"] = predictions.augmented
        return _Content({"values": dict(metrics), "details": metrics.details}, tensors)

    def metrics(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Metrics:
        predictions = Predictions(split, tensors["train"], tensors["test"], tensors.get("augmented"))
        return Metrics(numbers["values"], measured, details=numbers["details"], predictions=predictions)

    return _cached(key, split, measure, content, metrics)


def cached_acceptance(
    network: nn.Module,
    split: Split,
    initial: nn.Module | None,
    device: torch.device,
    settings: Mapping[str, Any],
    measure: Callable[[], Acceptance],
) -> Acceptance:
    """Return what the acceptance test said before of the same model with the same samples, or make it now and cache it.

    Args:
        network: The model.
        split: The samples; its data have a validation set.
        initial: The model before unlearning.
        device: Where it is computed.
        settings: What else determines the test, JSON-able.
        measure: Makes the test.
    """
    key = _key(network, "initial", initial, split, device, {"test": "acceptance", **settings})
    return _cached(key, split, measure, _acceptance_content, _acceptance)


def _acceptance_content(test: Acceptance) -> _Content:
    compared = {} if test.margins is None else dict(zip(_COMPARED, test.margins, strict=True))
    tensors = {
        f"{part}.{side}": torch.from_numpy(margins)
        for part, sides in compared.items()
        for side, margins in sides._asdict().items()
    }
    return _Content(test.to_dict(), tensors)


def _acceptance(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Acceptance:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in numbers.items()
    }
    at_once, resurfaced = (
        Margins(*(tensors[f"{part}.{side}"].numpy() for side in Margins._fields)) if tensors else None
        for part in _COMPARED
    )
    margins = None if at_once is None or resurfaced is None else (at_once, resurfaced)
    return Acceptance(**values, margins=margins)


def _key(
    network: nn.Module,
    beside: str,
    other: nn.Module | None,
    split: Split,
    device: torch.device,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what determines what is measured of a network beside another one, which ``beside`` names."""
    return {
        "model": model_hash(network),
        beside: None if other is None else model_hash(other),
        **_beyond_weights(network=network, **{f"{beside}_network": other}),
        **data_identity(split),
        **rounding_key(device),
        **settings,
    }


def _cached(
    key: Mapping[str, Any],
    split: Split,
    measure: Callable[[], T],
    content: Callable[[T], _Content],
    result: Callable[[Mapping[str, Any], Mapping[str, Tensor]], T],
) -> T:
    """Return the result of an entry, or measure it and write it."""
    text = json.dumps(key, sort_keys=True)
    path = cache_dir() / _FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
    with exchanged(path):
        note_origin(path, origin_of(split, "predictions"))
        if path.exists():
            try:
                return result(*_read(path, text))
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                _LOG.warning("cached metrics '%s' cannot be read (%s); measuring again", path, error)
        found = measure()
        _write(path, text, content(found))
        return found


def _beyond_weights(**networks: nn.Module | None) -> dict[str, Any]:
    """Return what tells networks from others with the same weights, by their names in a key."""
    found = {name: beyond_weights(network) for name, network in networks.items() if network is not None}
    return {name: known for name, known in found.items() if known}


def _codes() -> dict[str, str]:
    """Return what tells a plug-in's metric from another version of it, by key."""
    return {
        key: json_sha256([plugged.summary, plugin_code(plugged.compute)]) for key, plugged in plugged_metrics().items()
    }


def _read(path: Path, key: str) -> _Content:
    content = read_with_hash(path)
    if content is None:
        raise ValueError("it is not what was written")
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_FIELD])
    if header.pop("key") != key:
        raise ValueError("it is of another model")
    return _Content(header, load(content))


def _write(path: Path, key: str, content: _Content) -> None:
    header = json.dumps({"key": key, **content.numbers})
    data = save({name: tensor.contiguous() for name, tensor in content.tensors.items()}, {_FIELD: header})
    try:
        write_with_hash(path, data)
    except UserError as error:  # a cache that is full or read-only costs time, not the run
        warn_not_stored(path.parent, "metrics", error)
