"""Checks of names before PyTorch is imported, so that a mistyped name is reported at once.

Only what is certain: whatever could be a path, a specification with a prefix, or a name of a plug-in is left to the
library, which checks everything again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from pymixunlearn.errors import unknown_name

from . import names
from .help import SettingsCommand

_KINDS = {"method": names.METHODS, "task": names.TASKS, "dataset": names.DATASETS, "model": names.MODELS}
_PLAIN = re.compile(r"[A-Za-z][\w+-]*")


def refuse_empty(words: Sequence[str]) -> None:
    """Refuse options and arguments without a text, as ``"$NAME"`` of a variable that is not set is.

    An empty path would be the current folder.

    Raises:
        click.UsageError: One of them is empty.
    """
    for before, word in zip(("", *words), words, strict=False):
        name, equals, value = word.partition("=")
        if not word:
            name = before if before.startswith("-") else "an argument"
        if not word or (equals and not value and name.startswith("--")):
            raise click.UsageError(f"{name} is empty; expected a value; without one, leave it out")


def add_checks(command: click.Command) -> None:
    """Check the values of ``--method``, ``--task``, ``--dataset``, ``--model`` and ``--set`` of a command."""
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.callback is not None:
            continue
        if parameter.name == "method":
            parameter.is_eager = True  # read before --set, which it decides on
        if parameter.name in _KINDS:
            parameter.callback = _check_name
        if parameter.name == "assignments":
            parameter.callback = _check_settings


def _check_name(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    kind = parameter.name
    assert kind is not None
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        known = _KINDS[kind]
        if value not in known and not Path(value).exists() and not _plugged(ctx, kind, value):
            raise click.UsageError(str(unknown_name(kind, value, known)), ctx)
    return value


def _plugged(ctx: click.Context, kind: str, value: str) -> bool:
    """Tell whether a name may be that of a plug-in: that of a file is known only once it has run."""
    if any(str(word).partition("=")[0] in ("--plugin", "--config") for word in ctx.find_root().obj or ()):
        return True
    from importlib.metadata import entry_points

    return value in {point.name for point in entry_points(group=f"pymixunlearn.{kind}s")}


def _check_settings(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names of settings, where the command says whose they are."""
    command = ctx.command
    kinds = command.settings if isinstance(command, SettingsCommand) else ()
    for value in values:
        name, equals, _ = value.partition("=")
        name = name.strip()
        if not equals or not name:
            message = f"'{value}' does not read as a setting; expected name=value, for example epochs=5"
            raise click.UsageError(message, ctx)
        prefix, dot, rest = name.partition(".")
        if dot and prefix in kinds:
            _known(ctx, rest, names.SETTINGS["retrain"])
        elif not dot and "method" in kinds and ctx.params.get("method") in names.SETTINGS:
            _known(ctx, name, names.SETTINGS[ctx.params["method"]])
        elif not dot and "train" in kinds:
            _known(ctx, name, names.SETTINGS["retrain"])
    return values


def _known(ctx: click.Context, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise click.UsageError(str(unknown_name("setting", name, known)), ctx)
