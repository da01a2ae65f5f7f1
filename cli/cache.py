"""``mixunlearn-cli cache``: what the cache holds, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymixunlearn.display import printable

from .columns import paragraph, table
from .endings import PROGRAM, REFUSED
from .help import Group
from .options import Number

if TYPE_CHECKING:
    from pymixunlearn.experiments.cache import CacheEntry, Purged, Remains
    from pymixunlearn.tasks import Split

KINDS = ("images", "models", "snapshots", "predictions", "unfinished", "downloads")
_PATH = click.Path(path_type=Path)
_kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only this kind; repeat for several.",
)


@click.group(cls=Group)
def cache() -> None:
    """List, check and purge what is cached: decoded images, models, predictions."""


@cache.command("list")
@_kind_option
def list_entries(kinds: tuple[str, ...]) -> None:
    """List what the cache holds: kind, size, age, and of which data it is made."""
    from pymixunlearn.data import cache_dir
    from pymixunlearn.experiments.cache import list_cache

    entries = [entry for entry in list_cache() if not kinds or entry.kind in kinds]
    _show(entries)
    _say(f"Cache folder: {cache_dir()}")


@cache.command()
@click.option("--run", type=_PATH, metavar="RUN", help="What is made of the data of a finished run, see below.")
@click.option("--dataset", metavar="SPEC", help="What is made of a data set: a name, or the folder or file it is in.")
@click.option("--data-dir", type=_PATH, metavar="DIR", help="The folder of --dataset imagefolder.")
@click.option("--older-than", type=Number(min=0), metavar="DAYS", help="What was last written more than DAYS ago.")
@_kind_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    run: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    older_than: float | None,
    kinds: tuple[str, ...],
    yes: bool,
) -> None:
    """Delete what the cache holds; all conditions that are given must be met.

    First it is listed, and then asked for. Everything in the cache is computed or fetched again when it is needed.
    Downloaded data sets are deleted only with --kind downloads.

    With --run, everything goes that is made of the run's data, but for what was trained without the forgotten samples;
    the run's deletion record then says so. The data set itself, and a model file that the run was given, are yours to
    delete.

    \b
    Examples:
      mixunlearn-cli cache purge --run runs/mine --yes
      mixunlearn-cli cache purge --dataset photos --older-than 30
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments.cache import is_of, list_cache, place_of, purge, purge_run, remains_of

    if run is not None and (dataset is not None or data_dir is not None or older_than is not None or kinds):
        raise click.UsageError("a run already says what to purge; leave out the other conditions")
    if data_dir is not None and dataset is None:
        raise click.UsageError("--data-dir is the folder of a --dataset; give both, or the folder as --dataset")
    if run is not None:
        remains = remains_of(run)
        entries: Sequence[CacheEntry] = remains.entries
    else:
        source = None if dataset is None else place_of(dataset, data_dir)
        entries = [
            entry
            for entry in list_cache()
            if (source is None or is_of(entry, source))
            and (older_than is None or entry.seconds > 86400 * older_than)
            and (entry.kind in kinds if kinds else entry.kind != "downloads")
        ]
    _show(entries)
    # Also with nothing to delete: the run's record is then to say that there was nothing.
    if not entries and run is None:
        return
    if entries and not yes:
        if not sys.stdin.isatty():
            _say("Nothing was deleted: --yes deletes it.")
            return
        if not click.confirm("Delete this?"):
            _say("Nothing was deleted.")
            return
    for line in purged_lines(purge(entries) if run is None else purge_run(run)):
        click.echo(line)
    if run is not None:
        for line in kept_lines(remains):
            click.echo(line)


