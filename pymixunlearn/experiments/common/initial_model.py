"""Initial model of a command: a network to train, or a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pymixunlearn import models
from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.given import GivenModel
from pymixunlearn.experiments.common.inputs import BadRequest, ModelRequest, check_name
from pymixunlearn.training import load_model, model_hash

CHECKPOINT = "model.safetensors"
"""A model's file in any run folder."""


@dataclass(frozen=True)
class InitialModel:
    """The initial model's network, and its weights where a checkpoint gives them.

    Attributes:
        architecture: The arguments of ``models.build``.
        checkpoint: The file that it was loaded from, or None for a network that is to be trained.
        loaded: The checkpoint's model, on the CPU.
        sha256: The hash of that model's state.
    """

    architecture: dict[str, Any]
    checkpoint: Path | None = None
    loaded: nn.Module | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The network's name."""
        return str(self.architecture["name"])


def choose_model(request: ModelRequest, dataset: Dataset) -> InitialModel:
    """Find the requested model, and check that it fits the data.

    Raises:
        BadRequest: No network has this name and no file is there.
        UserError: The checkpoint is missing, corrupt, or made for other images or classes.
    """
    if isinstance(request, GivenModel):
        return _in_memory(request.network, dataset)
    if request.architecture is not None:
        check_name("architecture", request.architecture, models.available())
    given = request.model
    if given is None or given in models.available():
        if request.architecture is not None:
            raise BadRequest("an architecture is for a checkpoint that does not say its own; give a model file too")
        return InitialModel(_architecture(given or default_network(dataset), dataset))
    path = Path(given).expanduser()
    # "resnet81" is a slip of a name, "models/a.pt" a file that is not there.
    if not path.exists() and not path.suffix and path.name == given:
        check_name("model", given, models.available())
    return load_checkpoint(path, request.architecture, dataset)


def load_checkpoint(path: Path, architecture: str | None, dataset: Dataset) -> InitialModel:
    """Load a checkpoint, given as a file or as the run folder it is in.

    Raises:
        UserError: It is missing, corrupt, or made for other images or classes than ``dataset`` has.
    """
    file = path / CHECKPOINT if path.is_dir() else path
    described = None if architecture is None else _architecture(architecture, dataset)
    model = load_model(file, architecture=described, num_classes=dataset.num_classes)
    found: dict[str, Any] = model.architecture  # type: ignore[assignment]
    _check_fit(found, dataset, f"model checkpoint '{file}'")
    return InitialModel(found, file, model, model_hash(model))


def _in_memory(network: nn.Module, dataset: Dataset) -> InitialModel:
    architecture = getattr(network, "architecture", None)
    if not isinstance(architecture, dict):
        raise UserError(
            f"model is a {type(network).__name__} of your own; expected a model of models.build, a model file or a run "
            "folder (methods.get(NAME)().unlearn(model, split) takes any)"
        )
    _check_fit(architecture, dataset, "model")
    copied = copy.deepcopy(network).cpu()
    return InitialModel(architecture, None, copied, model_hash(copied))


def _check_fit(found: Mapping[str, Any], dataset: Dataset, what: str) -> None:
    """Check that a network takes images like those of ``dataset``.

    Raises:
        UserError: It was made for others.
    """
    wanted = _architecture(str(found["name"]), dataset)
    for key, meaning in (("in_channels", "image channels"), ("image_size", "pixels of image height and width")):
        if found[key] != wanted[key]:
            raise UserError(
                f"{what} was made for {found[key]} {meaning}, but dataset '{dataset.name}' has {wanted[key]}"
            )


def default_network(dataset: Dataset) -> str:
    """Return the paper's network for such images: ``cnn`` for one channel, ``resnet18`` for colour."""
    return "cnn" if dataset.in_channels == 1 else "resnet18"


def _architecture(name: str, dataset: Dataset) -> dict[str, Any]:
    return {
        "name": name,
        "num_classes": dataset.num_classes,
        "in_channels": dataset.in_channels,
        "image_size": dataset.image_size,
    }
