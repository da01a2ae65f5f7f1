"""Initial model of a command: a network to train, or one with weights."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pymixunlearn import models
from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.given import GivenModel
from pymixunlearn.experiments.common.in_memory import is_object, object_architecture
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.model_config import ModelConfig, read_model_config
from pymixunlearn.experiments.common.network import START, Network, architecture_for, default_network, network_of
from pymixunlearn.experiments.common.plugins import plugged_models
from pymixunlearn.models.origins.hugging_face import read_description
from pymixunlearn.models.registry import unknown_model
from pymixunlearn.models.specification import parse_specification
from pymixunlearn.models.weight_files import weights_in
from pymixunlearn.models.weights import load_weights
from pymixunlearn.training import CodeNotAllowed, TrainConfig, defaults_for, load_model, model_hash, read_metadata
from pymixunlearn.training.checkpoints import read_architecture
from pymixunlearn.training.recipes import Kind, kind_of

CHECKPOINT = "model.safetensors"
"""A model's file in any run folder."""


@dataclass(frozen=True)
class InitialModel:
    """The initial model's network, and its weights where they are given.

    Attributes:
        architecture: The arguments of ``models.build``.
        checkpoint: The file or folder that its weights are from, or None for a network that is to be trained.
        loaded: The model with its weights, on the CPU.
        sha256: The hash of that model's state.
        notes: What a reader should know of how it was read.
        trained_elsewhere: Whether another program trained it, so that only its owner knows how accurate it is.
        kind: What kind of network is to be trained, where it is not loaded.
    """

    architecture: dict[str, Any]
    checkpoint: Path | None = None
    loaded: nn.Module | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    trained_elsewhere: bool = False
    kind: Kind = "convolutional"

    @property
    def name(self) -> str:
        """The network's name or specification."""
        return str(self.architecture["name"])

    @property
    def origin(self) -> str:
        """Where the weights are from, for a reader."""
        return "memory" if self.checkpoint is None else f"the checkpoint {self.checkpoint}"

    @property
    def short_name(self) -> str:
        """The name as a part of a folder's name."""
        return re.sub(r"[^\w.-]+", "-", self.name.rpartition("/")[2])

    def defaults(self, purpose: Literal["initial", "retrain"], *, semi_supervised: bool = False) -> TrainConfig:
        """Return the default settings of the network's training."""
        kind = self.kind if self.loaded is None else kind_of(self.loaded)
        pretrained = bool(self.architecture.get("pretrained"))
        return defaults_for(self.name, purpose, semi_supervised=semi_supervised, kind=kind, pretrained=pretrained)


def choose_model(request: ModelRequest, dataset: Dataset, *, start: Path | None = None) -> InitialModel:
    """Find the requested model, and check that it fits the data.

    Args:
        request: What was asked for.
        dataset: The data.
        start: A file of weights that a training is to start from; layers for another number of classes are new.

    Raises:
        BadRequest: No network has this name and no file is there, or choices contradict each other.
        UserError: A file is missing, corrupt, or made for other images or classes; or the model cannot be built.
    """
    if isinstance(request, GivenModel):
        return _in_memory(request.network, dataset)
    if request.model in plugged_models():
        request = replace(request, model=plugged_models()[request.model])
    if request.architecture is not None:
        check_name("architecture", request.architecture, models.available())
    config = config_of(request)
    if start is not None:
        config = replace(config, pretrained=str(start), pretrained_sha256=None)
    given, path = request.model, model_path(request)
    if path is not None:
        if path.is_dir() and is_hugging_face(path):
            given = f"hf:{path}"
        elif request.weights is not None:
            raise BadRequest(
                f"model '{given}' is a file or folder with weights, and --weights gives others; expected one of them"
            )
        else:
            return load_checkpoint(path, request, dataset)
    if request.architecture is not None:
        if given is not None or request.weights is None:
            raise BadRequest("an architecture is for a checkpoint that does not say its own; give a model file too")
        given = request.architecture
    given = given or config.model
    if given is None and request.weights is not None:
        return load_checkpoint(Path(request.weights).expanduser(), request, dataset)
    if request.model is None and config.model is not None:
        _check_allowed(config.model, request)
    network = network_of(given or default_network(dataset), config, dataset)
    if network.weights is not None and request.weights is None:
        model = models.build(**{**network.architecture, "pretrained": True})
        model.architecture = dict(network.architecture)  # type: ignore[assignment]
        return InitialModel(network.architecture, network.weights, model.eval(), model_hash(model), network.notes, True)
    if request.weights is None:
        return _to_train(network)
    file = Path(request.weights).expanduser()
    fresh = {key: value for key, value in network.architecture.items() if key not in START}
    model = load_weights(models.build(**fresh), file).eval()
    found: dict[str, Any] = model.architecture  # type: ignore[assignment]
    settled = {**found, **_start(network.architecture)}
    return InitialModel(settled, file, model, model_hash(model), network.notes, True)


