"""A network that is asked for by specification, model config and data: the arguments of ``models.build``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymixunlearn import models
from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.model_config import ModelConfig
from pymixunlearn.models.class_map import map_by_name, map_of
from pymixunlearn.models.origins.hugging_face import read_description
from pymixunlearn.models.specification import Specification, parse_specification
from pymixunlearn.models.weight_files import weights_in

START = ("pretrained", "pretrained_sha256")
"""What an architecture says of the weights that a training starts from."""


@dataclass(frozen=True)
class Network:
    """A network that was asked for by specification.

    Attributes:
        architecture: The arguments of ``models.build``.
        weights: Where its weights are, for a specification that brings them along.
        notes: As of :class:`InitialModel`.
    """

    architecture: dict[str, Any]
    weights: Path | None = None
    notes: tuple[str, ...] = ()


def network_of(given: str, config: ModelConfig, dataset: Dataset) -> Network:
    """Return the arguments of ``models.build`` for a specification, a model config and the data."""
    if given in models.available():
        specification = Specification("built-in", given)
    else:
        specification = parse_specification(given)
    architecture: dict[str, Any] = architecture_for(lasting(given), dataset)
    if specification.kind == "hf":
        architecture["description"] = dict(config.description or read_description(specification.source))
    class_map, outputs, notes = _classes(given, config, dataset, architecture.get("description"))
    further = {
        "arguments": dict(config.arguments),
        "class_map": class_map,
        "outputs": outputs,
        "feature_layer": config.feature_layer,
        "embedding_layer": config.embedding_layer,
        "code_sha256": config.code_sha256 if config.model == given else None,
    }
    architecture.update({key: value for key, value in further.items() if value})
    # A library's weights are the model itself where its outputs are the classes, and the start of a training otherwise.
    brings = specification.kind == "hf" and config.pretrained is None and _has_weights(specification.source)
    if brings and outputs is None:
        brings = len(architecture["description"].get("id2label") or {}) in (0, dataset.num_classes)
        if not brings:
            labels = len(architecture["description"]["id2label"])
            raise UserError(
                f"model '{given}' has {labels} outputs and the data {dataset.num_classes} classes, which its labels do "
                "not name; expected a class_map in --model-config, or 'pretrained: true' there to train a new head"
            )
    known = class_map is not None or config.classes is not None
    if brings or (config.pretrained is True and known):
        return Network(architecture, Path(specification.source), notes)
    if isinstance(config.pretrained, str):
        architecture["pretrained"] = os.path.abspath(Path(config.pretrained).expanduser())
        architecture |= {} if config.pretrained_sha256 is None else {"pretrained_sha256": config.pretrained_sha256}
    elif config.pretrained:
        architecture["pretrained"] = True
    return Network(architecture, None, notes)


def _classes(
    given: str, config: ModelConfig, dataset: Dataset, description: Mapping[str, Any] | None
) -> tuple[list[int] | None, int | None, tuple[str, ...]]:
    """Return class map, number of outputs (None where they are the classes in their order) and notes."""
    names, classes = config.output_names, dataset.train.classes
    outputs = config.outputs
    if config.class_map is not None:
        class_map = map_of(config.class_map, classes, names)
        outputs = outputs or (len(names) if names else _labels(description) or config.num_classes or max(class_map) + 1)
        return (None, None, ()) if class_map == list(range(outputs)) else (class_map, outputs, ())
    if names is None and description is not None:
        labels = description.get("id2label") or {}
        ordered = [str(label) for _, label in sorted(labels.items(), key=lambda item: int(item[0]))]
        if set(classes) <= set(ordered):
            names = ordered
        elif len(ordered) == len(classes) and not all(name.startswith("LABEL_") for name in ordered):
            note = (
                f"The labels of '{given}' ({', '.join(ordered[:3])}, …) are not the names of the classes "
                f"({', '.join(classes[:3])}, …): they are taken in their order."
            )
            return None, None, (note,)
    if names is None:
        if outputs is not None and outputs != dataset.num_classes:
            raise UserError(
                f"model '{given}' has {outputs} outputs and the data {dataset.num_classes} classes; expected classes "
                "or class_map in --model-config, which say what stands for what"
            )
        return None, None, ()
    if list(names) == list(classes):
        return None, None, ()
    class_map = map_by_name(classes, names, f"model '{given}'")
    return class_map, len(names), ()


def _labels(description: Mapping[str, Any] | None) -> int | None:
    return None if description is None else len(description.get("id2label") or {}) or None


def _has_weights(source: str) -> bool:
    """Tell whether a Hugging Face model comes with weights; a name on the hub does."""
    folder = Path(source).expanduser()
    return not folder.is_dir() or weights_in(folder) is not None


def lasting(given: str) -> str:
    """Return a specification that means the same in every working directory."""
    specification = parse_specification(given)
    if specification.kind == "file":
        return f"{Path(specification.source).expanduser().resolve()}:{specification.factory}"
    if specification.kind == "hf" and Path(specification.source).expanduser().is_dir():
        return f"hf:{Path(specification.source).expanduser().resolve()}"
    return given


def default_network(dataset: Dataset) -> str:
    """Return the paper's network for such images: ``cnn`` for one channel, ``resnet18`` for colour."""
    return "cnn" if dataset.in_channels == 1 else "resnet18"


def architecture_for(name: str, dataset: Dataset) -> dict[str, Any]:
    """Return the arguments of ``models.build`` that follow from the data."""
    return {
        "name": name,
        "num_classes": dataset.num_classes,
        "in_channels": dataset.in_channels,
        "image_size": dataset.image_size,
    }
