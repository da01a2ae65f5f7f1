"""The CUDA sources without a GPU: every kernel body runs on the emulator, and what ptxas says of a kernel is read."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "csrc" / "tools" / "cuda_resources.py"


def test_every_kernel_only_calls_a_body() -> None:
    """What the emulator cannot reach is the kernels themselves, so there must be nothing in them to test."""
    for path in (ROOT / "csrc" / "cuda").glob("*.cu"):
        kernels = re.findall(r"__global__[^{;]*\{(.*?)\n\}", path.read_text(), re.DOTALL)
        assert kernels, f"{path.name} has no kernel"
        for kernel in kernels:
            statements = [line.strip() for line in kernel.split(";") if line.strip()]
            assert len(statements) == 2, f"{path.name}: {kernel}"
            assert re.fullmatch(r"Device\w* block", statements[0]), f"{path.name}: {kernel}"
            assert re.match(r"\w+_body\b", statements[1]), f"{path.name}: {kernel}"


def test_every_kernel_body_runs_on_the_emulator() -> None:
    headers = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cuh"))
    bodies = set(re.findall(r"PMX_HD\s+void\s+(\w+_body)\(", headers))
    launched = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    assert bodies == set(re.findall(r"\b(\w+_body)\b", launched)), "bodies that no kernel calls, or the other way round"
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "cpp").glob("test_*.cpp"))
    # A call inside a launch: the thread block is the emulator's.
    called = set(re.findall(r"\b(\w+_body)\b(?:<[^;{}]*?>)?\(block,", tests))
    assert bodies <= called, f"never run: {sorted(bodies - called)}"


@pytest.fixture
def resources() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_resources", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# As nvcc 13 prints it, with a build tool's own lines in between; the second kernel calls a function that spills.
LOG = """
  [3/9] nvcc -c losses.cu
  ptxas info    : 48 bytes gmem
  ptxas info    : Compiling entry function '_Z5alphaIfEvT_' for 'sm_80'
  ptxas info    : Function properties for _Z5alphaIfEvT_
      16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 2048 bytes smem
  ptxas info    : Compile time = 82.231 ms
  ptxas info    : Compiling entry function '_Z4betav' for 'sm_90'
  ptxas info    : Function properties for _Z4betav
      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Function properties for _Z6calleev
      32 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
  ptxas info    : Used 255 registers, used 0 barriers
"""


def test_the_report_is_read(resources: ModuleType) -> None:
    report = resources.parse(LOG)
    assert report == {
        ("_Z5alphaIfEvT_", "sm_80"): resources.Resources(registers=40, stack=16, spills=0, shared=2048),
        ("_Z4betav", "sm_90"): resources.Resources(registers=255, stack=32, spills=12, shared=0),
    }
    assert "_Z4betav spills 12 bytes on sm_90" in resources.problems(report)


def test_names_are_readable(resources: ModuleType) -> None:
    enums = resources.enumerators()
    demangled = (
        "void pmx::cuda::(anonymous namespace)::cosine_forward_kernel<pmx::Half, float, (pmx::TargetKind)1, 8, (bool)1>"
        "(pmx::CosineRows, int, pmx::Accumulate<pmx::Half>::type*)"
    )
    assert resources.readable(demangled, enums) == "cosine_forward<Half, float, labels, 8, true>"


def test_a_kernel_that_was_not_compiled_is_missed(tmp_path: Path) -> None:
    log, table = tmp_path / "build.log", tmp_path / "table.csv"
    log.write_text(LOG)
    command = [sys.executable, str(SCRIPT), "--log", str(log), "--out", str(table)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "cosine_forward is in losses.cu but not in the report for sm_80, sm_86, sm_89, sm_90" in result.stderr
    assert "beta spills 12 bytes on sm_90" in result.stderr
    with table.open(newline="") as file:
        rows = {row["kernel"]: row for row in csv.DictReader(file)}
    assert rows["alpha<float>"]["registers_sm_80"] == "40"
    assert rows["beta"]["spills"] == "12"


def test_the_sanitizer_run_says_what_it_lacks() -> None:
    command = ["/bin/bash", str(ROOT / "csrc" / "tools" / "cuda_sanitizer.sh")]
    environment = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "/nowhere"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert result.stderr == "cuda_sanitizer.sh: compute-sanitizer is neither in PATH nor in the CUDA toolkit\n"
