"""Networks by name or specification."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.files import canonical_json, file_sha256, json_sha256
from pymixunlearn.models.class_map import check_class_map
from pymixunlearn.models.cnn import CNN
from pymixunlearn.models.ensemble import Aggregate, Ensemble
from pymixunlearn.models.origins import Asked, Built
from pymixunlearn.models.origins.factories import build_of_factory
from pymixunlearn.models.origins.hugging_face import build_hugging_face
from pymixunlearn.models.origins.timm_models import build_timm
from pymixunlearn.models.origins.torchvision_models import build_torchvision, start_from
from pymixunlearn.models.resnet import resnet18, start_from_pretrained
from pymixunlearn.models.resnet14 import ResNet14
from pymixunlearn.models.specification import FORMS, Specification, parse_specification
from pymixunlearn.models.vit import DEPTH, VisionTransformer
from pymixunlearn.models.weight_files import read_tensors, weights_in
from pymixunlearn.models.weight_names import aligned
from pymixunlearn.models.weights import load_weights
from pymixunlearn.seeding import derive_seed
from pymixunlearn.user_files.code import code_sha256


@dataclass(frozen=True)
class _Entry:
    """How a network is made (from num_classes, in_channels, image_size) and where its inner layers are."""

    make: Callable[[int, int, int], nn.Module]
    feature_layer: str
    embedding_layer: str


_ENTRIES = {
    "cnn": _Entry(CNN, feature_layer="features", embedding_layer="embedding"),
    "resnet14": _Entry(ResNet14, feature_layer="stage3", embedding_layer="embedding"),
    "resnet18": _Entry(resnet18, feature_layer="layer3", embedding_layer="fc.embedding"),
    "vit": _Entry(VisionTransformer, feature_layer=f"blocks.{DEPTH - 1}", embedding_layer="embedding"),
}
_ORIGINS: dict[str, Callable[[Asked], Built]] = {
    "torchvision": build_torchvision,
    "timm": build_timm,
    "hf": build_hugging_face,
    "module": partial(build_of_factory, file=False),
    "file": partial(build_of_factory, file=True),
}
# The upper limits keep a checkpoint's header, which anyone may have written, from asking for the impossible.
_LIMITS = {"num_classes": (2, 1_000_000), "in_channels": (1, 4096), "image_size": (8, 4096), "members": (1, 1000)}


def available() -> list[str]:
    """Return the names of the built-in networks.

    Example:
        >>> {"cnn", "resnet18", "vit"} <= {*available()}
        True
    """
    return sorted(_ENTRIES)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
    members: int | None = None,
    aggregate: Aggregate = "mean",
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    outputs: int | None = None,
    class_map: Sequence[int] | None = None,
    pretrained: bool | str | Path = False,
    feature_layer: str | None = None,
    embedding_layer: str | None = None,
    description: Mapping[str, Any] | None = None,
    code_sha256: str | None = None,
    pretrained_sha256: str | None = None,
) -> nn.Module:
    """Build a network with fresh weights, the same for the same seed, or with those of a file.

    The network maps images [N, in_channels, image_size, image_size] to logits [N, num_classes]. It carries the
    attribute ``architecture``, the arguments (without seed and weights) that build it again, and, where they are known,
    ``feature_layer`` and ``embedding_layer``, the names of the layers whose outputs are the feature map and the
    embedding. Built-in networks have both (the embedding is a 256-vector, of ``resnet14`` the 64 pooled channels); an
    ensemble has ``architecture`` alone.

    Args:
        name: One of :func:`available`, or a specification: ``torchvision:NAME``, ``timm:NAME``, ``hf:NAME``,
            ``hf:FOLDER``, ``package.module:factory`` or ``file.py:factory``. A factory is called with those of
            ``num_classes``, ``in_channels`` and ``image_size`` that it has parameters for; naming it here runs it.
        num_classes: Number of classes of the data, 2 to a million.
        in_channels: Channels of the images, 1 to 4096; needed for built-in networks, otherwise 3 if not given.
        image_size: Height and width of the images, 8 to 4096; needed for built-in networks, otherwise the network's own
            if not given.
        seed: Seed of the weights.
        members: 1 to 1000 builds an :class:`Ensemble` of so many such networks, each with weights of its own.
        aggregate: How an ensemble combines their predictions; unused for a single network.
        weights: A file of weights, see :func:`pymixunlearn.models.load_weights`.
        arguments: Further arguments of the library's or the user's function; of ``hf:`` entries of the configuration.
        outputs: Number of logits, where it is not ``num_classes``; needs ``class_map``.
        class_map: For every class of the data, the index of its logit; the others are left out.
        pretrained: Start from the pretrained weights of the library, which are fetched; layers for another number of
            classes are new. Built-in ``resnet18`` takes those of torchvision. A path starts from that file of weights
            likewise; ``model.new_layers`` names what is new.
        feature_layer: Name of the layer for ``model.feature_layer``.
        embedding_layer: Name of the layer for ``model.embedding_layer``.
        description: The configuration of ``hf:`` where it is known already.
        code_sha256: The sha256 that the file of a factory has to have.
        pretrained_sha256: The sha256 that the file of ``pretrained`` has to have.

    Raises:
        UserError: An unknown name, a number out of range, a library that is missing, a factory that fails, or a file of
            weights that belongs to another network.

    Example:
        >>> import torch
        >>> from pymixunlearn import models
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=28)
        >>> model(torch.rand(2, 1, 28, 28)).shape, model.feature_layer
        (torch.Size([2, 10]), 'features')
        >>> net = models.build("torchvision:mobilenet_v3_small", num_classes=7)
        >>> net.architecture["name"], net.architecture["in_channels"]
        ('torchvision:mobilenet_v3_small', 3)
    """
    specification = parse_specification(name)
    built_in = specification.kind == "built-in"
    if built_in and name not in _ENTRIES:
        raise unknown_model(name)
    numbers = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    if not built_in:
        numbers = {**numbers, "in_channels": 3 if in_channels is None else in_channels}
    for argument, value in {**numbers, **({} if members is None else {"members": members})}.items():
        least, most = _LIMITS[argument]
        if value is None and argument == "image_size" and not built_in:
            continue
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(f"{argument} of model '{name}' is {value!r}; expected an integer from {least} to {most}")
    mapped = check_class_map(name, class_map, num_classes, outputs)
    further = {
        "arguments": dict(arguments or {}),
        "outputs": mapped and outputs,
        "class_map": mapped,
        "pretrained": str(pretrained) if isinstance(pretrained, (str, Path)) else bool(pretrained),
        "pretrained_sha256": pretrained_sha256,
        "feature_layer": feature_layer,
        "embedding_layer": embedding_layer,
        "description": None if description is None else dict(description),
        "code_sha256": code_sha256,
    }
    architecture = {"name": name, **numbers, **{key: value for key, value in further.items() if value}}
    seeds = [seed] if members is None else [derive_seed(seed, "member", index) for index in range(members)]
    networks = [_single(specification, architecture, member) for member in seeds]
    model = networks[0] if members is None else ensemble_of(networks, None, aggregate)
    return model if weights is None else load_weights(model, weights)


def unknown_model(name: str) -> UserError:
    """Return the error for a name that is none of a network's, with the other forms that a model can have."""
    return UserError(f"{unknown_name('model', name, _ENTRIES)} Others are written {FORMS}.")


