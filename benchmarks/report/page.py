"""Part of a Markdown page made from result files: how it was measured, plots, tables, expected times on GPUs."""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report.expected import COPY_SHARE, GPUS, expected_ms
from benchmarks.report.plot import ratio_plot
from pymixunlearn.benchmarking.ops.cases import SIZES, Case, grid
from pymixunlearn.benchmarking.ops.comparison import RIVALS, Comparison, compare
from pymixunlearn.benchmarking.ops.measure import NOT_COMPILED, PROVIDERS, QUICK_SECONDS, SECONDS
from pymixunlearn.benchmarking.ops.results import MEASURED, Measurement
from pymixunlearn.benchmarking.units import duration, share, size_of
from pymixunlearn.errors import UserError
from pymixunlearn.files import write_atomically

_BEGIN, _END = "<!-- bench ops: begin (made by python -m benchmarks.report) -->", "<!-- bench ops: end -->"

_METHOD = """\
Every operator at every pairing, size and dtype, beside plain PyTorch (softmax, `cosine_similarity` and `logsumexp` for
the losses; `interpolate`, `sigmoid` and `lerp` for the mix; batched products for the attention), the same under
`torch.compile`, and for the attention `scaled_dot_product_attention` (SDPA).

- Before timing, each rival's value and gradients are compared with the fused operator's; a case where they differ
  fails.
- All providers of a case are timed in turn within one run, so that noise hits them alike. Times are percentiles over
  the runs; ratios are of medians, the rival's over the fused operator's: above 1 the fused operator is faster, **bold**
  marks where it lost.
- The forward saves what the backward needs, as in training; the backward computes the gradients that training needs:
  of the logits, of the mix the mask's only, of the attention all six. Targets are probabilities.
- Losses of half-precision logits are computed in float32 by the rivals too, as under autocast.
- *Of copy* is the traffic that the case cannot avoid (every input read once, every output written once) over the
  median, over the rate at which a large tensor is copied to another, measured in the same run. A case whose data stay
  in the cache, or that only reads, can exceed 100 %; on a CPU a result larger than some 30 MB is new memory in every
  call, which the system has to provide, while the copy's is there. *At copy rate* is the time of this traffic at that
  rate.
- *Memory* is the peak of tensors alive beyond the inputs, fused / PyTorch.
- On GPUs times are between events on the stream: *plain*, *flushed* (the level-2 cache overwritten before every run)
  and *graph* (replays of CUDA graphs).
"""


def write_page(path: Path, sources: Sequence[tuple[str, Sequence[Measurement]]]) -> list[Path]:
    """Write the measurements' part of a page, and its plots beside it; the rest of an existing page stays.

    Args:
        path: The page; a new one gets a heading.
        sources: The command that made them and the rows, one per machine.

    Returns:
        The files written.

    Raises:
        UserError: The page has only one of the two marks around the part, or a file cannot be written.
    """
    try:
        page = path.read_text(encoding="utf-8") if path.exists() else f"# Performance\n\n{_BEGIN}\n{_END}\n"
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if (_BEGIN in page) != (_END in page) or page.count(_BEGIN) > 1:
        raise UserError(
            f"'{path}' has a damaged part of measurements; expected one '{_BEGIN}' and one '{_END}' after it"
        )
    if _BEGIN not in page:
        page = f"{page.rstrip()}\n\n{_BEGIN}\n{_END}\n"
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    written = []
    sections = ["## The fused operators", "", _METHOD, *_sizes()]
    for command, rows in sources:
        comparisons = compare(rows)
        plots = []
        for launch in dict.fromkeys(row.launch for row in rows):
            chosen = [
                entry
                for entry in comparisons
                if (entry.fused.launch, entry.fused.mode) == (launch, "both")
                and any(rival.ratio is not None for rival in entry.rivals.values())
            ]
            title = f"Forward and backward, {launch}, {_where(rows[0])}"
            plot = path.with_name(f"{path.stem}-{_slug(rows[0].device)}-{launch}.svg")
            write_atomically(plot, ratio_plot(chosen, title).encode())
            written.append(plot)
            plots.append(f"![{title}: ratio to each rival]({plot.name})")
        sections += [*_machine(command, rows, comparisons), "", *plots, "", *_table(comparisons), *_left_out(rows)]
    sections += ["", *_expectations([row for _, rows in sources for row in rows])]
    part = "\n".join(sections).rstrip()
    write_atomically(path, f"{before}{_BEGIN}\n\n{part}\n\n{_END}{after}".encode())
    return [path, *written]


def command_line(rows: Sequence[Measurement], name: str) -> str:
    """Return the command that measures like these rows, apart from a selection by --case or --dtype.

    Args:
        rows: At least one, of one machine.
        name: Of the file they come from.
    """
    first = rows[0]
    words = ["mixunlearn-cli", "bench", "ops", "--threads", str(first.threads)]
    if first.seconds == QUICK_SECONDS:
        words.append("--quick")
    elif first.seconds != SECONDS:
        words += ["--seconds", f"{first.seconds:g}"]
    if all(row.reason == NOT_COMPILED for row in rows if row.provider == "compile"):
        words.append("--no-compile")
    return shlex.join([*words, "--out", name])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _where(row: Measurement) -> str:
    return f"{row.device}, {row.threads} thread{'s' if row.threads > 1 else ''}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(headings: Sequence[str]) -> list[str]:
    return [_line(headings), _line(["---"] * len(headings))]


