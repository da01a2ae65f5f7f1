"""Samples of a manifest found again by their ids in data that grew or changed their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pymixunlearn.data.classes import with_classes
from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.tasks.manifest import JSON

PARTS = ("train", "test", "validation")


def samples_entry(dataset: Dataset) -> dict[str, JSON]:
    """Return what a manifest says of all samples: the kind of their ids, and the ids where they are names.

    Hashes of pixels are not listed: data without names are built in, or in memory, and their order is their own.
    """
    kind = dataset.train.id_kind
    entry: dict[str, JSON] = {"kind": kind, "classes": list(dataset.train.classes)}
    if kind != "content":
        entry |= {name: list(part.ids) for name, part in parts_of(dataset).items()}
    return entry


def ids_at(images: ImageSet, indices: Tensor) -> list[str]:
    """Return the ids of the samples at ``indices``."""
    ids = images.ids
    return [ids[index] for index in indices.tolist()]


def same_data(dataset: Dataset, manifest: Mapping[str, Any]) -> Dataset | None:
    """Return the data that a manifest was made for, in its order, out of data that hold them; None where they do not.

    Args:
        dataset: The data, perhaps with further samples, or in another order.
        manifest: The content of a ``split.json``.
    """
    stated = manifest["dataset"]["fingerprint"]
    if dataset.fingerprint() == stated:
        return dataset
    samples = manifest.get("samples")
    if not isinstance(samples, Mapping) or samples.get("kind") != dataset.train.id_kind or "train" not in samples:
        return None
    try:
        chosen = {}
        for name, images in parts_of(dataset).items():
            if name in samples:
                place = {key: index for index, key in enumerate(images.ids)}
                chosen[name] = images.subset(torch.tensor([place[key] for key in samples[name]], dtype=torch.int64))
        found = with_classes(replace(dataset, **chosen), samples["classes"])  # type: ignore[arg-type]
    except (KeyError, TypeError, UserError):  # a sample is gone, or of a class that the manifest does not know
        return None
    return found if found.fingerprint() == stated else None


def indices_of(manifest: Mapping[str, Any], dataset: Dataset) -> dict[str, Tensor] | None:
    """Return where the samples that a manifest forgot, and those that were forgotten before it, are in other data.

    Args:
        manifest: The content of a ``split.json``.
        dataset: Other data, such as the same ones after files came or went.

    Returns:
        Sorted int64 indices by part, "train" always; None where ids cannot tell, since the manifest has none, or of
        another kind, or its names are hardly any of these data's.
    """
    samples = manifest.get("samples")
    if not isinstance(samples, Mapping) or samples.get("kind") != dataset.train.id_kind:
        return None
    if "train" in samples:
        # Two collections may both have a file "cat/0.jpg".
        shared = len(set(samples["train"]) & set(dataset.train.ids))
        if 2 * shared < min(len(samples["train"]), len(dataset.train)):
            return None
    listed: dict[str, list[str]] = {"train": []}
    for key in ("forget", "excluded"):
        listed["train"] += manifest.get(key, {}).get("ids", [])
    for part, entry in manifest.get("removed", {}).items():
        listed[part] = entry.get("ids", [])
    found = {}
    for part, images in parts_of(dataset).items():
        names = set(listed.get(part, ()))
        places = [index for index, key in enumerate(images.ids) if key in names] if names else []
        found[part] = torch.tensor(places, dtype=torch.int64)
    return found


def parts_of(dataset: Dataset) -> dict[str, ImageSet]:
    """Return the parts of a data set by name, without a validation set where there is none."""
    parts = zip(PARTS, (dataset.train, dataset.test, dataset.validation), strict=True)
    return {name: part for name, part in parts if part is not None}
