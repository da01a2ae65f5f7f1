"""Where models of a specification come from: libraries, and factories of users."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from textwrap import shorten
from typing import Any, NamedTuple

from torch import nn

from pymixunlearn.errors import UserError


class Asked(NamedTuple):
    """What a network is to be like.

    Attributes:
        source: The model's name there, the module or the file.
        factory: Of a module or file, the function or class.
        outputs: Number of logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images; None takes the model's own.
        arguments: Further arguments of the library's or the user's function.
        description: A Hugging Face configuration, where it is known already.
        pretrained: Whether to start from the library's pretrained weights.
        code_sha256: Hash that the factory's file has to have, if it is known already.
    """

    source: str
    factory: str
    outputs: int
    in_channels: int
    image_size: int | None
    arguments: dict[str, Any]
    description: dict[str, Any] | None = None
    pretrained: bool = False
    code_sha256: str | None = None


class Built(NamedTuple):
    """A network, and what has been settled meanwhile.

    Attributes:
        model: With fresh or pretrained weights.
        image_size: Height and width of its images, None where it takes any.
        description: Its Hugging Face configuration.
        code_sha256: Hash of the factory's file.
    """

    model: nn.Module
    image_size: int | None = None
    description: dict[str, Any] | None = None
    code_sha256: str | None = None


def unknown_in_library(library: str, name: str, known: Sequence[str]) -> UserError:
    """Return the error for a name that a library does not have, with the nearest of its many."""
    nearest = get_close_matches(name, known, n=5, cutoff=0.5) or sorted(known)[:5]
    return UserError(
        f"unknown model of {library} '{name}'; expected one of its {len(known)}, for example {', '.join(nearest)}"
    )


def check_arguments(library: str, asked: Asked, refused: Collection[str]) -> None:
    """Check the further arguments of a library's model.

    Raises:
        UserError: One of them is among ``refused``.
    """
    for argument in asked.arguments:
        if argument in refused:
            raise UserError(f"argument '{argument}' of model '{library}:{asked.source}' is set by pymixunlearn itself")


def network_error(what: str, error: BaseException) -> str:
    """Return the sentence for weights or a configuration that cannot be fetched."""
    reason = shorten((str(error).strip() or type(error).__name__).splitlines()[0], 200, placeholder=" …")
    return f"{what} cannot be fetched ({reason}); expected a network, or files given by --weights or hf:FOLDER"