def ensemble_of(networks: Sequence[nn.Module], weights: Sequence[float] | None, aggregate: Aggregate) -> Ensemble:
    """Return the ensemble of ``networks``; of networks that :func:`build` knows, one that it knows too.

    Example:
        >>> import torch
        >>> networks = [build("cnn", num_classes=10, in_channels=1, image_size=8, seed=seed) for seed in (0, 1)]
        >>> ensemble = ensemble_of(networks, None, "mean")
        >>> ensemble(torch.rand(2, 1, 8, 8)).shape, ensemble.architecture["members"]
        (torch.Size([2, 10]), 2)
    """
    ensemble = Ensemble(networks, weights, aggregate)
    single = architecture_of(networks[0])
    if single is not None:
        ensemble.architecture = {**single, "members": len(networks), "aggregate": aggregate}  # type: ignore[assignment]
    return ensemble


def _single(specification: Specification, architecture: Mapping[str, Any], seed: int) -> nn.Module:
    name = architecture["name"]
    # Layers draw their first weights from the global generator: lend it a stream of ours and put it back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "weights", name))
        start = architecture.get("pretrained")
        if isinstance(start, str):
            model, settled = _made(specification, {**architecture, "pretrained": False})
            settled |= {"pretrained": start, "pretrained_sha256": _start_from_file(model, Path(start), architecture)}
        else:
            model, settled = _made(specification, architecture)
    entry = _ENTRIES.get(name)
    attributes: dict[str, Any] = {
        "feature_layer": entry and entry.feature_layer,
        "embedding_layer": entry and entry.embedding_layer,
        **{key: settled.get(key) for key in ("feature_layer", "embedding_layer") if key in settled},
        "class_map": settled.get("class_map"),
    }
    model.architecture = settled  # type: ignore[assignment]
    for attribute, content in attributes.items():
        if content is not None:
            setattr(model, attribute, content)
    if specification.kind != "built-in":
        model.built_structure = structure_hash(model)  # type: ignore[assignment]
    return model


def _start_from_file(model: nn.Module, path: Path, architecture: Mapping[str, Any]) -> str:
    """Fill a network with the weights of a file but for a head of other classes, in place; return the file's sha256.

    Raises:
        UserError: The file is missing or another one than it was, cannot be read, or is of another network.
    """
    tensors = read_tensors(path)[0]
    found = file_sha256(weights_in(path) or path if path.is_dir() else path)
    expected = architecture.get("pretrained_sha256")
    if expected is not None and found != expected:
        raise UserError(f"file '{path}' was changed since a training started from it; expected sha256 {expected[:12]}…")
    own = model.state_dict()
    fitting = aligned(tensors, own)
    start_from(model, fitting, f"'{path}'")
    new = [name for name, value in own.items() if name in fitting and fitting[name].shape != value.shape]
    model.new_layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in new))  # type: ignore[assignment]
    return found