def config_of(request: ModelRequest) -> ModelConfig:
    """Return the model config of a request, an empty one where it has none.

    Raises:
        UserError: It cannot be read.
    """
    return ModelConfig() if request.model_config is None else read_model_config(request.model_config)


def model_path(request: ModelRequest) -> Path | None:
    """Return the path that a request's model is, None for a name or specification; an existing path wins.

    Raises:
        BadRequest: It is neither, or a specification that is not written well.
    """
    given = request.model
    if given is None or given in models.available() or given in plugged_models():
        return None
    path = Path(given).expanduser()
    if path.exists() and not (path.is_file() and path.suffix == ".py"):
        return path
    if ":" in given or path.suffix == ".py":
        try:
            parse_specification(given)
        except UserError as error:
            raise BadRequest(str(error)) from error
        return None
    # "resnet81" is a slip of a name, "models/a.pt" a file that is not there.
    if not path.suffix and path.name == given:
        raise BadRequest(str(unknown_model(given)))
    return path


def is_hugging_face(folder: Path) -> bool:
    """Tell whether a folder is one of ``save_pretrained``, not a run folder."""
    if not (folder / "config.json").is_file():
        return False
    try:
        return "model_type" in read_description(str(folder))
    except UserError:
        return False


def _to_train(network: Network) -> InitialModel:
    """Return a network that is to be trained, with what is known only once it was built; a factory's weights are tried.

    Raises:
        UserError: A factory gives the same weights for every seed.
    """
    architecture = network.architecture
    if architecture["name"] in models.available() and not architecture.get("pretrained"):
        return InitialModel(architecture, notes=network.notes)
    built = models.build(**architecture, seed=0)
    found: dict[str, Any] = built.architecture  # type: ignore[assignment]
    if parse_specification(architecture["name"]).runs_code:
        fresh = {key: value for key, value in architecture.items() if key not in START}
        first, second = (models.build(**fresh, seed=seed) for seed in (0, 1))
        if model_hash(first) == model_hash(second):
            raise UserError(
                f"model '{architecture['name']}' has the same weights for every seed, so what it was trained on would "
                "stay in a model that is retrained; expected a factory of fresh weights, and the trained ones by "
                "--weights"
            )
    notes = [*network.notes]
    new = getattr(built, "new_layers", ())
    if isinstance(architecture.get("pretrained"), str):
        start = f"Training starts from the weights of '{architecture['pretrained']}'"
        notes.append(f"{start}, but for {', '.join(new)}, which are new." if new else f"{start}, the head's included.")
    return InitialModel(found, notes=tuple(notes), kind=kind_of(built))


def _start(architecture: Mapping[str, Any]) -> dict[str, Any]:
    return {key: architecture[key] for key in START if architecture.get(key)}


def _check_allowed(name: str, request: ModelRequest) -> None:
    """Refuse a user's function that only a file names, unless it is allowed."""
    if parse_specification(name).runs_code and not request.allow_code:
        raise CodeNotAllowed(
            f"model config '{request.model_config}' names '{name}', and code that a file names is not run unasked; "
            f"expected --allow-code once you have read it, or --model {name}"
        )


