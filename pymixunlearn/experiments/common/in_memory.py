"""Models that a caller has in memory and that no name builds again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from pymixunlearn import models
from pymixunlearn.data import Dataset
from pymixunlearn.models.registry import structure_hash
from pymixunlearn.training import fresh_weights

_PREFIX = "object:"


def object_architecture(network: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """Return what a record says of a network that ``models.build`` does not know: class, shapes and structure."""
    return {
        "name": f"{_PREFIX}{type(network).__qualname__}",
        "num_classes": dataset.num_classes,
        "in_channels": dataset.in_channels,
        "image_size": dataset.image_size,
        "structure_sha256": structure_hash(network),
    }


def is_object(architecture: Mapping[str, Any]) -> bool:
    """Tell whether an architecture is that of a network in memory, which cannot be built from its name."""
    return str(architecture["name"]).startswith(_PREFIX)


def untrained(architecture: Mapping[str, Any], network: nn.Module | None, seed: int) -> nn.Module:
    """Return a network with fresh weights: one of ``models.build``, or one like ``network``, which is left as it is.

    Raises:
        UserError: A layer of ``network`` cannot reset its weights.
    """
    if network is None or not is_object(architecture):
        return models.build(**architecture, seed=seed)
    return fresh_weights(copy.deepcopy(network), seed)
