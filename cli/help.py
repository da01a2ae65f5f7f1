"""Help that lists methods and settings beside options: what ``--set`` can change, its default, and its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from . import names


class Group(click.Group):
    """Group whose ``--help`` has the first sentence of every command as a whole, over as many lines as it takes."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands below the options."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(command)) for name, command in found if command is not None])


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(limit=len(command.help or "") + 1)


class SettingsCommand(click.Command):
    """Command whose ``--help`` ends with methods and where their settings are listed.

    Args:
        settings: Which groups to list: "method" (all methods, or the settings of the one that ``--method`` names),
            "methods" (all that can be compared), "grids" (what is searched for each), "train" (plain names of a
            training), "initial" and "retrain" (prefixed).
    """

    def __init__(self, *args: Any, settings: Sequence[str] = (), **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.settings = settings

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names below the options; settings only where ``--method`` says of which method.

        Reading settings means importing PyTorch, which takes longer than whoever asks for help should wait.
        """
        super().format_epilog(ctx, formatter)
        trained = [name for name in self.settings if name in ("initial", "retrain")]
        prefixes = " and ".join(f"{name}.NAME" for name in trained)
        if "methods" in self.settings:
            with formatter.section("Methods (--methods NAME,...)"):
                formatter.write_dl([(row, names.METHODS[name]) for row, name in names.ROWS.items()])
        if "grids" in self.settings:
            with formatter.section("Methods and their grids"):
                formatter.write_dl(list(names.GRIDS.items()))
        if "method" in self.settings and ctx.get_parameter_source("method") is ParameterSource.COMMANDLINE:
            from pymixunlearn.methods import RetrainConfig, get

            method = get(ctx.params["method"])
            with formatter.section(f"Settings of {method.name} (--set NAME=VALUE)"):
                formatter.write_dl(settings_listing(method.config_class))
            with formatter.section(f"Settings of the trainings ({prefixes})"):
                formatter.write_dl(settings_listing(RetrainConfig))
            return
        if "method" in self.settings:
            with formatter.section("Methods (--method NAME)"):
                formatter.write_dl(list(names.METHODS.items()))
        with formatter.section("Settings (--set NAME=VALUE)"):
            lines = []
            if "train" not in self.settings:
                lines.append(("list settings METHOD", "those of a method, with defaults and meanings"))
            of_training = f"those of the trainings{f', written {prefixes}' if trained else ''}"
            lines.append(("list settings retrain", of_training))
            formatter.write_dl([(f"mixunlearn-cli {command}", meaning) for command, meaning in lines])


def settings_listing(config_class: type[Any]) -> list[tuple[str, str]]:
    """Return "name=default" and meaning of every setting."""
    from dataclasses import fields

    lines = []
    for field in fields(config_class):
        default = field.default
        plain = isinstance(default, bool) or default is None
        text = str(default).lower() if plain else f"{default:g}" if isinstance(default, float) else str(default)
        lines.append((f"{field.name}={text}", field.metadata["help"]))
    return lines
