"""Options of the command line as metadata of the fields that they fill, so that a flag is written once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = "type | Literal['words', 'numbers']"

_KEY = "option"


@dataclass(frozen=True)
class Option:
    """Option of a field.

    Attributes:
        name: "--name" for a value, or for a field that is False unless it is given; "--no-name" for one that is True
            unless it is given; "--a/--b" for a choice of two.
        help: What it means.
        kind: Type of its value; "words" and "numbers" are separated by commas.
        metavar: What stands for the value in the help.
        least: Smallest value; ``above`` excludes it. ``most`` and ``below`` likewise.
        above: See ``least``.
        most: See ``least``.
        below: See ``least``.
        several: Whether it can be repeated.
        show_default: Whether the help shows the default; otherwise ``help`` says it.
        first: Whether the help lists it before what all commands share.
        old: Its name in the last release, which goes on working with a warning.
    """

    name: str
    help: str
    kind: Kind = str
    metavar: str | None = None
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    several: bool = False
    show_default: bool = False
    first: bool = False
    old: str | None = None

    @property
    def argument(self) -> str:
        """Name as an argument of a function: "--forget-class" is ``forget_class``, "--no-retrain" is ``retrain``."""
        first, _, _ = self.name.partition("/")
        return first.removeprefix("--").removeprefix("no-").replace("-", "_")


def option(name: str, *, default: Any = None, **about: Any) -> Any:
    """Return a dataclass field with an option.

    Args:
        name: As in :class:`Option`.
        default: Of the field and of the option.
        about: The other attributes of :class:`Option`.
    """
    return dataclasses.field(default=default, metadata={_KEY: Option(name, **about)})


def option_of(of: dataclasses.Field[Any]) -> Option | None:
    """Return the option of a field, None where it has none."""
    found: Option | None = of.metadata.get(_KEY)
    return found


def device_option() -> Any:
    """Return the option for where to compute."""
    return option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")


def plugin_option() -> Any:
    """Return the option for plug-ins."""
    return option(
        "--plugin",
        default=(),
        several=True,
        metavar="FILE.py",
        help="A Python file with methods, data sets or metrics of your own, which is run; repeat for several.",
    )
