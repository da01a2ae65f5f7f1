"""What every CUDA kernel needs on every architecture: registers, stack, shared memory, and spills, which are an error.

ptxas reports it while it compiles, so a build that had ``NVCC_APPEND_FLAGS=-Xptxas=-v`` need not be repeated::

    python csrc/tools/cuda_resources.py --log build.log     reads the output of such a build
    python csrc/tools/cuda_resources.py                     compiles the CUDA sources, for nothing but the report

``--out`` writes the table as CSV: a row for each kernel, a column of registers and one of stack bytes for each
architecture. Shared memory is the static part; launches may add to it. No GPU is needed.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1]
SOURCES = json.loads((CSRC / "sources.json").read_text())


@dataclass
class Resources:
    """What one kernel needs on one architecture; all but the registers are bytes."""

    registers: int = 0
    stack: int = 0
    spills: int = 0
    shared: int = 0


#: By kernel and architecture.
Report = dict[tuple[str, str], Resources]

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def parse(log: str) -> Report:
    """Read what ptxas printed, whatever else stands between its lines; kernels have their mangled names."""
    report: Report = {}
    current = None
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            current = report[entry[1], entry[2]] = Resources()
        elif current is None:
            continue
        elif memory := MEMORY.search(line):
            # More than once where a kernel calls functions that were not inlined.
            stack, stores, loads = map(int, memory.groups())
            current.stack = max(current.stack, stack)
            current.spills += stores + loads
        elif used := USED.search(line):
            current.registers = int(used[1])
            shared = SHARED.search(line)
            current.shared = int(shared[1]) if shared else 0
            current = None
    return report


def enumerators() -> dict[str, list[str]]:
    """The names behind the numbers in template arguments, by the name of their enum class."""
    found: dict[str, list[str]] = {}
    for path in [*CSRC.glob("core/*.h"), *CSRC.glob("cuda/*.cuh")]:
        for name, body in re.findall(r"enum class (\w+)[^{;]*\{([^}]*)\}", path.read_text()):
            found[name] = re.findall(r"\w+", re.sub(r"//.*", "", body))
    return found


def readable(demangled: str, enums: dict[str, list[str]]) -> str:
    """``cosine_forward<float, float, labels, 8, 1>`` from a demangled kernel: no namespaces, no parameters."""
    name = re.sub(r"\(anonymous namespace\)::|\b(?:pmx|cuda)::|^void ", "", demangled)
    depth = 0
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            name = name[:at]
            break
    name = re.sub(r"\(bool\)([01])", lambda m: ("false", "true")[int(m[1])], name)
    name = re.sub(r"\((\w+)\)(\d+)", lambda m: enums[m[1]][int(m[2])] if m[1] in enums else m[2], name)
    return re.sub(r"_kernel\b", "", name)


def demangle(report: Report) -> Report:
    """The same report with readable names."""
    mangled = list(dict.fromkeys(kernel for kernel, _ in report))
    result = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True)
    enums = enumerators()
    names = {name: readable(plain, enums) for name, plain in zip(mangled, result.stdout.splitlines(), strict=True)}
    return {(names[kernel], arch): needs for (kernel, arch), needs in report.items()}


def architectures() -> list[str]:
    """``sm_80`` and so on, as sources.json lists them."""
    return ["sm_" + name.removesuffix("+PTX").replace(".", "") for name in SOURCES["cuda_architectures"]]


def compile_all() -> str:
    """The output of compiling every CUDA source for every architecture."""
    targets = [f"-gencode=arch=compute_{arch[3:]},code={arch}" for arch in architectures()]
    output = ""
    for source in sorted(CSRC.glob("cuda/*.cu")):
        command = ["nvcc", *SOURCES["nvcc_flags"], *targets, "-Xptxas=-v", "-fatbin", "-o", "/dev/null"]
        result = subprocess.run([*command, str(source)], capture_output=True, text=True)
        output += result.stdout + result.stderr
        if result.returncode != 0:
            sys.exit(f"{source.name} does not compile:\n{result.stderr}")
    return output


def problems(report: Report) -> list[str]:
    """One line for each spill, and for each kernel of the sources that the report lacks on some architecture."""
    found = [
        f"{kernel} spills {needs.spills} bytes on {arch}" for (kernel, arch), needs in report.items() if needs.spills
    ]
    for path in sorted(CSRC.glob("cuda/*.cu")):
        for name in re.findall(r"__global__[^;{(]*?(\w+)_kernel\(", path.read_text()):
            reported = {arch for kernel, arch in report if kernel.split("<")[0] == name}
            missing = [arch for arch in architectures() if arch not in reported]
            if missing:
                found.append(f"{name} is in {path.name} but not in the report for {', '.join(missing)}")
    return found


def write_table(report: Report, path: Path) -> None:
    """Write the report with one row for each kernel."""
    archs = sorted({arch for _, arch in report})
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        columns = [f"{what}_{arch}" for what in ("registers", "stack") for arch in archs]
        table.writerow(["kernel", *columns, "shared", "spills"])
        for kernel in sorted({kernel for kernel, _ in report}):
            needs = [report.get((kernel, arch), Resources()) for arch in archs]
            table.writerow(
                [kernel, *(n.registers for n in needs), *(n.stack for n in needs)]
                + [max(n.shared for n in needs), sum(n.spills for n in needs)]
            )


def summary(report: Report) -> str:
    """One line for each architecture."""
    lines = []
    for arch in sorted({arch for _, arch in report}):
        needs = [n for (_, of), n in report.items() if of == arch]
        lines.append(
            f"{arch}: {len(needs)} kernels, at most {max(n.registers for n in needs)} registers, "
            f"{max(n.stack for n in needs)} bytes of stack, {max(n.shared for n in needs)} of static shared memory, "
            f"{sum(n.spills for n in needs)} spilled"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the summary; exit with the problems, if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="output of a build with -Xptxas=-v; without it, compile here")
    parser.add_argument("--out", type=Path, help="where to write the table")
    arguments = parser.parse_args()
    report = demangle(parse(arguments.log.read_text() if arguments.log else compile_all()))
    if arguments.out:
        write_table(report, arguments.out)
    print(summary(report))
    if found := problems(report):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
