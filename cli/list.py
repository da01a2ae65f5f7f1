"""``mixunlearn-cli list``: the names that options take, and the samples of a data set."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

import click

from pymixunlearn.display import printable
from pymixunlearn.errors import unknown_name
from pymixunlearn.experiments.common.data_request import DataRequest

from . import names, options
from .advice import advice
from .help import Group, settings_listing


@click.group("list", cls=Group)
def list_names() -> None:
    """List methods, their settings, networks, data sets, metrics, and the samples of a data set."""


_plugin_option = click.option(
    "--plugin",
    "files",
    multiple=True,
    metavar="FILE.py",
    help="A Python file with plug-ins, which is run; repeat for several.",
)


@list_names.command()
@_plugin_option
def methods(files: tuple[str, ...]) -> None:
    """List the methods, for --method: what each does, where it comes from, what it asks for, what was measured.

    Labels: whose it trains on; none where a setting (label_aware) does without. D_r: whether it needs the samples that
    remain. D_f: whether it trains on those that are to be forgotten, only reads them, or is not given them. Accepted:
    in how many of the runs in benchmarks/results/forgetting-cpu.csv the acceptance test accepts it, all its forms
    together; only seeds count that nothing was chosen on, and only cases in which the test refuses the untouched model.
    Time: beside Retrain's there. A - stands for a method that is not in those runs. docs/choosing.md says what follows.
    """
    _show_all("methods", names.METHODS, files)
    click.echo()
    for line in advice(list(names.METHODS)):
        click.echo(line)


@list_names.command()
@_plugin_option
def models(files: tuple[str, ...]) -> None:
    """List the networks that have a name, for --model, with where each comes from."""
    _show_all("models", names.MODELS, files)


@list_names.command()
@_plugin_option
def datasets(files: tuple[str, ...]) -> None:
    """List the data sets that have a name, for --dataset, with where each comes from."""
    _show_all("datasets", names.DATASETS, files)


@list_names.command()
@_plugin_option
def metrics(files: tuple[str, ...]) -> None:
    """List what is measured, by its key in metrics.json, with where each comes from."""
    _show_all("metrics", names.METRICS, files)


def _show_all(kind: str, built_in: Mapping[str, str], files: tuple[str, ...]) -> None:
    """Print what is built in and, where there are plug-ins, what they bring."""
    rows = [(name, f"{meaning} [built in]") for name, meaning in built_in.items()]
    if files or entry_points(group=f"pymixunlearn.{kind}"):
        from pymixunlearn.experiments.common.plugins import listed, load_plugins

        load_plugins(files)
        rows += [(name, f"{meaning} [{printable(source)}]") for name, meaning, source in listed(kind)]
    _show(rows)


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
      mixunlearn-cli list samples --dataset imagefolder --data-dir photos \\
          --class cat > samples.csv
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