def load_checkpoint(path: Path, request: ModelRequest, dataset: Dataset) -> InitialModel:
    """Load a checkpoint, given as a file or as the run folder it is in.

    Args:
        path: The file or folder.
        request: Says the network of a file that does not say its own.
        dataset: The data that it is for.

    Raises:
        UserError: It is missing, corrupt, or made for other images or classes than ``dataset`` has.
    """
    file = file_of(path)
    described, config = None, config_of(request)
    asked = request.model if model_path(request) is None else None
    name = request.architecture or asked or config.model
    if name is not None:
        if name == config.model and asked is None:
            _check_allowed(name, request)
        described = network_of(name, config, dataset).architecture
    try:
        model = load_model(file, architecture=described, num_classes=dataset.num_classes, allow_code=request.allow_code)
    except UserError as error:
        if "pass its architecture" in str(error):
            raise UserError(
                f"model checkpoint '{file}' does not say which network it holds; give the network by --model "
                f"(torchvision:NAME, file.py:factory, …) and this file by --weights"
            ) from error
        raise
    found: dict[str, Any] = model.architecture  # type: ignore[assignment]
    _check_fit(found, dataset, f"model checkpoint '{file}'")
    elsewhere = "preprocess" not in read_metadata(file) and not path.is_dir()
    return InitialModel(found, file, model, model_hash(model), (), elsewhere)


def load_beside(given: Path | nn.Module, request: ModelRequest, other: InitialModel, dataset: Dataset) -> InitialModel:
    """Load a second model of a command, such as the one before unlearning.

    Args:
        given: A file or run folder, or a model in memory. A file that does not say which network it holds is of that of
            ``other``.
        request: The request for the first model.
        other: The first model.
        dataset: The data that both are for.

    Raises:
        UserError: It is missing, corrupt, or made for other images or classes than ``dataset`` has.
    """
    if isinstance(given, nn.Module):
        return _in_memory(given, dataset)
    if not given.exists():
        raise UserError(f"model checkpoint '{given}' does not exist")
    file = file_of(given)
    if read_architecture(file) is not None:
        return load_checkpoint(given, ModelRequest(allow_code=request.allow_code), dataset)
    if is_object(other.architecture):
        return filled_object(file, other.loaded, other.architecture)
    model = load_model(file, architecture=other.architecture, num_classes=dataset.num_classes)
    return InitialModel(other.architecture, file, model, model_hash(model), (), True)


def file_of(path: Path) -> Path:
    """Return the file of weights of a run folder, or of one of Hugging Face's form."""
    if not path.is_dir():
        return path
    return path / CHECKPOINT if (path / CHECKPOINT).is_file() else weights_in(path) or path / CHECKPOINT


def model_options(request: ModelRequest, initial: InitialModel) -> dict[str, str | None]:
    """Return the options that give the same model again, paths from the root, for config.json."""
    given = {"weights": request.weights, "model_config": request.model_config}
    paths = {name: None if path is None else os.path.abspath(path.expanduser()) for name, path in given.items()}
    if request.model is None:
        return {"model": None, **paths}
    named = initial.checkpoint is None or request.weights is not None
    return {"model": initial.name if named else os.path.abspath(str(initial.checkpoint)), **paths}


def _in_memory(network: nn.Module, dataset: Dataset) -> InitialModel:
    architecture = models.architecture_of(network)
    copied = copy.deepcopy(network).cpu()
    if architecture is None:
        architecture = object_architecture(network, dataset)
    else:
        _check_fit(architecture, dataset, "model")
    return InitialModel(architecture, None, copied, model_hash(copied))


def filled_object(file: Path, network: nn.Module | None, architecture: Mapping[str, Any]) -> InitialModel:
    """Load a file of a network that only the caller has.

    Args:
        file: The weights.
        network: A network of the same structure; it is left as it is.
        architecture: What the record says of it.

    Raises:
        UserError: ``network`` is None, or of another structure.
    """
    if network is None:
        raise UserError(
            f"'{file}' holds a model that was in memory ('{architecture['name']}') and cannot be rebuilt from names; "
            "expected it as model=… in Python"
        )
    model = load_model(file, into=copy.deepcopy(network).cpu())
    return InitialModel(dict(architecture), file, model, model_hash(model))


def _check_fit(found: Mapping[str, Any], dataset: Dataset, what: str) -> None:
    """Check that a network takes images like those of ``dataset``.

    Raises:
        UserError: It was made for others.
    """
    wanted = architecture_for(str(found["name"]), dataset)
    meanings = {"in_channels": "image channels"}
    if found["name"] in models.available():  # others are tried on the images
        meanings["image_size"] = "pixels of image height and width"
    for key, meaning in meanings.items():
        if found[key] != wanted[key]:
            raise UserError(
                f"{what} was made for {found[key]} {meaning}, but dataset '{dataset.name}' has {wanted[key]}"
            )
