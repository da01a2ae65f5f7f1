"""Measurements as rows of a CSV file, which grows case by case and from which everything else is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pymixunlearn.benchmarking.machine import Machine
from pymixunlearn.benchmarking.ops.cases import Case
from pymixunlearn.benchmarking.rows import columns, read_rows, write_rows
from pymixunlearn.errors import UserError

MEASURED, SKIPPED, FAILED = "measured", "skipped", "failed"


@dataclass(frozen=True)
class Measurement:
    """One provider in one case, pass and way of launching: a row of the file, its columns in order.

    Attributes:
        op: The operator; with ``pairing`` ("" for the row-wise ones), ``size`` and ``dtype`` the case.
        mode: "forward" (keeping what the backward needs), "backward" or "both".
        launch: "plain"; on GPUs also "flushed" (cache overwritten before every run) and "graph" (CUDA graphs).
        provider: "fused", "pytorch", "compile", "sdpa" or "sdpa-padded".
        status: "measured", "skipped" or "failed".
        reason: Why not, unless measured.
        kernel: Of the fused one: whether it is "compiled" or plain PyTorch, the "reference".
        p20_ms: 20th percentile of the times, in milliseconds.
        p50_ms: The median.
        p80_ms: 80th percentile.
        runs: How many were timed.
        ratio: This median over the fused one's; above 1 the fused one is faster.
        bytes: What the case cannot avoid moving.
        operations: What the case cannot avoid computing in matrix products.
        copy_gb_s: Gigabytes per second that a large copy reads and writes, measured in the same run.
        share_of_copy: ``bytes`` over the median, over the copy's rate.
        expected_ms: ``bytes`` at the copy's rate.
        peak_bytes: Most memory of tensors beyond the inputs.
        device: In words.
        threads: Of the CPU.
        seconds: How long each case was measured, about.
        versions: Of everything compared.
    """

    op: str
    pairing: str
    size: str
    dtype: str
    mode: str
    launch: str
    provider: str
    status: str
    reason: str
    kernel: str
    p20_ms: float | None
    p50_ms: float | None
    p80_ms: float | None
    runs: int
    ratio: float | None
    bytes: int
    operations: int
    copy_gb_s: float
    share_of_copy: float | None
    expected_ms: float
    peak_bytes: int | None
    device: str
    threads: int
    seconds: float
    versions: str

    @property
    def case(self) -> Case:
        """What was measured."""
        return Case(self.op, self.pairing, self.size, self.dtype)


COLUMNS = columns(Measurement)


def read_results(path: Path) -> list[Measurement]:
    """Read a file of measurements.

    Raises:
        UserError: It cannot be read, or is not such a file.
    """
    return read_rows(path, Measurement)


class ResultFile:
    """Measurements that are on disk as soon as they are known.

    Args:
        path: Read if it exists; written whenever rows are added.
        machine: Where the rows to come are measured.
        seconds: How long each case will be.

    Raises:
        UserError: The file is not one of measurements, or is of another machine, other versions or another duration.
    """

    def __init__(self, path: Path, machine: Machine, seconds: float) -> None:
        self.path = path
        self.rows: list[Measurement] = read_results(path) if path.exists() else []
        now = {**asdict(machine), "seconds": seconds}
        for row in self.rows:
            for name, value in now.items():
                if getattr(row, name) != value:
                    raise UserError(
                        f"'{path}' holds other measurements ({name} is {getattr(row, name)}, not {value}); "
                        "expected a new file or one to go on with"
                    )

    def has(self, case: Case, providers: Iterable[str], launches: Iterable[str]) -> bool:
        """Whether all of these were measured in a case."""
        known = {(row.provider, row.launch) for row in self.rows if row.case == case and row.status == MEASURED}
        return known >= {(provider, launch) for provider in providers for launch in launches}

    def add(self, rows: Sequence[Measurement]) -> None:
        """Keep the rows of a case, in place of what was known of it.

        Raises:
            UserError: The file cannot be written.
        """
        cases = {row.case for row in rows}
        self.rows = [row for row in self.rows if row.case not in cases] + list(rows)
        write_rows(self.path, self.rows)
