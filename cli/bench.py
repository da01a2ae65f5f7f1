"""``mixunlearn-cli bench``: the fused operators beside plain PyTorch."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .endings import complain, resumable
from .help import Group
from .options import bench_options

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from pymixunlearn.benchmarking.ops import Case, ResultFile, Settings

_PATH = click.Path(path_type=Path)


@click.group(cls=Group)
def bench() -> None:
    """Measure how fast it is here, beside what PyTorch offers."""


@bench.command()
@bench_options
@click.pass_context
def ops(ctx: click.Context, /, **values: Any) -> None:
    """Time every operator, forward and backward, beside plain PyTorch, torch.compile and SDPA.

    Every rival's value and gradients are compared with the fused operator's first. The rows of a case are in the file
    as soon as it is measured; the same command goes on where an interrupted one stopped. Large cases and compiling take
    most of the time; --quick and --no-compile leave them out.

    \b
    Examples:
      mixunlearn-cli bench ops --quick
      mixunlearn-cli bench ops --case 'mix_contrastive_loss-*' --dtype float32 \\
          --threads 1
      mixunlearn-cli bench ops --threads 2 --out cpu.csv
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    import torch

    from pymixunlearn.benchmarking import describe_machine
    from pymixunlearn.benchmarking.machine import copy_bandwidth
    from pymixunlearn.benchmarking.ops import QUICK_SECONDS, SECONDS, ResultFile, Settings
    from pymixunlearn.benchmarking.ops.comparison import summary_table
    from pymixunlearn.training import resolve_device
    from pymixunlearn.training.process_pool import held_to_threads

    from .progress import make_console, say

    device = resolve_device(values["device"])
    quick = values["quick"]
    cases = _cases(values, device)
    out = values["out"] or Path("runs") / f"bench-ops-{device.type}{'-quick' if quick else ''}.csv"
    seconds = values["seconds"] or (QUICK_SECONDS if quick else SECONDS)
    console = make_console()
    with held_to_threads(values["threads"] or torch.get_num_threads()):
        machine = describe_machine(device)
        results = ResultFile(out, machine, seconds)
        settings = Settings(device, seconds, not values["no_compile"], copy_bandwidth(device))
        with resumable(ctx, f"the measured cases are saved in {out}"):
            _measure(console, cases, settings, results)
    rows = [row for row in results.rows if row.case in cases]
    console.print(summary_table(rows, plain=not console.is_terminal))
    console.print("Ratios are a rival's median over the fused operator's: above 1 the fused one is faster.")
    say(console, f"Forward, backward and all columns: {out}")
    failed = list(dict.fromkeys(row.case.name for row in rows if row.status == "failed"))
    if failed:
        complain(f"Error: {len(failed)} of {len(cases)} cases failed: {', '.join(failed)}")
        ctx.exit(1)


def _cases(values: dict[str, Any], device: torch.device) -> list[Case]:
    """Return the cases that the options choose."""
    from pymixunlearn.benchmarking.ops import DTYPES, OPERATORS, SIZES, grid
    from pymixunlearn.errors import unknown_name

    quick = values["quick"]
    halves = ("bfloat16", "float16") if device.type == "cuda" else ("bfloat16",)
    dtypes = values["dtypes"] or ("float32", *(() if quick else halves))
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise click.UsageError(str(unknown_name("dtype", dtype, DTYPES)))
    every = list(grid(("small", "medium") if quick else tuple(SIZES), dict.fromkeys(dtypes)))
    if not values["dtypes"] and device.type == "cpu":
        # Large cases are most of the time, and half precision would double them.
        every = [case for case in every if case.size != "large" or case.dtype == "float32"]
    patterns = values["patterns"] or ("*",)
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in every):
            raise click.UsageError(
                f"--case '{pattern}' matches none of {len(every)} cases; expected names such as "
                f"{every[0].name}, of the operators {', '.join(OPERATORS)}."
            )
    return [case for case in every if any(fnmatchcase(case.name, pattern) for pattern in patterns)]


def _measure(console: Console, cases: list[Case], settings: Settings, results: ResultFile) -> None:
    """Measure what the file does not have yet, and show how it goes."""
    from pymixunlearn.benchmarking import describe_machine
    from pymixunlearn.benchmarking.ops import measure_case

    from .progress import watching

    machine = describe_machine(settings.device)
    missing = [case for case in cases if not results.has(case, settings.providers(case), settings.launches)]
    with watching(console) as observer:
        observer.note(
            f"{len(cases)} cases, {len(cases) - len(missing)} of them measured already; {machine.device}, "
            f"{machine.threads} threads; a large copy moves {settings.bandwidth / 1e9:.1f} GB/s."
        )
        if not settings.compile:
            observer.note("torch.compile is left out.")
        observer.phase_started("bench ops", len(cases), len(cases) - len(missing))
        for index, case in enumerate(missing):
            done = len(cases) - len(missing) + index
            observer.phase_advanced("bench ops", done, case.name)
            rows = measure_case(case, settings, machine)
            results.add(rows)
            for status, reason in dict.fromkeys((row.status, row.reason) for row in rows if row.provider == "fused"):
                if reason:
                    observer.note(f"{case.name} {status}: {reason}.")
        observer.phase_finished("bench ops", f"{len(missing)} cases measured")


@bench.command(hidden=True, context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def report(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run ``python -m benchmarks.report ops``, which took the place of this command."""
    import subprocess
    import sys

    from pymixunlearn.errors import UserError

    new = "python -m benchmarks.report ops FILE.csv..."
    if not Path("benchmarks", "report", "__main__.py").is_file():
        raise UserError(f"'bench report' is now '{new}'; run it in the top folder of a checkout of pymixunlearn")
    complain(f"Warning: 'bench report' is now '{new}'; the old name goes with version 0.3")
    ctx.exit(subprocess.run([sys.executable, "-m", "benchmarks.report", "ops", *arguments]).returncode)
