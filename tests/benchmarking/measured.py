"""Rows of one case: the fused operator, a faster and a slower rival, and one that was left out."""

from __future__ import annotations

from dataclasses import replace

from pymixunlearn.benchmarking import Machine
from pymixunlearn.benchmarking.ops import Measurement

MACHINE = Machine("Test processor", 2, "torch 0.0, compiler gcc 0")
BASE = Measurement(
    op="mask_mix",
    pairing="grid",
    size="small",
    dtype="float32",
    mode="both",
    launch="plain",
    provider="fused",
    status="measured",
    reason="",
    kernel="compiled",
    p20_ms=1.25,
    p50_ms=1.5,
    p80_ms=2.0,
    runs=7,
    ratio=1.0,
    bytes=1000,
    operations=0,
    copy_gb_s=10.5,
    share_of_copy=0.25,
    expected_ms=0.375,
    peak_bytes=2048,
    device=MACHINE.device,
    threads=MACHINE.threads,
    seconds=1.5,
    versions=MACHINE.versions,
)
FASTER = replace(BASE, provider="pytorch", ratio=0.5, p50_ms=0.75, kernel="")
SLOWER = replace(BASE, provider="sdpa", ratio=4.0, p50_ms=6.0, kernel="")
UNKNOWN = replace(
    BASE,
    provider="compile",
    status="skipped",
    reason="left out by --no-compile",
    kernel="",
    p20_ms=None,
    p50_ms=None,
    p80_ms=None,
    runs=0,
    ratio=None,
    share_of_copy=None,
    peak_bytes=None,
)
ROWS = [BASE, FASTER, UNKNOWN, SLOWER]
