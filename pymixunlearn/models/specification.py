"""Specifications of models: ``cnn``, ``torchvision:resnet50``, ``timm:NAME``, ``hf:NAME``, ``file.py:factory``."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pymixunlearn.errors import UserError

Kind = Literal["built-in", "torchvision", "timm", "hf", "module", "file"]

LIBRARIES = ("torchvision", "timm", "hf")
FORMS = "torchvision:NAME, timm:NAME, hf:NAME, hf:FOLDER, package.module:factory or file.py:factory"
"""What a specification can be beside a built-in name."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Specification(NamedTuple):
    """A specification's parts.

    Attributes:
        kind: Where the model comes from.
        source: The model's name, the module or the file.
        factory: Of a module or file, the function or class; otherwise "".
    """

    kind: Kind
    source: str
    factory: str = ""

    @property
    def runs_code(self) -> bool:
        """Whether building the model runs a user's code, not a library's."""
        return self.kind in ("module", "file")


def parse_specification(text: str) -> Specification:
    """Take a specification apart; a text without a colon is a built-in name, known or not.

    Raises:
        UserError: A name or a factory is missing.

    Example:
        >>> parse_specification("timm:vit_tiny_patch16_224").kind
        'timm'
        >>> parse_specification("nets/mine.py:make")
        Specification(kind='file', source='nets/mine.py', factory='make')
    """
    if not isinstance(text, str):
        raise UserError(f"model is {text!r}; expected a name or a specification")
    before, colon, after = text.rpartition(":")
    prefix, _, rest = text.partition(":")
    if not colon:
        if text.endswith(".py"):
            raise UserError(f"model '{text}' names a file without a function in it; expected '{text}:FUNCTION'")
        return Specification("built-in", text)
    if prefix in LIBRARIES:
        if not rest:
            raise UserError(f"model '{text}' names no model of {prefix}; expected {prefix}:NAME")
        return Specification(prefix, rest)  # type: ignore[arg-type]
    if before.endswith(".py") and _DOTTED.fullmatch(after):
        return Specification("file", before, after)
    if _DOTTED.fullmatch(before) and _DOTTED.fullmatch(after):
        return Specification("module", before, after)
    raise UserError(f"model '{text}' is no specification; expected a built-in name, {FORMS}")
