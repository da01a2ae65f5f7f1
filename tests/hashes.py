"""What two runs of the same inputs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hashes_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashes of the models of a run, without that of the file, whose header has the run's own key in it."""
    return {name: value for name, value in record["hashes"].items() if name != "model.safetensors"}