def _sizes() -> Iterator[str]:
    yield from _head(["size", "samples", "classes", "images", "mask", "channels of q and k"])
    for name, size in SIZES.items():
        samples = f"{size.samples} + {size.samples}"
        if name == "large":
            samples += f" in grid pairing, {size.samples**2} + {size.samples**2} otherwise"
        cells = [name, samples, str(size.classes), f"3×{size.image}×{size.image}", f"{size.side}×{size.side}"]
        yield _line([*cells, str(size.dim)])
    yield ""


def _machine(command: str, rows: Sequence[Measurement], comparisons: Sequence[Comparison]) -> Iterator[str]:
    first = rows[0]
    yield f"### {_where(first)}"
    yield ""
    yield f"    {command}"
    yield ""
    rates = sorted({row.copy_gb_s for row in rows})
    rate = f"{rates[0]:.1f}" if len(rates) == 1 else f"{rates[0]:.1f} to {rates[-1]:.1f}"
    yield f"{first.versions}. A large copy moves {rate} GB/s. Each case was timed for about {first.seconds:g} s."
    plain = sorted({row.op for row in rows if row.kernel == "reference"})
    if plain:
        yield f"Without a kernel in this version, and therefore plain PyTorch themselves: {', '.join(plain)}."
    yield ""
    for rival in RIVALS:
        ratios = [row.ratio for entry in comparisons if (row := entry.rivals.get(rival)) and row.ratio is not None]
        if ratios:
            lost = sum(ratio < 1 for ratio in ratios)
            median = statistics.median(ratios)
            yield (
                f"- Beside {PROVIDERS[rival]}: {len(ratios)} comparisons, median ratio {median:.2f}, "
                f"from {min(ratios):.2f} to {max(ratios):.2f}; lost {lost}."
            )


def _table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    launches = {entry.fused.launch for entry in comparisons} != {"plain"}
    rivals = [rival for rival in RIVALS if any(rival in entry.rivals for entry in comparisons)]
    headings = ["operator", "pairing", "size", "dtype", "pass", *(["launch"] if launches else [])]
    headings += [
        "fused p20",
        "p50",
        "p80",
        *(PROVIDERS[rival] for rival in rivals),
        "of copy",
        "at copy rate",
        "memory",
    ]
    yield from _head(headings)
    for entry in comparisons:
        fused = entry.fused
        if fused.status != MEASURED:
            continue
        ratios = [
            f"**{text}**" if rival in entry.lost_to else text for rival in rivals for text in [entry.ratio(rival)]
        ]
        plain = entry.rivals["pytorch"].peak_bytes if "pytorch" in entry.rivals else None
        yield _line(
            [
                fused.op,
                fused.pairing,
                fused.size,
                fused.dtype,
                fused.mode,
                *([fused.launch] if launches else []),
                *(duration(value) for value in (fused.p20_ms, fused.p50_ms, fused.p80_ms)),
                *ratios,
                share(fused.share_of_copy),
                duration(fused.expected_ms),
                f"{size_of(fused.peak_bytes)} / {size_of(plain)}",
            ]
        )


def _left_out(rows: Sequence[Measurement]) -> Iterator[str]:
    whole = {row.case for row in rows if row.provider == "fused" and row.status != MEASURED}
    reasons = dict.fromkeys(
        (row.case.name, "" if row.case in whole else f", {PROVIDERS[row.provider]}", row.status, row.reason)
        for row in rows
        if row.status != MEASURED and row.reason != NOT_COMPILED and (row.provider == "fused" or row.case not in whole)
    )
    lines = [f"- {name}{provider}: {status}, {reason}." for name, provider, status, reason in reasons]
    if lines:
        yield from ["", "Not measured:", "", *lines]
    if any(row.reason == NOT_COMPILED for row in rows):
        yield from ["", "Where a dash stands under torch.compile, it was left out by `--no-compile`."]


def _expectations(rows: Sequence[Measurement]) -> Iterator[str]:
    """Expected times of the GPUs in the data sheets, beside what was measured on one, if it was."""
    bandwidths = ", ".join(f"{name} {gpu.bandwidth / 1e12:g} TB/s" for name, gpu in GPUS.items())
    yield "### Expected on GPUs"
    yield ""
    yield (
        f"Forward and backward together: the unavoidable traffic at {COPY_SHARE:.0%} of the data sheet's bandwidth "
        f"({bandwidths}), which a large copy is assumed to reach; for the attention its operations instead where they "
        "take longer (67 Tflop/s in float32, 989 in bfloat16). Launching a kernel takes a few microseconds, which are "
        "not counted: below about 10 µs the launches are the time. A measured column (plain launches, median) is empty "
        "until it has been measured."
    )
    yield ""
    headings = [f"{name} {what}" for name in GPUS for what in ("expected", "measured")]
    yield from _head(["operator", "pairing", "size", "dtype", "traffic", *headings])
    fused = [row for row in rows if (row.provider, row.mode, row.launch) == ("fused", "both", "plain")]
    for case in grid(tuple(SIZES), ("float32", "bfloat16")):
        cells = [case.op, case.pairing, case.size, case.dtype, size_of(case.traffic("both").bytes)]
        for name, gpu in GPUS.items():
            cells += [duration(expected_ms(case, "both", gpu)), _measured(case, name, fused)]
        yield _line(cells)


def _measured(case: Case, gpu: str, rows: Sequence[Measurement]) -> str:
    times = [row.p50_ms for row in rows if row.case == case and gpu in row.device and row.p50_ms is not None]
    return duration(times[0]) if times else ""
