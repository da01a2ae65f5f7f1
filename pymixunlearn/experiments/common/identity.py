"""Identity of a run: what determines its outcome, as JSON, and a short hash of it for names of folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymixunlearn.files import json_sha256
from pymixunlearn.tasks import Split

FORMAT = "pymixunlearn-run/1"


def data_identity(split: Split) -> dict[str, Any]:
    """Return what says which samples a run saw."""
    manifest: dict[str, Any] = split.manifest()
    return {
        "dataset": split.dataset.name,
        "fingerprint": manifest["dataset"]["fingerprint"],
        "preprocess": split.preprocess.to_dict(),
        "task": split.task,
        "params": split.params,
        "forget_sha256": manifest["forget"]["sha256"],
        **{
            f"{part}_sha256": manifest[part]["sha256"]
            for part in ("labels", "unlabelled", "excluded")
            if part in manifest
        },
        **{f"removed_{part}_sha256": entry["sha256"] for part, entry in manifest.get("removed", {}).items()},
    }


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Return a short hash of an identity, for names of folders."""
    return json_sha256(identity)[:8]
