"""Manifest of a split: its JSON form, read with every field checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pymixunlearn.errors import UserError, reason_of

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

MANIFEST_FORMAT = "pymixunlearn-split/1"


def read_manifest(path: Path) -> Mapping[str, Any]:
    """Parse a manifest and check that every field that is used has its type.

    Raises:
        UserError: The file cannot be read, or is not a manifest.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as a split manifest: {reason_of(error)}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise UserError(f"'{path}' is not a split manifest: expected a JSON object with format '{MANIFEST_FORMAT}'")
    kinds = {"dataset": dict, "task": str, "params": dict, "seed": int, "forget": dict, "retain": dict}
    needed = {"dataset": ("name", "fingerprint"), "forget": ("indices", "sha256"), "retain": ("sha256",)}
    if manifest.get("task") == "noisy":
        kinds["labels"], needed["labels"] = dict, ("targets", "sha256")
    for part in ("unlabelled", "excluded"):
        if part in manifest or (part == "unlabelled" and manifest.get("task") == "semi"):
            kinds[part], needed[part] = dict, ("indices", "sha256")
    if "history" in manifest:
        kinds["history"] = dict
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise UserError(f"'{path}' is not a split manifest: expected '{key}' to be of type {kind.__name__}")
    for key, names in needed.items():
        for name in names:
            if name not in manifest[key]:
                raise UserError(f"'{path}' is not a split manifest: expected '{name}' in '{key}'")
    if not isinstance(manifest.get("validation", {}), dict):
        raise UserError(f"'{path}' is not a split manifest: expected 'validation' to be of type dict")
    removed = manifest.get("removed", {})
    parts = removed.values() if isinstance(removed, dict) else [None]
    if not all(isinstance(part, dict) and {"indices", "sha256"} <= set(part) for part in parts):
        raise UserError(f"'{path}' is not a split manifest: expected 'indices' and 'sha256' in each part of 'removed'")
    return manifest
