"""Identity of a run: what determines its outcome, as JSON, and a short hash of it for names of folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymixunlearn.data.image_set import ImageSet, UnlabelledImages, image_hashes
from pymixunlearn.files import json_sha256, sha256
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
            for part in ("labels", "unlabelled", "excluded", "validation")
            if part in manifest
        },
        **{f"removed_{part}_sha256": entry["sha256"] for part, entry in manifest.get("removed", {}).items()},
    }


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Return a short hash of an identity, for names of folders."""
    return json_sha256(identity)[:8]


def rest_of(split: Split) -> dict[str, str]:
    """Return a hash of the pixels of D_r and one of the test images: what stays when D_f has been deleted."""
    return {"retain": pixels_sha256(split.retain), "test": pixels_sha256(split.test)}


def pixels_sha256(images: ImageSet | UnlabelledImages) -> str:
    """Return a sha256 of the images' pixels, in order; labels do not count, since a deleted class shifts them."""
    return sha256(b"".join(image_hashes(images)))
