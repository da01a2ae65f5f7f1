"""Measurement of one case: builds it, checks that all providers agree, and times them beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from pymixunlearn.benchmarking.machine import Machine
from pymixunlearn.benchmarking.memory import Peaks, available_memory, peak_memory
from pymixunlearn.benchmarking.ops.agreement import Mismatch, check_agreement
from pymixunlearn.benchmarking.ops.cases import MODES, Case
from pymixunlearn.benchmarking.ops.problems import Problem, build, runnable, uses_kernel
from pymixunlearn.benchmarking.ops.results import FAILED, MEASURED, SKIPPED, Measurement
from pymixunlearn.benchmarking.timing import Clock, CpuClock, CudaClock, Job, Sample, captured, interleaved, quantiles

#: Who is compared, and how readers know them.
PROVIDERS = {
    "fused": "fused",
    "pytorch": "PyTorch",
    "compile": "torch.compile",
    "sdpa": "SDPA",
    "sdpa-padded": "SDPA, padded",
}

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
        bandwidth: Bytes per second of a large copy on the device; from ``copy_bandwidth``.
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
        sdpa = ("sdpa", "sdpa-padded") if case.op == "mixblock_attention" else ()
        return ("fused", "pytorch", *compiled, *sdpa)


@dataclass(frozen=True)
class _Ready:
    """A provider that has run, and agreed."""

    job: Job
    peaks: Peaks


def measure_case(case: Case, settings: Settings, machine: Machine) -> list[Measurement]:
    """Measure all providers of a case.

    Nothing but an interruption ends this early. A provider that does not fit into memory is skipped, one that raises
    when it is first run has failed, and the rows say so. Without the fused one, where another computes something else,
    or where one fails only while it is timed, the case has no times at all.
    """
    rows = _Rows(case, settings, machine)
    try:
        return _measured(rows, case, settings)
    except (_Unfit, Mismatch) as error:
        return rows.without_times(error)
    finally:
        torch.compiler.reset()
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()


class _Unfit(RuntimeError):
    """A provider cannot be measured; its status and the reason, in words."""

    def __init__(self, status: str, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.status = status


@contextmanager
def _or_unfit() -> Iterator[None]:
    """Turn whatever a provider raises, but for a mismatch, into the reason why it is not measured."""
    try:
        yield
    except Mismatch:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _Unfit(SKIPPED, _sentence(error)) from error
    except Exception as error:
        raise _Unfit(FAILED, f"{type(error).__name__}: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0].strip()


def _measured(rows: _Rows, case: Case, settings: Settings) -> list[Measurement]:
    """Run every provider, compare it with the fused one, and time those that can be."""
    _check_memory(case, settings, fused=True)
    with _or_unfit():
        problem = build(case, settings.device)
    fused, expected = _ready(problem, "fused", settings, [])
    ready = {"fused": fused}
    unfit: dict[str, _Unfit] = {}
    for rival in settings.providers(case)[1:]:
        try:
            _check_memory(case, settings, fused=False)
            ready[rival] = _ready(problem, rival, settings, expected)[0]
        except _Unfit as error:
            unfit[rival] = error
    del expected
    for launch in settings.launches:
        jobs, out = {}, dict(unfit)
        for provider, entry in ready.items():
            try:
                with _or_unfit():
                    jobs[provider] = captured(entry.job, settings.device) if launch == "graph" else entry.job
            except _Unfit as error:
                if provider == "fused":
                    raise
                out[provider] = error
        with _or_unfit():
            rows.add(launch, ready, interleaved(_clock(launch, settings), jobs, settings.seconds), out)
    return rows.rows


def _check_memory(case: Case, settings: Settings, *, fused: bool) -> None:
    need, free = case.memory(fused=fused), available_memory(settings.device)
    if free is not None and need > _SHARE_OF_MEMORY * free:
        usable = f"used are up to {_SHARE_OF_MEMORY:.0%} of {free / 1e9:.1f} GB free"
        raise _Unfit(SKIPPED, f"may need {need / 1e9:.1f} GB of memory; {usable}")


def _ready(
    problem: Problem, provider: str, settings: Settings, expected: list[torch.Tensor]
) -> tuple[_Ready, list[torch.Tensor]]:
    """Run a provider once, hold its results against the fused one's if there are any yet, and return them."""
    with _or_unfit():
        job = runnable(problem, provider)
        peaks, result, gradients = peak_memory(job, settings.device)
        results = [result, *gradients]
        if expected:
            check_agreement(PROVIDERS[provider], expected, results)
        return _Ready(job, peaks), results


def _clock(launch: str, settings: Settings) -> Clock:
    return CpuClock() if settings.device.type == "cpu" else CudaClock(settings.device, flush=launch == "flushed")


class _Rows:
    """Makes a case's rows, one per way of launching, provider and mode."""

    def __init__(self, case: Case, settings: Settings, machine: Machine) -> None:
        self.rows: list[Measurement] = []
        self._case, self._settings, self._machine = case, settings, machine
        self._kernel = "compiled" if uses_kernel(case, settings.device) else "reference"

    def without_times(self, error: _Unfit | Mismatch) -> list[Measurement]:
        """Return rows that say why the case has no times."""
        status = error.status if isinstance(error, _Unfit) else FAILED
        reason = str(error)
        providers, launches = self._settings.providers(self._case), self._settings.launches
        return [
            self._row(launch, provider, mode, status=status, reason=reason)
            for launch in launches
            for provider in providers
            for mode in MODES
        ]

    def add(
        self, launch: str, ready: dict[str, _Ready], times: dict[str, list[Sample]], unfit: dict[str, _Unfit]
    ) -> None:
        """Add the rows of one way of launching, and say who was left out and why."""
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
        out = {provider: (error.status, str(error)) for provider, error in unfit.items()}
        if not self._settings.compile:
            out["compile"] = SKIPPED, NOT_COMPILED
        for provider, (status, reason) in out.items():
            self.rows += [self._row(launch, provider, mode, status=status, reason=reason) for mode in MODES]

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
