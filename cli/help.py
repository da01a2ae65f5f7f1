"""Help that lists settings beside options: what ``--set`` can change, its default, and its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class SettingsCommand(click.Command):
    """A command whose ``--help`` ends with its settings.

    Args:
        settings: Which groups to list: "method" (all methods, and the settings of the chosen ``--method``), "methods"
            (all that can be compared), "grids" (what is searched for each), "train" (plain names of a training),
            "initial" and "retrain" (prefixed).
    """

    def __init__(self, *args: Any, settings: Sequence[str] = (), **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.settings = settings

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings below the options."""
        super().format_epilog(ctx, formatter)
        from pymixunlearn.methods import RetrainConfig, available, get

        trained = [name for name in self.settings if name in ("initial", "retrain")]
        if "method" in self.settings:
            with formatter.section("Methods (--method NAME)"):
                formatter.write_dl([(name, get(name).summary) for name in available()])
            method = get(ctx.params.get("method") or "mixunlearn")
            with formatter.section(f"Settings of {method.name} (--set NAME=VALUE)"):
                formatter.write_dl(_listing(method.config_class))
        if "methods" in self.settings:
            from pymixunlearn.experiments.compare.plan import row_names

            with formatter.section("Methods (--methods NAME,...; the settings of one: unlearn --method NAME --help)"):
                formatter.write_dl([(row, get(name).summary) for row, (name, _) in row_names().items()])
        if "grids" in self.settings:
            from pymixunlearn.experiments.tune.grids import grid_text, shipped_grids

            with formatter.section("Methods and their grids (all settings of one: unlearn --method NAME --help)"):
                formatter.write_dl([(name, grid_text(grid)) for name, grid in sorted(shipped_grids().items())])
        if trained:
            prefixes = " and ".join(f"{name}.NAME" for name in trained)
            with formatter.section(f"Settings of the trainings ({prefixes})"):
                formatter.write_dl(_listing(RetrainConfig))
        if "train" in self.settings:
            with formatter.section("Settings of the training (--set NAME=VALUE)"):
                formatter.write_dl(_listing(RetrainConfig))


def _listing(config_class: type[Any]) -> list[tuple[str, str]]:
    """Return "name=default" and meaning of every setting."""
    from dataclasses import fields

    lines = []
    for field in fields(config_class):
        default = field.default
        plain = isinstance(default, bool) or default is None
        text = str(default).lower() if plain else f"{default:g}" if isinstance(default, float) else str(default)
        lines.append((f"{field.name}={text}", field.metadata["help"]))
    return lines
