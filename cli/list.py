"""``mixunlearn-cli list``: the names that options take."""

from __future__ import annotations

from collections.abc import Iterable

import click

from pymixunlearn.errors import unknown_name

from . import names
from .help import settings_listing


@click.group("list")
def list_names() -> None:
    """List methods, their settings, networks, data sets and metrics."""


@list_names.command()
def methods() -> None:
    """List the methods, for --method."""
    _show(names.METHODS.items())


@list_names.command()
def models() -> None:
    """List the networks that are built in, for --model."""
    _show((name, "") for name in names.MODELS)


@list_names.command()
def datasets() -> None:
    """List the data sets, for --dataset."""
    _show((name, "") for name in names.DATASETS)


@list_names.command()
def metrics() -> None:
    """List what is measured, by its key in metrics.json."""
    _show(names.METRICS.items())


@list_names.command()
@click.argument("method")
def settings(method: str) -> None:
    """List the settings of METHOD, for --set, with their defaults.

    METHOD is a name of `list methods`; those of `retrain` are the settings of every training.
    """
    if method not in names.METHODS:
        raise click.UsageError(str(unknown_name("method", method, names.METHODS)))
    from pymixunlearn.methods import get

    _show(settings_listing(get(method).config_class))


def _show(rows: Iterable[tuple[str, str]]) -> None:
    """Print names, each with its meaning, wrapped as the help is."""
    formatter = click.get_current_context().make_formatter()
    listed = list(rows)
    if all(meaning for _, meaning in listed):
        formatter.write_dl(listed)
        click.echo(formatter.getvalue(), nl=False)
    else:
        click.echo("\n".join(name for name, _ in listed))
