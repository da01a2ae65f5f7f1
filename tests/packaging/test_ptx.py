"""The execution of nvcc's PTX on the CPU: what it reads, what single instructions do, and which faults it finds."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "csrc" / "tools" / "ptx"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ptx_{name}", TOOL / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


runner = module("run")
# Its siblings, which it imports by their plain names.
translation, instructions = sys.modules["translate"], sys.modules["instructions"]
counts = runner.counts


def test_statements_are_told_apart() -> None:
    body = """
    .reg .pred %p<2>;  // predicates
    $L__BB0_1:
    { .reg .b16 low; cvt.f32.f16 %f1, low; }
    mma.sync {%f1,%f2}, {%r1};
    @!%p1 bra $L__BB0_1;
    """
    assert list(instructions.statements(body)) == [
        ".reg .pred %p<2>",
        "$L__BB0_1:",
        "{",
        ".reg .b16 low",
        "cvt.f32.f16 %f1, low",
        "}",
        "mma.sync {%f1,%f2}, {%r1}",
        "@!%p1 bra $L__BB0_1",
    ]
    assert instructions.operands("{%r1,%r2}, [%rd1+8], 4") == ["{%r1,%r2}", "[%rd1+8]", "4"]


@pytest.mark.parametrize(
    "unknown",
    [
        "atom.global.add.f32 %f1, [%rd1], %f2",
        "shfl.sync.down.b32 %r1|%p1, %r2, 1, 31, -1",
        "bar.sync 1",
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1}",
        "rsqrt.approx.f32 %f1, %f2",
        "mov.u32 %r1, %clock",
    ],
)
def test_an_unknown_instruction_is_named(unknown: str) -> None:
    with pytest.raises(instructions.UnknownInstruction) as error:
        instructions.Translator({}, None).statement(unknown)
    assert unknown.split(" ")[0] in str(error.value) or "%clock" in str(error.value)


def float_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


NAN = 0x7FC00000
#: An instruction from %r1 and %r2 (bits of float32 in %f1 and %f2) to %r0, the two inputs, and the result's bits.
INSTRUCTIONS = [
    ("add.s32 %r0, %r1, %r2", 0xFFFFFFFF, 2, 1),
    ("sub.s32 %r0, %r1, %r2", 0, 1, 0xFFFFFFFF),
    ("mul.lo.s32 %r0, %r1, %r2", 0xFFFFFFFE, 3, 0xFFFFFFFA),
    ("mad.lo.s32 %r0, %r1, %r2, 5", 0xFFFFFFFF, 2, 3),
    ("div.s32 %r0, %r1, %r2", 0xFFFFFFF9, 2, 0xFFFFFFFD),
    ("rem.s32 %r0, %r1, %r2", 0xFFFFFFF9, 2, 0xFFFFFFFF),
    ("div.u32 %r0, %r1, %r2", 0xFFFFFFF9, 2, 0x7FFFFFFC),
    ("shr.s32 %r0, %r1, %r2", 0x80000000, 40, 0xFFFFFFFF),
    ("shr.u32 %r0, %r1, %r2", 0x80000000, 31, 1),
    ("shl.b32 %r0, %r1, %r2", 1, 32, 0),
    ("not.b32 %r0, %r1", 0xF0F0F0F0, 0, 0x0F0F0F0F),
    ("min.s32 %r0, %r1, %r2", 0xFFFFFFFF, 1, 0xFFFFFFFF),
    ("max.u32 %r0, %r1, %r2", 0xFFFFFFFF, 1, 0xFFFFFFFF),
    ("setp.lt.s32 %p0, %r1, %r2; selp.b32 %r0, 1, 0, %p0", 0xFFFFFFFF, 1, 1),
    ("setp.lt.u32 %p0, %r1, %r2; selp.b32 %r0, 1, 0, %p0", 0xFFFFFFFF, 1, 0),
    ("setp.geu.f32 %p0, %f1, %f2; selp.b32 %r0, 1, 0, %p0", NAN, 0, 1),
    ("setp.ge.f32 %p0, %f1, %f2; selp.b32 %r0, 1, 0, %p0", NAN, 0, 0),
    ("setp.ne.f32 %p0, %f1, %f2; selp.b32 %r0, 1, 0, %p0", NAN, 0, 0),
    ("setp.nan.f32 %p0, %f1, %f2; selp.b32 %r0, 1, 0, %p0", 0, NAN, 1),
    ("setp.eq.s32 %p0, %r1, 7; @%p0 mov.u32 %r0, 3; @!%p0 mov.u32 %r0, 4", 7, 0, 3),
    ("max.f32 %f0, %f1, %f2", NAN, float_bits(1), float_bits(1)),
    ("max.bf16x2 %r0, %r1, %r2", 0x3F80C000, 0x4000BF80, 0x4000BF80),
    ("max.bf16x2 %r0, %r1, %r2", 0x7FC0FF80, 0xC0004000, 0xC0004000),  # a NaN above, and minus infinity
    ("max.f16x2 %r0, %r1, %r2", 0x3C007BFF, 0x40007E00, 0x40007BFF),  # in bfloat16 another order, and no NaN
    ("sqrt.approx.f32 %f0, %f1", float_bits(9), 0, float_bits(3)),
    ("neg.f32 %f0, %f1", float_bits(2), 0, float_bits(-2)),
    ("fma.rn.f32 %f0, %f1, %f2, 0f3F800000", float_bits(2), float_bits(3), float_bits(7)),
    ("fma.rm.f32 %f0, %f1, %f2, 0f3F800000", float_bits(2**-40), float_bits(-1), float_bits(1 - 2**-24)),
    ("ex2.approx.ftz.f32 %f0, %f1", float_bits(-130), 0, 0),
    ("cvt.sat.f32.f32 %f0, %f1", NAN, 0, 0),
    ("cvt.rn.f32.s32 %f0, %r1", 0xFFFFFFFF, 0, float_bits(-1)),
    ("cvt.rn.bf16x2.f32 %r0, %f1, %f2", float_bits(1), float_bits(-2), 0x3F80C000),
    ("cvt.rn.f16x2.f32 %r0, %f1, %f2", float_bits(1), float_bits(-2), 0x3C00C000),
    ("cvt.rna.tf32.f32 %r0, %f1", float_bits(1) + 0x1000, 0, float_bits(1) + 0x2000),
    ("mov.b32 {%h0, %h1}, %r1; mov.b32 %r0, {%h1, %h0}", 0x12345678, 0, 0x56781234),
    ("mov.b32 {%h0, %h1}, %r1; cvt.s32.s16 %r0, %h1", 0xFFFF0001, 0, 0xFFFFFFFF),
    ("mov.b32 {%h0, %h1}, %r1; cvt.u32.u16 %r0, %h1", 0xFFFF0001, 0, 0x0000FFFF),
    ("mul.wide.s32 %d0, %r1, %r2; shr.s64 %d0, %d0, 16; cvt.u32.u64 %r0, %d0", 0xFFFF0000, 3, 0xFFFFFFFD),
    ("cvt.u64.u32 %d0, %r1; bfi.b64 %d0, %d0, 0, 8, 4; cvt.u32.u64 %r0, %d0", 0xFF, 0, 0xF00),
]

DECLARED = ".reg .b32 %r<3>; .reg .f32 %f<3>; .reg .pred %p<1>; .reg .b16 %h<2>; .reg .b64 %d<1>;"


@pytest.mark.slow
@pytest.mark.tools("g++", "nvcc")
def test_single_instructions_do_what_the_isa_says(tmp_path: Path) -> None:
    program = ['#include <cstdio>\n#include "machine.h"\nusing namespace pmx::ptx;\n']
    translate = instructions.Translator({}, None)
    for i, (text, *_) in enumerate(INSTRUCTIONS):
        lines = [translate.statement(part) for part in instructions.statements(f"{DECLARED} {text};")]
        body = "\n".join([lines[0], *lines[1:5], "r_r1 = r_f1 = a; r_r2 = r_f2 = b; r_r0 = r_f0 = 0;", *lines[5:]])
        program.append(f"static uint32_t run_{i}(uint32_t a, uint32_t b) {{ {body} return r_r0 | r_f0; }}\n")
    calls = "".join(f'std::printf("%u\\n", run_{i}({a}u, {b}u));' for i, (_, a, b, _) in enumerate(INSTRUCTIONS))
    source = tmp_path / "instructions.cpp"
    source.write_text("".join(program) + f"int main() {{ {calls} }}\n")
    build = runner.Build(tmp_path)
    object_file = build.compile(source, warn=False)
    emulator = build.compile(ROOT / "tests" / "cpp" / "emulator.cpp")
    output = subprocess.run([build.link("instructions", [object_file, emulator])], capture_output=True, text=True)
    results = [int(line) for line in output.stdout.split()]
    wrong = [
        f"{text}: {result:#x}, expected {expected:#x}"
        for (text, _, _, expected), result in zip(INSTRUCTIONS, results, strict=True)
        if result != expected
    ]
    assert wrong == []


LOOP = """
.visible .entry loop(.param .u64 loop_param_0)
.maxntid 64
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [loop_param_0];
    mov.u32 %r1, %tid.x;
