"""``mixunlearn-cli bench end-to-end``: a whole deletion request beside Retrain, and how its cost grows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs

from .bench import bench
from .options import WholeNumber, inputs_options, make_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from rich.console import Console

    from pymixunlearn.benchmarking import Machine
    from pymixunlearn.benchmarking.end_to_end.growth import GrowthRow
    from pymixunlearn.benchmarking.end_to_end.request import RequestRow
    from pymixunlearn.experiments import Observer

_PATH = click.Path(path_type=Path)
_PARTS = ("request", "growth")
_NOT_ASKED = ("retrain", "relearn", "tsne", "thumbnails", "png", "max_drop", "sign_key", "forget_key", "forget_history")
_FORGET, _RETAIN = (1000, 2000, 4000, 8000), (8000, 16000, 32000, 64000)
_QUICK_FORGET, _QUICK_RETAIN = (128, 256), (256, 512)


@bench.command("end-to-end")
@inputs_options(
    UnlearnInputs, without=("method", "model", "architecture", "weights", "model_config", "allow_code", *_NOT_ASKED)
)
@click.option("--threads", type=WholeNumber(min=1), metavar="N", help="CPU threads.  [default: PyTorch's]")
@click.option(
    "--part", "parts", type=click.Choice(_PARTS), multiple=True, help="Only this part.  [default: request and growth]"
)
@click.option("--quick", is_flag=True, help="Growth over a few hundred images only.")
@click.option("--out", type=_PATH, metavar="DIR", help="Where the tables go.  [default: runs/bench-end-to-end-DEVICE]")
def end_to_end(**values: Any) -> None:
    """Time a deletion request from end to end, and how time and memory grow.

    The request: unlearn, retrain and a loop in plain PyTorch of as many steps as unlearning took, in one run. The
    initial model is trained, or taken from the cache, and not counted. Growth: seconds against the images to forget,
    and peak memory against those that remain, on noise, every size in a process of its own.

    \b
    Examples:
      mixunlearn-cli bench end-to-end
      mixunlearn-cli bench end-to-end --dataset fashion-mnist --threads 1 \\
          --part request
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    import torch

    from pymixunlearn.benchmarking import describe_machine
    from pymixunlearn.training import resolve_device
    from pymixunlearn.training.process_pool import held_to_threads

    from .progress import make_console, say, watching

    device = resolve_device(values["device"])
    out = values["out"] or Path("runs") / f"bench-end-to-end-{device.type}"
    parts = values["parts"] or _PARTS
    requests: list[RequestRow] = []
    growth: list[GrowthRow] = []
    console = make_console()
    with held_to_threads(values["threads"] or torch.get_num_threads()):
        machine = describe_machine(device)
        with watching(console) as observer:
            observer.note(f"{machine.device}, {machine.threads} threads.")
            if "request" in parts:
                requests = _measure_request(values, machine, observer, out)
            if "growth" in parts:
                growth = _measure_growth(values["quick"], device, machine, observer, out)
    if requests:
        _show_request(console, requests)
    if growth:
        _show_growth(console, growth)
    say(console, f"Tables: {out}")


def _measure_request(values: dict[str, Any], machine: Machine, observer: Observer, out: Path) -> list[RequestRow]:
    from pymixunlearn.benchmarking.end_to_end.request import measure_request
    from pymixunlearn.benchmarking.rows import write_rows
    from pymixunlearn.experiments import resolve_unlearning

    inputs = make_inputs(UnlearnInputs, {**values, "stop": values["stop"] or "auto"})
    rows = measure_request(resolve_unlearning(inputs, observer=observer), machine=machine, observer=observer)
    write_rows(out / "request.csv", rows)
    return rows


def _measure_growth(
    quick: bool, device: torch.device, machine: Machine, observer: Observer, out: Path
) -> list[GrowthRow]:
    from pymixunlearn.benchmarking.end_to_end.growth import measure_growth, series
    from pymixunlearn.benchmarking.rows import write_rows

    forget, retain = (_QUICK_FORGET, _QUICK_RETAIN) if quick else (_FORGET, _RETAIN)
    sizes = series(forget, retain, forget_epochs=1, retain_epochs=1 if quick else 5)
    rows: list[GrowthRow] = []
    observer.phase_started("growth", len(sizes))
    for row in measure_growth(sizes, device=device, machine=machine):
        rows.append(row)
        write_rows(out / "growth.csv", rows)  # the sizes so far are saved if a later one is interrupted
        observer.phase_advanced("growth", len(rows), f"{row.forget} to forget, {row.retain} to keep")
    observer.phase_finished("growth", f"{len(sizes)} sizes")
    return rows


def _show_request(console: Console, rows: Sequence[RequestRow]) -> None:
    from pymixunlearn.benchmarking.end_to_end.request import PROVIDERS
    from pymixunlearn.reporting.folding import FoldingTable

    first = rows[0]
    title = f"{first.dataset}, {first.task}, {first.forget} of {first.forget + first.retain} images to forget"
    headings = ("", "what", "steps", "seconds", "Retrain / it", "total gap")
    table = FoldingTable(*headings, names=2, title=title, plain=not console.is_terminal)
    for row in rows:
        gap = "" if row.gap is None else f"{row.gap:.2f}"
        what = PROVIDERS[row.provider]
        table.add_row(row.provider, what, str(row.steps), f"{row.seconds:.1f}", f"{row.ratio:.1f} ×", gap)
    console.print(table)
    console.print("The total gap is the sum of the distances to Retrain over the paper's metrics, in points.")


def _show_growth(console: Console, rows: Sequence[GrowthRow]) -> None:
    from pymixunlearn.benchmarking.end_to_end.growth import fitted
    from pymixunlearn.benchmarking.units import size_of
    from pymixunlearn.reporting.folding import FoldingTable

    headings = ("to forget", "to keep", "images", "epochs", "seconds", "peak memory")
    table = FoldingTable(*headings, names=3, plain=not console.is_terminal)
    for row in rows:
        counts = (str(row.forget), str(row.retain), row.images, str(row.epochs))
        table.add_row(*counts, f"{row.seconds:.1f}", size_of(row.peak_bytes))
    console.print(table)
    growing = [row for row in rows if row.grows == "forget"]
    line = fitted([row.forget for row in growing], [row.seconds for row in growing])
    console.print(
        f"Time over images to forget: {1000 * line.slope:.2f} s per 1000, R² of a line {line.explained:.4f}.",
        markup=False,
    )
    for where in ("streamed", "in memory"):
        own = [row for row in rows if row.grows == "retain" and row.images == where and row.peak_bytes is not None]
        if len(own) > 1:
            slope = fitted([row.retain for row in own], [row.peak_bytes or 0 for row in own]).slope
            console.print(f"Memory over images to keep, {where}: {slope:+.0f} bytes per image.", markup=False)
