"""``mixunlearn-cli bench step``: whole training steps, and where their time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .bench import bench
from .options import Number, WholeNumber

if TYPE_CHECKING:
    from rich.console import Console

    from pymixunlearn.benchmarking.step.measure import StepRow

_PATH = click.Path(path_type=Path)


@bench.command()
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=WholeNumber(min=1), metavar="N", help="CPU threads.  [default: PyTorch's]")
@click.option(
    "--case",
    "names",
    multiple=True,
    metavar="NAME",
    help="cnn-28, resnet18-32, resnet18-224 or vit-224: network and image size; repeat for several.  [default: all]",
)
@click.option(
    "--batch-size",
    type=WholeNumber(min=2),
    metavar="N",
    help="Images of each set per step.  [default: 32; on a CPU 8 for resnet18-32 and vit-224, 2 for resnet18-224]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the networks in the fast step; the others compute in float32.  [default: bfloat16 on GPUs that have it]",
)
@click.option(
    "--seconds",
    type=Number(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="S",
    help="About how long to time each case.",
)
@click.option("--out", type=_PATH, metavar="FILE.csv", help="Where the rows go.  [default: runs/bench-step-DEVICE.csv]")
def step(**values: Any) -> None:
    """Time training steps beside a loop in plain PyTorch, and the parts of a step.

    All loops and parts take turns in one run. The plain loop is written as the paper describes the method: f_D is
    run in every step, masks come from interpolate, losses from cosine_similarity, Adam is PyTorch's default.

    \b
    Examples:
      mixunlearn-cli bench step --case cnn-28 --threads 1
      mixunlearn-cli bench step --case resnet18-32 --batch-size 4 --seconds 60
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    import torch

    from pymixunlearn.benchmarking import describe_machine
    from pymixunlearn.benchmarking.rows import write_rows
    from pymixunlearn.benchmarking.step.measure import STEP_CASES, measure_step
    from pymixunlearn.errors import unknown_name
    from pymixunlearn.training import resolve_device
    from pymixunlearn.training.process_pool import held_to_threads

    from .progress import make_console, say, watching

    names = tuple(dict.fromkeys(values["names"])) or tuple(STEP_CASES)
    for name in names:
        if name not in STEP_CASES:
            raise click.UsageError(str(unknown_name("case", name, STEP_CASES)))
    device = resolve_device(values["device"])
    out = values["out"] or Path("runs") / f"bench-step-{device.type}.csv"
    console = make_console()
    rows: list[StepRow] = []
    with held_to_threads(values["threads"] or torch.get_num_threads()):
        machine = describe_machine(device)
        with watching(console) as observer:
            observer.note(f"{machine.device}, {machine.threads} threads.")
            observer.phase_started("bench step", len(names))
            for done, name in enumerate(names):
                observer.phase_advanced("bench step", done, name)
                case = STEP_CASES[name]
                rows += measure_step(
                    case,
                    batch=values["batch_size"] or (case.cpu_batch if device.type == "cpu" else case.batch),
                    device=device,
                    seconds=values["seconds"],
                    precision=values["precision"],
                    machine=machine,
                )
                write_rows(out, rows)  # the cases so far are saved if a later one is interrupted
            observer.phase_finished(
                "bench step", f"{len(names)} cases measured" if len(names) > 1 else "1 case measured"
            )
    _show(console, rows)
    say(console, f"All columns: {out}")


def _show(console: Console, rows: list[StepRow]) -> None:
    """Print the steps of every case, and the parts of the fast one."""
    from pymixunlearn.benchmarking.step.measure import PARTS, PROVIDERS, network_share
    from pymixunlearn.benchmarking.units import duration, share, size_of
    from pymixunlearn.reporting.folding import FoldingTable

    plain = not console.is_terminal
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        title = f"{case}, batch {own[0].batch}"
        steps = FoldingTable("step", "what", "median", "ratio", "images/s", "peak", names=2, title=title, plain=plain)
        parts = FoldingTable("part", "what", "median", "share", names=2, plain=plain)
        for row in own:
            time = duration(row.p50_ms)
            if row.part == "step":
                rate = f"{row.images_per_second:.0f}"
                steps.add_row(
                    row.provider, PROVIDERS[row.provider], time, f"{row.ratio:.2f} ×", rate, size_of(row.peak_bytes)
                )
            else:
                parts.add_row(row.part, PARTS[row.part], time, share(row.share))
        console.print(steps)
        console.print(parts)
        console.print(f"Passes through networks are {share(network_share(own))} of the fast step.", markup=False)
    console.print("Ratios are a loop's median over the fast step's: above 1 the fast one is faster.")