$L__BB0_1:
    div.s32 %r2, %r1, 3;
    add.s32 %r1, %r1, 1;
    setp.lt.s32 %p1, %r1, 40;
    @%p1 bra $L__BB0_1;
    st.global.u32 [%rd1], %r2;
    ret;
}
"""


def test_executions_are_counted_by_basic_block() -> None:
    (kernel,) = translation.kernels(LOOP)
    assert kernel.blocks == [
        ["ld.param.u64", "mov.u32"],
        ["div.s32", "add.s32", "setp.lt.s32", "bra"],
        ["st.global.u32", "ret"],
    ]
    begins = [i for i, line in enumerate(kernel.body) if line.startswith("++counted")]
    assert [kernel.body[i] for i in begins] == ["++counted[0];", "++counted[1];", "++counted[2];"]
    assert kernel.body[begins[1] - 1].endswith(":;")  # behind the label, so that every turn of the loop counts


def test_instructions_have_kinds_and_weights() -> None:
    kinds = {
        "mov.u32": "",
        "ld.param.u64": "",
        "ld.global.v4.f32": "memory",
        "fma.rn.f32": "floating",
        "setp.lt.s32": "integer",
        "mul.lo.s64": "integer64",
        "rem.s64": "division",
        "div.rn.f32": "special",
        "cvt.rn.bf16x2.f32": "conversion",
        "shfl.sync.bfly.b32": "exchange",
        "bra": "control",
    }
    assert {opcode: counts.kind_of(opcode) for opcode in kinds} == kinds
    assert counts.weight_of("mov.u32") == 0 and counts.weight_of("add.s32") == 1
    assert counts.weight_of("rcp.approx.ftz.f32") == counts.weight_of("ex2.approx.ftz.f32") == 1
    assert 1 < counts.weight_of("sqrt.approx.f32") < counts.weight_of("sqrt.rn.f32")
    assert counts.weight_of("add.s64") == 2 and counts.weight_of("div.s64") > counts.weight_of("div.s32") > 8


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "warps"),
    [
        (32, 0, 256, 64),
        (40, 0, 256, 48),
        (64, 0, 256, 32),
        (96, 0, 256, 16),
        (32, 100 * 1024, 256, 16),
        (168, 0, 128, 12),
    ],
)
def test_warps_at_once_are_what_registers_and_shared_memory_leave_room_for(
    registers: int, shared: int, threads: int, warps: int
) -> None:
    assert counts.warps_at_once(counts.Code(100, registers, 0), threads, shared) == warps


def test_a_kernel_that_got_heavier_or_lost_warps_is_named(tmp_path: Path) -> None:
    stored = tmp_path / "stored.csv"

    def rows(machine: float, warps: int) -> list[dict[str, object]]:
        own = {"case": "mix", "mode": "forward", "kernel": "mix<float>", "machine": f"{machine:.3f}", "warps": warps}
        return [own, {"case": "mix", "mode": "forward", "kernel": "", "machine": f"{machine:.3f}", "share": "80"}]

    counts.write(rows(10, 32), stored)
    assert counts.heavier(rows(10.2, 32), stored) == []
    assert counts.heavier(rows(9, 48), stored) == []
    assert counts.heavier(rows(10.4, 16), stored) == [
        "mix, forward, mix<float>: 10.400 instructions for each result, 10.000 in stored.csv",
        "mix, forward, mix<float>: 16 warps at once, 32 in stored.csv",
        "mix, forward: 10.400 instructions for each result, 10.000 in stored.csv",
    ]
    missing = [{"case": "new", "mode": "forward", "kernel": "", "machine": "1.000", "share": "80"}]
    (told,) = counts.heavier(missing, stored)
    assert told == "new, forward: not in stored.csv; write it anew with --counts stored.csv"


@pytest.mark.slow
@pytest.mark.tools("g++", "nvcc")
def test_a_warp_counts_as_often_as_its_busiest_lane(tmp_path: Path) -> None:
    """Lanes of the loop above turn 40 to 9 times in the first warp and 8 to once in the second."""
    source = tmp_path / "main.cpp"
    source.write_text(
        translation.translate(LOOP)
        + """
