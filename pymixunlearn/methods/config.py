"""Settings of a method: a frozen dataclass whose fields know their own types, ranges and meaning.

One declaration per setting serves Python callers, ``--set name=value``, YAML files and the listing of settings.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from pymixunlearn.errors import UserError, unknown_name

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing itself from Python 3.11 on

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NONE = ("none", "null", "")
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "above": ("above", operator.gt),
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "below": ("below", operator.lt),
}


OURS, PAPER, CODE = "this package", "MixUnlearn's paper", "released code"
SEARCHED = "within the range searched by MixUnlearn's authors"
"""Where defaults come from."""


def setting(
    default: Any,
    help: str,
    *,
    above: float | None = None,
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    source: str | None = None,
    named_only: bool = False,
) -> Any:
    """Declare a field of a :class:`MethodConfig` with its meaning and its range.

    Args:
        default: The default value.
        help: What it does, in a few words.
        above: The value must be greater than this.
        low: The value must be at least this.
        high: The value must be at most this.
        below: The value must be less than this.
        source: Where the default comes from; None takes the config's ``source``.
        named_only: Whether its value has to be given by name.

    Example:
        >>> from pymixunlearn import methods
        >>> @dataclass(frozen=True)
        ... class MyConfig(methods.MethodConfig):
        ...     lr: float = setting(0.1, "learning rate", above=0)
        >>> MyConfig.from_mapping({"lr": "0.5"}).lr
        0.5
        >>> MyConfig(lr=0)
        Traceback (most recent call last):
        pymixunlearn.errors.UserError: lr is 0.0; expected a value above 0
    """
    bounds = {"above": above, "low": low, "high": high, "below": below}
    metadata = {"help": help, "source": source, **bounds}
    return dataclasses.field(default=default, metadata=metadata, kw_only=named_only)


@dataclass(frozen=True)
class MethodConfig:
    """Base of all method settings: every field is checked when the object is made.

    Raises:
        UserError: A field has the wrong type, or lies outside its range.

    Example:
        >>> from pymixunlearn import methods
        >>> config = methods.get("neggrad").config_class.from_mapping({"lr": "0.01"})
        >>> config.lr, config.replace(epochs=3).epochs
        (0.01, 3)
    """

    source: ClassVar[str] = OURS
    """Where the defaults come from that do not say so themselves."""

    precision: Literal["float32", "bfloat16"] | None = setting(
        "float32",
        "of the networks' passes; bfloat16 is autocast, weights and losses stay in float32, and none takes it on GPUs "
        "that compute in it",
        source=OURS,
        named_only=True,
    )

    def __post_init__(self) -> None:
        """Check every field; whole numbers given for a float field become floats."""
        kinds = self.kinds()
        for field in dataclasses.fields(self):
            value = _checked(field.name, getattr(self, field.name), kinds[field.name])
            _check_range(field.name, value, field.metadata)
            object.__setattr__(self, field.name, value)

    @classmethod
    def kinds(cls) -> dict[str, Any]:
        """Return the type of every setting, resolved from its annotation."""
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from names and values, reading strings as the type of their field.

        Args:
            values: For example ``{"epochs": "20", "label_aware": "true", "feature_layer": "none"}``; values that
                are not strings are taken as they are.

        Raises:
            UserError: A name is unknown, or a value does not fit its field.
        """
        kinds = cls.kinds()
        for name in values:
            if name not in kinds:
                raise unknown_name("setting", name, kinds)
        return cls(**{name: _parsed(name, value, kinds[name]) for name, value in values.items()})

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed; strings are read as in :meth:`from_mapping`."""
        return self.from_mapping({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON-able values, but a precision of float32 where that is the default.

        Before there was another one none was recorded: what was computed then is the same.
        """
        values = dataclasses.asdict(self)
        if values["precision"] == "float32" and type(self).precision == "float32":
            del values["precision"]
        return values


@dataclass(frozen=True)
class StepConfig(MethodConfig):
    """Settings of how, not what, a method computes: the same result up to rounding, sooner."""

    fast: bool = setting(True, "the fast step; false takes the plain loop that it is checked against", source=OURS)
    channels_last: bool | None = setting(
        None, "memory layout of images in the fast step; none decides by device", source=OURS
    )
    cuda_graphs: bool = setting(
        True, "record the fast step's launches on a GPU; false if the model cannot be recorded", source=OURS
    )
    compile: bool = setting(False, "pass networks through torch.compile in the fast step", source=OURS)
    cache_mb: int = setting(
        1024, "megabytes of the initial model's outputs that the fast step caches", low=0, source=OURS
    )


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _inner(kind: Any) -> Any:
    """The type under ``| None``."""
    return next(part for part in get_args(kind) if part is not type(None)) if _is_optional(kind) else kind


def _describe(kind: Any) -> str:
    inner = _inner(kind)
    if get_origin(inner) is Literal:
        words = "one of " + ", ".join(map(str, get_args(inner)))
    else:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[inner]
    return f"{words}, or none" if _is_optional(kind) else words


def _parsed(name: str, value: Any, kind: Any) -> Any:
    """Read a string as ``kind``; a string that does not read is left for the type check to refuse."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if _is_optional(kind) and text.lower() in _NONE:
        return None
    inner = _inner(kind)
    try:
        if inner is bool:
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
        if inner in (int, float):
            return inner(text)
    except (ValueError, KeyError):
        raise UserError(f"{name} is '{value}'; expected {_describe(kind)}") from None
    return text


def _checked(name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` if it fits ``kind``, with whole numbers widened where a float is expected."""
    if value is None and _is_optional(kind):
        return None
    inner = _inner(kind)
    if get_origin(inner) is Literal:
        if value not in get_args(inner):
            raise unknown_name(name, str(value), get_args(inner))
        return value
    if inner is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, but `epochs=True` is a mistake.
    if not isinstance(value, inner) or (isinstance(value, bool) and inner is not bool):
        raise UserError(f"{name} is {value!r}; expected {_describe(kind)}")
    if inner is float and not math.isfinite(value):
        raise UserError(f"{name} is {value}; expected a finite number")
    return value


def _check_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if value is None:
        return
    limits = {key: metadata[key] for key in _BOUNDS if metadata.get(key) is not None}
    if not all(_BOUNDS[key][1](value, bound) for key, bound in limits.items()):
        words = " and ".join(f"{_BOUNDS[key][0]} {bound:g}" for key, bound in limits.items())
        raise UserError(f"{name} is {value}; expected a value {words}")
