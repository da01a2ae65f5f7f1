"""Execute what nvcc makes of the CUDA sources, without a GPU, and compare it with double precision.

::

    python csrc/tools/ptx/run.py [OPERATOR ...] [--case TEXT] [--counts FILE] [--bound FILE]

nvcc compiles each ``csrc/cuda/OPERATOR.cu`` to PTX and to host code. The PTX becomes C++ (translate.py) that runs on
the thread block emulator of ``tests/cpp``; the host code launches it through a stand-in for libcudart (driver.cpp), so
that the choice of kernels, grids and shared memory is nvcc's too. Every launch runs in several orders of threads and
blocks, whose results must agree bit for bit. A kernel that no case launches is a failure.

The cases named "bench" are those of the benches, cut to a few blocks. Of them ``--counts`` writes what the kernels
execute (counts.py says what the columns are), and ``--bound`` fails where that is more than a stored table says.

What this cannot show: what ptxas makes of the PTX, timing, the accuracy of approximate instructions, weak memory order.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1]
TESTS = CSRC.parent / "tests" / "cpp"
OPERATORS = tuple(sorted(path.stem for path in (CSRC / "cuda").glob("*.cu")))
ARCHITECTURE = "compute_90"

sys.path[:0] = [str(HERE), str(HERE.parent)]

import counts  # noqa: E402
import cuda_resources  # noqa: E402
from translate import translate  # noqa: E402


class BuildError(Exception):
    """A compiler failed; the message is what it said."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a command that must not fail."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"{command[0]} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
    return result.stdout


def ptxas() -> str:
    """The assembler: in PATH, or in nvcc's toolkit."""
    return shutil.which("ptxas") or str(cuda_headers().parent / "bin" / "ptxas")


def cuda_headers() -> Path:
    """The folder of cuda_runtime_api.h: nvcc says where its toolkit is."""
    dry = subprocess.run(["nvcc", "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True).stderr
    places = [line.split("=", 1)[1].strip() for line in dry.splitlines() if line.startswith("#$ TOP=")]
    for top in [*places, "/usr/local/cuda"]:
        if (Path(top) / "include" / "cuda_runtime_api.h").exists():
            return (Path(top) / "include").resolve()
    raise BuildError("cuda_runtime_api.h was not found in nvcc's toolkit")


@dataclass
class Build:
    """Compiles into a folder; what several operators share is compiled once."""

    folder: Path

    def __post_init__(self) -> None:
        self.includes = [f"-I{path}" for path in (HERE, TESTS, CSRC, cuda_headers())]

    def compile(self, source: Path, optimise: str = "-O1", *, warn: bool = True) -> Path:
        """The object of a C++ file."""
        into = self.folder / f"{source.stem}.o"
        # Products and sums stay apart where PTX has them apart.
        flags = ["-std=c++17", optimise, "-ffp-contract=off", *(["-Wall", "-Wextra", "-Werror"] if warn else ["-w"])]
        run("g++", *flags, *self.includes, "-c", source, "-o", into)
        return into

    def nvcc(self, operator: str) -> tuple[str, Path]:
        """The PTX of an operator, and the object with its host code."""
        kept, host = self.folder / f"nvcc_{operator}", self.folder / f"{operator}.host.o"
        kept.mkdir(exist_ok=True)
        flags = json.loads((CSRC / "sources.json").read_text())["nvcc_flags"]
        target = f"-gencode=arch={ARCHITECTURE},code={ARCHITECTURE}"
        run("nvcc", *flags, target, "-c", "--keep", "--keep-dir", kept, "-o", host, CSRC / "cuda" / f"{operator}.cu")
        return (kept / f"{operator}.ptx").read_text(), host

    def kernels(self, name: str, ptx: str, only: str = "") -> Path:
        """The object of the translated kernels whose mangled names match the pattern ``only``."""
        source = self.folder / f"{name}.kernels.cpp"
        source.write_text(translate(ptx, only))
        return self.compile(source, "-O0", warn=False)

    def shared(self) -> list[Path]:
        """What every program is linked with."""
        return [
            self.compile(HERE / "driver.cpp"),
            self.compile(HERE / "main.cpp"),
            self.compile(TESTS / "emulator.cpp", "-O2"),
        ]

    def link(self, name: str, objects: list[Path]) -> Path:
        """A program."""
        run("g++", "-o", self.folder / name, *objects)
        return self.folder / name


@dataclass
class Result:
    """Of running an operator's cases: exit code, output, and the rows of the table of counts."""

    code: int
    output: str
    rows: list[dict[str, object]]


def check(build: Build, shared: list[Path], operator: str, case: str, only: str = "") -> Result:
    """Build an operator's program and run its cases; ``only`` leaves out kernels that do not match."""
    ptx, host = build.nvcc(operator)
    objects = [build.kernels(operator, ptx, only), build.compile(HERE / f"{operator}.cpp"), host, *shared]
    counted = build.folder / f"{operator}.counts.jsonl"
    counted.unlink(missing_ok=True)
    program = build.link(operator, objects)
    result = subprocess.run([program, case, counted], capture_output=True, text=True)
    lines = counted.read_text().splitlines() if counted.exists() else []
    rows = counts.rows_of(ptx, lines, readable(ptx), build.folder, ptxas())
    return Result(result.returncode, f"{operator}: {result.stdout}{result.stderr}".strip(), rows)


def readable(ptx: str) -> dict[str, str]:
    """Names of kernels as people read them, by their mangled names."""
    mangled = re.findall(r"\.entry\s+(\w+)", ptx)
    plain = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    enums = cuda_resources.enumerators()
    names = [cuda_resources.readable(name, enums) for name in plain.splitlines()]
    return dict(zip(mangled, names, strict=True))


def main() -> None:
    """Run the operators side by side; exit with 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help=f"of {', '.join(OPERATORS)}; default all")
    parser.add_argument("--case", default="", help="only cases whose names contain this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="operators at the same time")
    parser.add_argument("--counts", type=Path, metavar="FILE", help="write what the cases of the benches execute")
    parser.add_argument("--bound", type=Path, metavar="FILE", help="fail where they execute more than this table says")
    parser.add_argument("--kernels", default="", metavar="PATTERN", help="only kernels whose mangled names match")
    parser.add_argument("--work", type=Path, help="a folder that keeps what is built")
    arguments = parser.parse_args()
    if unknown := set(arguments.operators) - set(OPERATORS):
        parser.error(f"unknown operator {', '.join(sorted(unknown))}; expected {', '.join(OPERATORS)}")
    if missing := [tool for tool in ("nvcc", "g++") if shutil.which(tool) is None]:
        sys.exit(f"run.py needs {' and '.join(missing)} in PATH")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            build = Build(folder.resolve())
            shared = build.shared()
            with ThreadPoolExecutor(arguments.jobs) as pool:
                checked = pool.map(
                    lambda one: check(build, shared, one, arguments.case, arguments.kernels),
                    arguments.operators or OPERATORS,
                )
                results = [result for result in checked if not print(result.output, flush=True)]
        except BuildError as error:
            sys.exit(str(error))
    rows = [row for result in results for row in result.rows]
    if arguments.counts:
        counts.write(rows, arguments.counts)
    problems = counts.heavier(rows, arguments.bound) if arguments.bound else []
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(int(bool(problems) or any(result.code for result in results)))


if __name__ == "__main__":
    main()