#include <cuda_runtime_api.h>
extern "C" void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*,
                                       int*);
extern "C" cudaError_t __cudaGetKernel(cudaKernel_t*, const void*);
extern "C" cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t);
int main(int, char** arguments) {
  static const char stub = 0;
  __cudaRegisterFunction(nullptr, &stub, nullptr, "loop", 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  cudaKernel_t kernel;
  __cudaGetKernel(&kernel, &stub);
  uint32_t result = 0, *pointer = &result;
  void* values[] = {&pointer};
  pmx::ptx::count_as("loop", "forward", 1, 4);
  const cudaError_t error = __cudaLaunchKernel(kernel, dim3(3), dim3(64), values, 0, nullptr);
  pmx::ptx::write_counts(arguments[1]);
  return error;
}
"""
    )
    build = runner.Build(tmp_path)
    objects = [
        build.compile(source, "-O0", warn=False),
        build.compile(TOOL / "driver.cpp"),
        build.compile(ROOT / "tests" / "cpp" / "emulator.cpp"),
    ]
    subprocess.run([build.link("loop", objects), tmp_path / "counts"], check=True)
    (line,) = (tmp_path / "counts").read_text().splitlines()
    counted = json.loads(line)
    assert counted["executions"] == [3 * 2, 3 * (40 + 8), 3 * 2]
    assert (counted["blocks"], counted["threads"], counted["kernel"]) == (3, 64, "loop")


@dataclass
class Attention:
    """The bfloat16 kernels of the attention as nvcc compiled them, and what runs them."""

    build: runner.Build
    ptx: str
    objects: list[Path]

    def run(self, name: str, ptx: str, forward: bool) -> subprocess.CompletedProcess[str]:
        """The case of one kind of pass, over this PTX."""
        kernels = "forward_kernelINS_8HalfMathINS_8BFloat16"
        if not forward:
            kernels += "|backward_kernelINS_8HalfMathINS_8BFloat16|value_gradients_kernelINS_8BFloat16"
        program = self.build.link(name, [self.build.kernels(name, ptx, kernels), *self.objects])
        case = "bfloat16 grid, d 64, 96 tokens" + (", forward" if forward else "")
        return subprocess.run([program, case], capture_output=True, text=True)


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Attention:
    build = runner.Build(tmp_path_factory.mktemp("attention"))
    ptx, host = build.nvcc("attention")
    return Attention(build, ptx, [host, build.compile(TOOL / "attention.cpp"), *build.shared()])


def dropped(pattern: str, which: int = 0) -> Callable[[str], str]:
    """Leaves one occurrence of an instruction out."""

    def fault(ptx: str) -> str:
        found = list(re.finditer(rf"^\s*{pattern}[^\n]*\n", ptx, re.MULTILINE))[which]
        return ptx[: found.start()] + ptx[found.end() :]

    return fault


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    return lambda ptx: re.sub(pattern, by, ptx)


MMA = r"(mma\.sync\S+ \{[^}]*\}, \{)(%r\d+),(%r\d+)(,%r\d+,%r\d+\}, \{)(%r\d+),(%r\d+)"
FAULTS = {
    "mma's first factor swapped": replaced(MMA, r"\1\3,\2\4\5,\6"),
    "mma's second factor swapped": replaced(MMA, r"\1\2,\3\4\6,\5"),
    ".trans left out": replaced(r"x4\.trans\.", "x4."),
    "no wait for copies": dropped(r"cp\.async\.wait_all"),
    "a copy to an address off by four": replaced(r"(cp\.async\.ca\.shared\.global \[%r\d+)\]", r"\1+4]"),
    "a shuffle of half a warp": replaced(r"(mov\.u32 \s*%r\d+, )-1;", r"\g<1>65535;"),
    "the first barrier left out": dropped(r"bar\.sync", 0),
    "the last barrier left out": dropped(r"bar\.sync", -1),
}


@pytest.mark.slow
@pytest.mark.tools("g++", "nvcc")
class TestPlantedFaults:
    def test_without_a_fault_nothing_is_found(self, attention: Attention) -> None:
        result = attention.run("sound", attention.ptx, forward=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "2 cases, 0 failed" in result.stdout

    @pytest.mark.parametrize("fault", FAULTS)
    def test_it_is_found(self, attention: Attention, fault: str) -> None:
        entry = re.search(r"\.entry \w*forward_kernelINS_8HalfMathINS_8BFloat16\w*.*?\n\}", attention.ptx, re.DOTALL)
        assert entry is not None
        faulty = FAULTS[fault](entry[0])
        assert faulty != entry[0]
        ptx = attention.ptx.replace(entry[0], faulty)
        result = attention.run(re.sub(r"\W", "_", fault), ptx, forward=True)
        assert result.returncode == 1, result.stdout
        assert "1 cases, 1 failed" in result.stdout

    def test_swapped_halves_of_a_conversion_are_found(self, attention: Attention) -> None:
        faulty = re.sub(r"(cvt\.rn\.bf16x2\.f32 \S+, )(%f\d+), (%f\d+);", r"\1\3, \2;", attention.ptx)
        assert faulty != attention.ptx
        result = attention.run("conversion", faulty, forward=False)
        assert result.returncode == 1, result.stdout
