"""``mixunlearn-cli list``: the names that options take, and the samples of a data set."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from typing import Any

import click

from pymixunlearn.display import printable
from pymixunlearn.errors import unknown_name
from pymixunlearn.experiments.common.inputs import DataRequest

from . import names, options
from .help import settings_listing


@click.group("list")
def list_names() -> None:
    """List methods, their settings, networks, data sets, metrics, and the samples of a data set."""


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


@list_names.command()
@options.inputs_options(DataRequest)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="K",
    help="Only samples of a class, by name or index (name:1 and index:1 say which); repeat for several.",
)
def samples(*, classes: tuple[str, ...], **values: Any) -> None:
    """List index, class and file of every training sample, as CSV.

    In the order of the indices, which `unlearn --forget` takes: it is documented in docs/data.md. What a terminal would
    not show but obey is written as an escape; `--forget` takes a file's name in this form too.

    \b
    Example:
      mixunlearn-cli list samples --dataset imagefolder --data-dir photos --class cat > samples.csv
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.tasks import list_samples

    from .progress import make_console, watching

    request = options.make_inputs(DataRequest, values)
    with watching(make_console(errors=True)) as observer:
        dataset = request.load(observer)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows = list_samples(dataset, classes)
    writer.writerow(("index", "class", "file"))
    for sample in rows:
        writer.writerow((sample.index, printable(sample.class_name), printable(sample.file)))


def _show(rows: Iterable[tuple[str, str]]) -> None:
    """Print names, each with its meaning, wrapped as the help is."""
    formatter = click.get_current_context().make_formatter()
    listed = list(rows)
    if all(meaning for _, meaning in listed):
        formatter.write_dl(listed)
        click.echo(formatter.getvalue(), nl=False)
    else:
        click.echo("\n".join(name for name, _ in listed))
