"""A measured case's rows, and what they say where a case could not be measured."""

from __future__ import annotations

import platform
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.benchmarking import Machine
from pymixunlearn.benchmarking.machine import copy_bandwidth, describe_machine
from pymixunlearn.benchmarking.ops import OPERATORS, Case, Settings, measure, measure_case, rivals
from pymixunlearn.training import device as device_module

LOSS = Case("mix_contrastive_loss", "zip", "small", "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("op", OPERATORS)
def test_all_providers_of_all_cases_agree(
    tiny: None, op: str, size: str, dtype: str, settings: Settings, machine: Machine
) -> None:
    for pairing in OPERATORS[op]:
        case = Case(op, pairing, size, dtype)
        rows = measure_case(case, settings, machine)
        measured = [row for row in rows if row.status == "measured"]
        assert {row.provider for row in measured} == set(settings.providers(case)), [row.reason for row in rows]
        assert {row.case for row in rows} == {case}


def test_a_row_holds_what_it_was_made_of(tiny: None, settings: Settings, machine: Machine) -> None:
    rows = {(row.provider, row.mode): row for row in measure_case(LOSS, settings, machine)}
    fused, plain = rows["fused", "both"], rows["pytorch", "both"]
    assert fused.p50_ms and plain.p50_ms and fused.p20_ms and fused.p80_ms
    assert fused.p20_ms <= fused.p50_ms <= fused.p80_ms and fused.runs >= 3
    assert fused.ratio == 1 and plain.ratio == pytest.approx(plain.p50_ms / fused.p50_ms)
    assert fused.bytes == LOSS.traffic("both").bytes
    assert fused.expected_ms == pytest.approx(fused.bytes / 1e9 * 1e3)
    assert fused.share_of_copy == pytest.approx(fused.expected_ms / fused.p50_ms)
    assert fused.peak_bytes and plain.peak_bytes and plain.peak_bytes > fused.peak_bytes
    assert (fused.device, fused.threads, fused.versions) == ("Test processor", 1, "torch 0.0")
    assert fused.kernel == "compiled" and plain.kernel == ""
    left_out = rows["compile", "both"]
    assert (left_out.status, left_out.reason, left_out.p50_ms) == ("skipped", "left out by --no-compile", None)


def test_torch_compile_is_a_rival(tiny: None, settings: Settings, machine: Machine) -> None:
    rows = measure_case(LOSS, replace(settings, compile=True), machine)
    assert {row.provider for row in rows if row.status == "measured"} == {"fused", "pytorch", "compile"}


def test_a_mismatch_fails_the_case(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    def wrong(logits: Tensor, target: Tensor) -> Tensor:
        return 1.1 * (1 - torch.nn.functional.cosine_similarity(logits.softmax(-1), target))

    monkeypatch.setattr(rivals, "sim_loss", wrong)
    rows = measure_case(Case("sim_loss", "", "small", "float32"), settings, machine)
    assert {row.status for row in rows} == {"failed"}
    assert {row.p50_ms for row in rows} == {None}
    assert "the value of PyTorch differs from the fused one by up to" in rows[0].reason


def test_a_wrong_gradient_fails_the_case(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    def wrong(logits: Tensor) -> Tensor:
        return torch.softmax((2 * logits - logits.detach()) / rivals.SHARPEN_T, dim=-1)

    monkeypatch.setattr(rivals, "sharpen", wrong)
    rows = measure_case(Case("sharpen", "", "small", "float32"), settings, machine)
    assert {row.status for row in rows} == {"failed"}
    assert "gradient 1 of PyTorch differs" in rows[0].reason


def test_a_rival_that_raises_is_left_out_and_says_why(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("no such kernel\nand a trace")

    monkeypatch.setattr(rivals, "sharpen", broken)
    rows = measure_case(Case("sharpen", "", "small", "float32"), settings, machine)
    theirs = {(row.status, row.reason) for row in rows if row.provider == "pytorch"}
    assert theirs == {("failed", "RuntimeError: no such kernel")}
    assert {row.status for row in rows if row.provider == "fused"} == {"measured"}


def test_without_the_fused_operator_a_case_has_no_times(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    def broken(*_: Tensor, **__: float) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(ops, "sharpen", broken)
    rows = measure_case(Case("sharpen", "", "small", "float32"), settings, machine)
    assert {(row.status, row.reason) for row in rows} == {("failed", "RuntimeError: no such kernel")}
    assert {row.provider for row in rows} == {"fused", "pytorch"}


def test_rivals_too_large_for_the_memory_are_skipped_alone(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    case = Case("mixblock_attention", "grid", "small", "float32")
    monkeypatch.setattr(measure, "available_memory", lambda _: 2 * case.memory(fused=True))
    assert case.memory(fused=False) > 2 * case.memory(fused=True)
    rows = measure_case(case, settings, machine)
    assert {row.provider for row in rows if row.status == "measured"} == {"fused"}
    assert {row.provider for row in rows if row.reason.startswith("may need")} == {"pytorch", "sdpa", "sdpa-padded"}


@pytest.mark.parametrize("free", [100, 10**12, None])
def test_a_case_too_large_for_the_memory_is_skipped(
    tiny: None, free: int | None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    monkeypatch.setattr(measure, "available_memory", lambda _: free)
    rows = measure_case(Case("mask_mix", "grid", "small", "float32"), settings, machine)
    fused = [row for row in rows if row.provider == "fused"]
    if free == 100:
        assert {row.status for row in rows} == {"skipped"}
        assert fused[0].reason == "may need 0.0 GB of memory; used are up to 80% of 0.0 GB free"
        assert [row.mode for row in fused] == ["forward", "backward", "both"] and fused[0].bytes > 0
    else:
        assert {row.status for row in fused} == {"measured"}


def test_running_out_of_memory_is_a_reason_to_skip(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    def greedy(*_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(rivals, "sharpen", greedy)
    rows = measure_case(Case("sharpen", "", "small", "float32"), settings, machine)
    theirs = {(row.status, row.reason) for row in rows if row.provider == "pytorch"}
    assert theirs == {("skipped", "tried to allocate 80 GiB")}


def test_an_interruption_goes_through(
    tiny: None, monkeypatch: pytest.MonkeyPatch, settings: Settings, machine: Machine
) -> None:
    def interrupted(*_: Tensor) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(rivals, "sharpen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_case(Case("sharpen", "", "small", "float32"), settings, machine)


def test_the_machine_is_described_without_its_name() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine.device and machine.threads == torch.get_num_threads()
    assert f"torch {torch.__version__}" in machine.versions
    assert socket.gethostname() not in f"{machine.device} {machine.versions}"


def test_the_processor_has_a_name_where_linux_does_not_tell_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = tmp_path / "cpuinfo"
    monkeypatch.setattr(device_module, "_CPUINFO", listed)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert describe_machine(torch.device("cpu")).device == platform.machine()  # no such file
    listed.write_text("processor\t: 0\n")
    assert describe_machine(torch.device("cpu")).device == platform.machine()  # nothing in it
    listed.write_text("processor\t: 0\nmodel name\t: Some  Processor\n")
    assert describe_machine(torch.device("cpu")).device == "Some Processor"


def test_copying_has_a_rate() -> None:
    assert copy_bandwidth(torch.device("cpu"), size=1 << 20) > 0
