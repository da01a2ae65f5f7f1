"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.models.cnn import CNN
from pymixunlearn.models.ensemble import Aggregate, Ensemble
from pymixunlearn.models.resnet import resnet18
from pymixunlearn.models.resnet14 import ResNet14
from pymixunlearn.models.vit import DEPTH, VisionTransformer
from pymixunlearn.seeding import derive_seed


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
# The upper limits keep a checkpoint's header, which anyone may have written, from asking for the impossible.
_LIMITS = {"num_classes": (2, 1_000_000), "in_channels": (1, 4096), "image_size": (8, 4096), "members": (1, 1000)}


def available() -> list[str]:
    """Return the names that :func:`build` takes."""
    return sorted(_ENTRIES)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    seed: int = 0,
    members: int | None = None,
    aggregate: Aggregate = "mean",
) -> nn.Module:
    """Build a network with fresh weights, the same for the same seed.

    The network maps images [N, in_channels, image_size, image_size] to logits [N, num_classes]. It carries three
    attributes: ``feature_layer`` and ``embedding_layer``, the names of the layers whose outputs are the feature map and
    the embedding (a 256-vector; of ``resnet14`` the 64 pooled channels), and ``architecture``, the arguments (without
    the seed) that build it again. An ensemble carries ``architecture`` alone.

    Args:
        name: One of :func:`available`.
        num_classes: Number of logits, 2 to a million.
        in_channels: Channels of the images, 1 to 4096.
        image_size: Height and width of the images, 8 to 4096.
        seed: Seed of the weights.
        members: 1 to 1000 builds an :class:`Ensemble` of so many such networks, each with weights of its own.
        aggregate: How an ensemble combines their predictions; unused for a single network.

    Raises:
        UserError: An unknown name, a number out of range, or a network that needs torchvision where it is missing.

    Example:
        >>> import torch
        >>> from pymixunlearn import models
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=28)
        >>> model(torch.rand(2, 1, 28, 28)).shape, model.feature_layer
        (torch.Size([2, 10]), 'features')
    """
    if name not in _ENTRIES:
        raise unknown_name("model", name, _ENTRIES)
    numbers = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    for argument, value in {**numbers, **({} if members is None else {"members": members})}.items():
        least, most = _LIMITS[argument]
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(f"{argument} of model '{name}' is {value!r}; expected an integer from {least} to {most}")
    if members is None:
        return _single(name, numbers, seed)
    networks = [_single(name, numbers, derive_seed(seed, "member", index)) for index in range(members)]
    return ensemble_of(networks, None, aggregate)


def ensemble_of(networks: Sequence[nn.Module], weights: Sequence[float] | None, aggregate: Aggregate) -> Ensemble:
    """Return the ensemble of ``networks``; of networks that :func:`build` knows, one that it knows too."""
    ensemble = Ensemble(networks, weights, aggregate)
    single = architecture_of(networks[0])
    if single is not None:
        ensemble.architecture = {**single, "members": len(networks), "aggregate": aggregate}  # type: ignore[assignment]
    return ensemble


def _single(name: str, numbers: Mapping[str, int], seed: int) -> nn.Module:
    entry = _ENTRIES[name]
    # Layers draw their first weights from the global generator: lend it a stream of ours and put it back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "weights", name))
        model = entry.make(numbers["num_classes"], numbers["in_channels"], numbers["image_size"])
    attributes = {
        "architecture": {"name": name, **numbers},
        "feature_layer": entry.feature_layer,
        "embedding_layer": entry.embedding_layer,
    }
    for attribute, content in attributes.items():
        setattr(model, attribute, content)
    return model


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
    try:
        expected = _structure_of(**single)
    except (TypeError, UserError):
        return None
    return dict(declared) if all(_structure(network) == expected for network in networks) else None


def architecture_name(model: nn.Module) -> str | None:
    """Return the name under which :func:`build` makes this network, or None for a network of another origin.

    See :func:`architecture_of`.
    """
    architecture = architecture_of(model)
    return None if architecture is None else str(architecture["name"])


def _structure(model: nn.Module) -> tuple[Any, ...]:
    """Return what makes a network this network: its classes, the layers' settings and every tensor's name and shape."""
    classes = tuple((name, type(module)) for name, module in model.named_modules())
    tensors = tuple((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    # The printed form of PyTorch's layers holds all their settings (stride, dropout's p).
    return classes, tensors, repr(model)


@lru_cache(maxsize=64)
def _structure_of(name: str, num_classes: int, in_channels: int, image_size: int) -> tuple[Any, ...]:
    with torch.device("meta"):
        return _structure(build(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size))