def _made(specification: Specification, architecture: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network and its architecture with what is known only now."""
    outputs = architecture.get("outputs") or architecture["num_classes"]
    if specification.kind == "built-in":
        entry, name = _ENTRIES[specification.source], architecture["name"]
        if architecture.get("arguments"):
            raise UserError(f"model '{name}' takes no further arguments, got {', '.join(architecture['arguments'])}")
        model = entry.make(outputs, architecture["in_channels"], architecture["image_size"])
        if architecture.get("pretrained"):
            start_from_pretrained(model, name)
        return model, dict(architecture)
    asked = Asked(
        specification.source,
        specification.factory,
        outputs,
        architecture["in_channels"],
        architecture["image_size"],
        architecture.get("arguments", {}),
        architecture.get("description"),
        architecture.get("pretrained", False),
        architecture.get("code_sha256"),
    )
    made = _ORIGINS[specification.kind](asked)
    further = {"description": made.description, "code_sha256": made.code_sha256}
    settled = {**architecture, "image_size": made.image_size or architecture["image_size"]}
    return made.model, {**settled, **{key: value for key, value in further.items() if value is not None}}


def architecture_of(model: nn.Module) -> dict[str, Any] | None:
    """Return the arguments with which :func:`build` makes this network again, or None for a network of another origin.

    A network of :func:`build` in which a layer was replaced, added or changed is of another origin: ``build`` would
    make a different one.

    Args:
        model: Any network; its weights are not looked at.

    Example:
        >>> import torch
        >>> from pymixunlearn import models
        >>> network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> models.architecture_of(network)
        {'name': 'cnn', 'num_classes': 10, 'in_channels': 1, 'image_size': 8}
        >>> network.head = torch.nn.Linear(128, 4)
        >>> models.architecture_of(network) is None
        True
    """
    declared = getattr(model, "architecture", None)
    if not isinstance(declared, dict):
        return None
    single = {key: value for key, value in declared.items() if key not in ("members", "aggregate")}
    networks = [model]
    if "members" in declared:
        if not isinstance(model, Ensemble) or model.aggregate != declared.get("aggregate", "mean"):
            return None
        networks = list(model.members)
        if len(networks) != declared["members"]:
            return None
    if single.get("name") not in available():
        same = all(getattr(network, "architecture", None) == single and _as_built(network) for network in networks)
        return dict(declared) if same and (networks != [model] or _as_built(model)) else None
    try:
        # Where its weights started is no part of a structure, and need not be there any more.
        expected = _structure_of(
            canonical_json({key: single[key] for key in single if not key.startswith("pretrained")})
        )
    except (TypeError, UserError):
        return None
    return dict(declared) if all(_structure(network) == expected for network in networks) else None


def model_runs_code(architecture: Mapping[str, Any]) -> bool:
    """Tell whether building this architecture runs a user's code."""
    return parse_specification(architecture["name"]).runs_code


def architecture_name(model: nn.Module) -> str | None:
    """Return the name under which :func:`build` makes this network, or None for a network of another origin.

    See :func:`architecture_of`.

    Example:
        >>> import torch
        >>> architecture_name(build("cnn", num_classes=10, in_channels=1, image_size=8))
        'cnn'
        >>> architecture_name(torch.nn.Linear(2, 2)) is None
        True
    """
    architecture = architecture_of(model)
    return None if architecture is None else str(architecture["name"])


def _structure(model: nn.Module) -> tuple[Any, ...]:
    """Return what makes a network this network: its classes, the layers' settings and every tensor's name and shape."""
    classes = tuple((name, type(module)) for name, module in model.named_modules())
    state: dict[str, Any] = model.state_dict()  # quantized layers, and extra states, have more than tensors in it
    tensors = tuple((name, tuple(getattr(value, "shape", ()))) for name, value in state.items())
    # The printed form of PyTorch's layers holds all their settings (stride, dropout's p).
    return classes, tensors, repr(model)


def structure_hash(model: nn.Module) -> str:
    """Return a sha256 of a network's structure, see :func:`_structure`."""
    classes, tensors, text = _structure(model)
    named = [(name, f"{kind.__module__}.{kind.__qualname__}") for name, kind in classes]
    return json_sha256([named, tensors, text])


def beyond_weights(model: nn.Module) -> dict[str, str]:
    """Return what tells a network from others with the same weights, JSON-able: its structure and its classes' code.

    Nothing for a network whose architecture says it all.
    """
    architecture = architecture_of(model)
    if architecture is not None:
        return {key: architecture[key] for key in ("code_sha256",) if key in architecture}
    kinds = sorted({type(module) for module in model.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__))
    return {"structure_sha256": structure_hash(model), "code_sha256": code_sha256(kinds)}


def _as_built(model: nn.Module) -> bool:
    """Tell whether a network of a library or a factory still has the structure with which it was built."""
    return getattr(model, "built_structure", None) == structure_hash(model)


@lru_cache(maxsize=64)
def _structure_of(architecture: str) -> tuple[Any, ...]:
    with torch.device("meta"):
        return _structure(build(**json.loads(architecture)))
