"""Identity of a run: what determines its outcome, as JSON, and a short hash of it for names of folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymixunlearn.data import Dataset
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages, image_hashes
from pymixunlearn.experiments.common.history_request import HistoryRequest
from pymixunlearn.files import json_sha256, sha256
from pymixunlearn.tasks import Split, indices_sha256

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


def attack_form(asr: str) -> dict[str, str]:
    """Return what a run's identity and record say of the attack's form: nothing of the package's own."""
    return {} if asr == "default" else {"asr": asr}


def history_identity(history: HistoryRequest) -> dict[str, Any]:
    """Return what says that a run sets earlier requests aside; nothing where it does not."""
    return {} if history.forget_history == "keep" else {"forget_history": history.forget_history}


def origin_of(data: Split | Dataset, model: str = "", *, forgotten: bool = False) -> dict[str, Any]:
    """Return what a cached file was made of, for ``mixunlearn-cli cache``, JSON-able.

    Args:
        data: The data set, or the split of it.
        model: What was trained, in a few words.
        forgotten: Whether a model was trained without D_f and without what had been forgotten before.
    """
    split = data if isinstance(data, Split) else None
    dataset = data if isinstance(data, Dataset) else data.origin or data.dataset
    left_out = None
    if split is not None and forgotten:
        unseen = (split.forget_indices, split.excluded_indices)
        left_out = [indices_sha256(indices) for indices in unseen if indices is not None]
    return {
        "dataset": dataset.name,
        "source": dataset.place,
        "fingerprint": dataset.fingerprint(),
        "model": model,
        "without": left_out,
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
