"""Networks of torchvision by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError
from pymixunlearn.models.origins import Asked, Built, check_arguments, network_error, unknown_in_library

_REFUSED = ("weights", "num_classes")
_REMEDY = "install the torchvision that belongs to the installed torch"


def build_torchvision(asked: Asked) -> Built:
    """Build a network with torchvision's own initialisation, or start it from its pretrained weights.

    Raises:
        UserError: There is no such classifier, an argument does not fit, or weights cannot be fetched.
    """
    library = require("torchvision.models", purpose=f"model 'torchvision:{asked.source}'", remedy=_REMEDY)
    if asked.source not in library.list_models(module=library):
        raise unknown_in_library("torchvision", asked.source, library.list_models(module=library))
    arguments = dict(asked.arguments)
    check_arguments("torchvision", asked, _REFUSED)
    if asked.source in ("googlenet", "inception_v3"):  # otherwise they warn of a slow initialisation that is to come
        arguments.setdefault("init_weights", True)
    model = call(library.get_model, asked, weights=None, num_classes=asked.outputs, **arguments)
    if asked.pretrained:
        start_from(model, pretrained_state(asked.source), f"torchvision:{asked.source}")
    set_channels(model, asked.in_channels)
    return Built(model)


def call(make: Any, asked: Asked, /, **arguments: Any) -> nn.Module:
    """Call a library's function; what it refuses is told in one sentence."""
    try:
        model: nn.Module = make(asked.source, **arguments)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in asked.arguments.items())
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model '{asked.source}' cannot be built{f' with {given}' if given else ''} "
            f"({type(error).__name__}: {reason})"
        ) from error
    return model


def set_channels(model: nn.Module, channels: int) -> None:
    """Give a network for colour images a first convolution for so many channels, of the same kind, in place."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != channels:
                model.set_submodule(name, _with_channels(module, channels))
            return


def start_from(model: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Fill a network with pretrained weights, in place; last layers of another number of classes stay as they are.

    Raises:
        UserError: The weights belong to another network.
    """
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    for name, value in own.items():
        if name in fitting or name.endswith("num_batches_tracked"):
            continue
        theirs = state.get(name)
        # A new head differs in its number of rows alone.
        if theirs is None or theirs.dim() != value.dim() or theirs.shape[1:] != value.shape[1:]:
            raise UserError(f"the pretrained weights of {what} have no tensor '{name}' of shape {list(value.shape)}")
    model.load_state_dict(fitting, strict=False)


def pretrained_state(name: str) -> dict[str, Tensor]:
    """Fetch the default pretrained weights of a network of torchvision, with progress, or take them from its cache.

    Raises:
        UserError: They cannot be fetched.
    """
    library = require("torchvision.models", purpose=f"model 'torchvision:{name}'", remedy=_REMEDY)
    try:
        state: dict[str, Tensor] = library.get_model_weights(name).DEFAULT.get_state_dict(
            progress=True, check_hash=True
        )
    except Exception as error:
        raise UserError(network_error(f"the pretrained weights of torchvision:{name}", error)) from error
    return state


def _with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    kept: dict[str, Any] = {
        name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    }
    new = nn.Conv2d(channels, conv.out_channels, bias=conv.bias is not None, **kept)
    with torch.no_grad():
        # Of the same spread as the library draws its convolutions.
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new
