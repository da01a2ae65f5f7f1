"""Measures one case: builds it, checks that all providers agree, and times them beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from pymixunlearn.benchmarking.agreement import Mismatch, check_agreement
from pymixunlearn.benchmarking.cases import MODES, Case
from pymixunlearn.benchmarking.machine import Machine
from pymixunlearn.benchmarking.memory import Peaks, available_memory, peak_memory
from pymixunlearn.benchmarking.problems import Job, build, runnable, uses_kernel
from pymixunlearn.benchmarking.results import FAILED, MEASURED, SKIPPED, Measurement
from pymixunlearn.benchmarking.timing import Clock, CpuClock, CudaClock, Sample, captured, interleaved, quantiles

#: Who is compared, and how readers know them.
PROVIDERS = {"fused": "fused", "pytorch": "PyTorch", "compile": "torch.compile", "sdpa": "SDPA"}

#: How long a case is timed by default, of everything and of a quick selection.
SECONDS, QUICK_SECONDS = 1.5, 0.3

NOT_COMPILED = "left out by --no-compile"
# The rest is for what is not counted, and for whoever else is on the machine.
_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: Where.
        seconds: How long each case is timed, about, per way of launching.
        compile: Whether to compare with ``torch.compile`` too.
        bandwidth: Bytes per second of a large copy on the device, see :func:`.machine.copy_bandwidth`.
    """

    device: torch.device
    seconds: float
    compile: bool
    bandwidth: float

    @property
    def launches(self) -> tuple[str, ...]:
        """The ways of launching that are measured on the device."""
        return ("plain", "flushed", "graph") if self.device.type == "cuda" else ("plain",)

    def providers(self, case: Case) -> tuple[str, ...]:
        """Who is measured in a case."""
        compiled = ("compile",) if self.compile else ()
        sdpa = ("sdpa",) if case.op == "mixblock_attention" else ()
        return ("fused", "pytorch", *compiled, *sdpa)


@dataclass(frozen=True)
class _Ready:
    """A provider that has run, and agreed."""

    job: Job
    peaks: Peaks


def measure_case(case: Case, settings: Settings, machine: Machine) -> list[Measurement]:
    """Measure all providers of a case.

    Nothing but an interruption ends this early: a case that does not fit into memory is skipped, one that raises or in
    which a provider computes something else has failed, and the rows say so.
    """
    rows = _Rows(case, settings, machine)
    need, free = case.memory(), available_memory(settings.device)
    if free is not None and need > _SHARE_OF_MEMORY * free:
        return rows.without_times(SKIPPED, f"may need {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
    try:
        ready = dict(_verified(case, settings))
        for launch in settings.launches:
            rows.add(launch, ready, _times(launch, ready, settings))
    except (torch.OutOfMemoryError, MemoryError) as error:
        return rows.without_times(SKIPPED, _sentence(error))
    except Mismatch as error:
        return rows.without_times(FAILED, str(error))
    except Exception as error:
        return rows.without_times(FAILED, f"{type(error).__name__}: {_sentence(error)}")
    finally:
        torch.compiler.reset()
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows.rows


def _sentence(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0].strip()


def _verified(case: Case, settings: Settings) -> Iterator[tuple[str, _Ready]]:
    """Run every provider once and compare it with the fused one."""
    problem = build(case, settings.device)
    expected: list[torch.Tensor] = []
    for provider in settings.providers(case):
        job = runnable(problem, provider)
        peaks, result, gradients = peak_memory(job, settings.device)
        if provider == "fused":
            expected = [result, *gradients]
        else:
            check_agreement(PROVIDERS[provider], expected, [result, *gradients])
        del result, gradients
        yield provider, _Ready(job, peaks)


def _times(launch: str, ready: dict[str, _Ready], settings: Settings) -> dict[str, list[Sample]]:
    jobs = {provider: entry.job for provider, entry in ready.items()}
    if launch == "graph":
        jobs = {provider: captured(job, settings.device) for provider, job in jobs.items()}
    clock: Clock
    clock = CpuClock() if settings.device.type == "cpu" else CudaClock(settings.device, flush=launch == "flushed")
    return interleaved(clock, jobs, settings.seconds)


class _Rows:
    """Makes a case's rows, one per way of launching, provider and mode."""

    def __init__(self, case: Case, settings: Settings, machine: Machine) -> None:
        self.rows: list[Measurement] = []
        self._case, self._settings, self._machine = case, settings, machine
        self._kernel = "compiled" if uses_kernel(case, settings.device) else "reference"

    def without_times(self, status: str, reason: str) -> list[Measurement]:
        """Return rows that say why the case has no times."""
        providers, launches = self._settings.providers(self._case), self._settings.launches
        return [
            self._row(launch, provider, mode, status=status, reason=reason)
            for launch in launches
            for provider in providers
            for mode in MODES
        ]

    def add(self, launch: str, ready: dict[str, _Ready], times: dict[str, list[Sample]]) -> None:
        """Add the rows of one way of launching, and say who was left out."""
        for provider, samples in times.items():
            for mode in MODES:
                low, median, high = quantiles(samples, mode)
                self.rows.append(
                    self._row(
                        launch,
                        provider,
                        mode,
                        times=(low * 1e3, median * 1e3, high * 1e3),
                        runs=len(samples),
                        ratio=median / quantiles(times["fused"], mode)[1],
                        peak=getattr(ready[provider].peaks, mode),
                    )
                )
        if not self._settings.compile:
            for mode in MODES:
                self.rows.append(self._row(launch, "compile", mode, status=SKIPPED, reason=NOT_COMPILED))

    def _row(
        self,
        launch: str,
        provider: str,
        mode: str,
        *,
        status: str = MEASURED,
        reason: str = "",
        times: tuple[float, float, float] | None = None,
        runs: int = 0,
        ratio: float | None = None,
        peak: int | None = None,
    ) -> Measurement:
        traffic = self._case.traffic(mode)
        bandwidth = self._settings.bandwidth
        low, median, high = times or (None, None, None)
        return Measurement(
            **asdict(self._case),
            mode=mode,
            launch=launch,
            provider=provider,
            status=status,
            reason=reason,
            kernel=self._kernel if provider == "fused" else "",
            p20_ms=low,
            p50_ms=median,
            p80_ms=high,
            runs=runs,
            ratio=ratio,
            bytes=traffic.bytes,
            operations=traffic.operations,
            copy_gb_s=bandwidth / 1e9,
            share_of_copy=None if median is None else traffic.bytes / (median / 1e3) / bandwidth,
            expected_ms=traffic.bytes / bandwidth * 1e3,
            peak_bytes=peak,
            device=self._machine.device,
            threads=self._machine.threads,
            seconds=self._settings.seconds,
            versions=self._machine.versions,
        )
