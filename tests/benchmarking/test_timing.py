"""Who runs when, and what becomes of the samples."""

from __future__ import annotations

import gc

import pytest
import torch

from pymixunlearn.benchmarking.ops.cases import Case
from pymixunlearn.benchmarking.ops.problems import Job, build, runnable
from pymixunlearn.benchmarking.timing import CpuClock, CudaClock, Sample, captured, interleaved, quantiles


class Script:
    """A clock whose jobs take what they say, and which remembers who ran."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, int]] = []

    def runs(self, job: Job, count: int) -> list[Sample]:
        name, seconds = job.forward()
        self.turns.append((name, count))
        return [Sample(seconds, 2 * seconds)] * count


def scripted(name: str, seconds: float) -> Job:
    return Job(lambda: (name, seconds), lambda result: result)


def test_jobs_take_turns_in_rotating_order() -> None:
    clock = Script()
    samples = interleaved(clock, {"a": scripted("a", 1.0), "b": scripted("b", 2.0)}, seconds=1e-9)
    assert [name for name, _ in clock.turns[-6:]] == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(kept) for name, kept in samples.items()} == {"a": 3, "b": 3}
    assert samples["b"][0].both == pytest.approx(6.0)
    assert gc.isenabled()


def test_short_jobs_run_several_times_a_turn_and_endless_ones_once() -> None:
    clock = Script()
    interleaved(clock, {"short": scripted("short", 1e-9), "long": scripted("long", 1.0)}, seconds=1e-9)
    assert clock.turns[-2:] == [("long", 1), ("short", 20)] or clock.turns[-2:] == [("short", 20), ("long", 1)]
    endless = interleaved(Script(), {"a": scripted("a", 20.0)}, seconds=100.0)
    assert len(endless["a"]) == 1


def test_quantiles() -> None:
    samples = [Sample(float(value), 1.0) for value in range(11)]
    assert quantiles(samples, "forward") == (2.0, 5.0, 8.0)
    assert quantiles(samples, "both") == (3.0, 6.0, 9.0)


def test_the_cpu_clock_separates_the_passes() -> None:
    calls = []
    job = Job(lambda: calls.append("forward"), lambda _: calls.append("backward"))
    samples = CpuClock().runs(job, 2)
    assert calls == ["forward", "backward"] * 2
    assert all(sample.forward >= 0 and sample.backward >= 0 for sample in samples)


@pytest.mark.cuda
@pytest.mark.parametrize("launch", ["plain", "flushed", "graph"])
def test_cuda_clocks(launch: str) -> None:
    device = torch.device("cuda")
    problem = build(Case("mix_contrastive_loss", "zip", "small", "float32"), device)
    job = runnable(problem, "fused")
    expected = job.forward()
    if launch == "graph":
        job = captured(job, device)
    samples = CudaClock(device, flush=launch == "flushed").runs(job, 3)
    assert len(samples) == 3 and all(sample.forward > 0 and sample.backward > 0 for sample in samples)
    torch.testing.assert_close(job.forward(), expected)
