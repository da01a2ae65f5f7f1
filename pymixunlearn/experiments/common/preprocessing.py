"""Preprocessing as a model config says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pymixunlearn.data import Preprocess
from pymixunlearn.errors import UserError, unknown_name

_AUGMENTATIONS: dict[str, dict[str, bool]] = {
    "none": {"random_crop": False, "flip": False},
    "flip": {"random_crop": False, "flip": True},
    "crop": {"random_crop": True, "flip": False},
    "crop and flip": {"random_crop": True, "flip": True},
}


def read_preprocessing(content: Mapping[str, Any], source: str) -> Preprocess:
    """Return the preprocessing of a mapping: the fields of :class:`pymixunlearn.data.Preprocess`, and "augmentation".

    Raises:
        UserError: A field is unknown or of the wrong kind.

    Example:
        >>> read_preprocessing({"size": 224, "mean": [0.5], "std": [0.5], "augmentation": "flip"}, "the config").flip
        True
    """
    values = dict(content)
    if "augmentation" in values:
        name = str(values.pop("augmentation") or "none").lower()
        if name not in _AUGMENTATIONS:
            raise unknown_name(f"augmentation in {source}:", name, _AUGMENTATIONS)
        values.update(_AUGMENTATIONS[name])
    known = [*(field.name for field in fields(Preprocess)), "augmentation"]
    for name in values:
        if name not in known:
            raise unknown_name(f"preprocessing field in {source}:", str(name), known)
    try:
        return Preprocess.from_dict(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"preprocessing in {source}: {error}") from error