@cache.command()
@_kind_option
@click.pass_context
def verify(ctx: click.Context, kinds: tuple[str, ...]) -> None:
    """Check the hashes of what the cache holds; the exit code is 3 where one does not hold.

    What is damaged is never used: it is computed again when it is needed.
    """
    from pymixunlearn.experiments.cache import list_cache

    entries = [entry for entry in list_cache() if not kinds or entry.kind in kinds]
    checked = [entry for entry in entries if entry.checkable]
    damaged = 0
    for entry in checked:
        reason = entry.damage()
        if reason is not None:
            damaged += 1
            _say(f"damaged: {entry.files[0]}: {reason}")
    others = len(entries) - len(checked)
    rest = f" {others} have no hash (unfinished files, downloads)." if others else ""
    _say(f"{len(checked) - damaged} of {len(checked)} entries are what was written.{rest}")
    if damaged:
        ctx.exit(REFUSED)


def remains_lines(remains: Remains, folder: Path) -> Iterator[str]:
    """Yield what a run says at its end of where the forgotten data are still, and of how to be rid of them."""
    yield from kept_lines(remains)
    if remains.entries:
        yield from paragraph(f"The forgotten data are still in the cache: {_counted(remains.entries)}. To delete them:")
        yield f"  {shlex.join([PROGRAM, 'cache', 'purge', '--run', str(folder), '--yes'])}"
    else:
        yield "The cache holds nothing of the forgotten data."


def lines_of_data(split: Split) -> Iterator[str]:
    """Yield what a command that made many models says at its end of the cache."""
    from pymixunlearn.experiments.cache import entries_of

    place = (split.origin or split.dataset).place
    if entries := entries_of(place):
        yield from paragraph(f"Made of these data, forgotten ones among them, the cache holds: {_counted(entries)}.")
        yield "To delete it:"
        yield f"  {shlex.join([PROGRAM, 'cache', 'purge', '--dataset', place, '--yes'])}"


def kept_lines(remains: Remains) -> Iterator[str]:
    """Yield what no purge of a run deletes."""
    if remains.initial_model is not None:
        yield from paragraph(
            f"The model before unlearning still knows them, and is yours to delete: {printable(remains.initial_model)}"
        )
    if remains.pictures:
        yield from paragraph("The report shows images of the data; --no-thumbnails leaves them out.")
    if remains.unknown:
        yield from paragraph(
            f"{len(remains.unknown)} entries of an earlier version do not say what they are made of; "
            "'cache purge' without conditions deletes them too."
        )


def purged_lines(purged: Purged) -> Iterator[str]:
    """Yield what was deleted."""
    removed = _counted(purged.removed) if purged.removed else "nothing, it held none of it"
    yield from paragraph(f"Deleted from the cache: {removed}.")
    if purged.in_use:
        yield from paragraph(
            f"Left, since another process is at work on them: {len(purged.in_use)}. Give the command again later."
        )


def _counted(entries: Sequence[CacheEntry]) -> str:
    from pymixunlearn.benchmarking.units import size_of
    from pymixunlearn.experiments.cache import KINDS

    kinds = [(meaning, [entry for entry in entries if entry.kind == kind]) for kind, meaning in KINDS.items()]
    parts = [f"{meaning} ({len(found)})" for meaning, found in kinds if found]
    return f"{', '.join(parts)}, {size_of(sum(entry.size for entry in entries))}"


def _show(entries: Sequence[CacheEntry]) -> None:
    from pymixunlearn.benchmarking.units import size_of

    if not entries:
        _say("The cache holds nothing of this.")
        return
    rows = [(entry.kind, size_of(entry.size), _age(entry.seconds), printable(_made_of(entry))) for entry in entries]
    for line in table(("kind", "size", "age", "made of"), rows, fold=3):
        click.echo(line)
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    _say(f"{count}, {size_of(sum(entry.size for entry in entries))}.")


def _made_of(entry: CacheEntry) -> str:
    data = entry.source or entry.dataset or "not recorded"
    if entry.model and entry.kind in ("models", "snapshots"):
        part = "" if entry.without is None else ", without a forget set"
        return f"{entry.model}, of {data}{part}"
    return data


def _age(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _say(text: str) -> None:
    for line in paragraph(printable(text)):
        click.echo(line)
