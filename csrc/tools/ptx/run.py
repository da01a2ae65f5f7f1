"""Execute what nvcc makes of the CUDA sources, without a GPU, and compare it with double precision.

::

    python csrc/tools/ptx/run.py [OPERATOR ...] [--case TEXT]

nvcc compiles each ``csrc/cuda/OPERATOR.cu`` to PTX and to host code. The PTX becomes C++ (translate.py) that runs on
the thread block emulator of ``tests/cpp``; the host code launches it through a stand-in for libcudart (driver.cpp), so
that the choice of kernels, grids and shared memory is nvcc's too. Every launch runs in several orders of threads and
blocks, whose results must agree bit for bit. A kernel that no case launches is a failure.

What this cannot show: what ptxas makes of the PTX, timing, the accuracy of approximate instructions, weak memory order.
"""

from __future__ import annotations

import argparse
import json
import os
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

sys.path.insert(0, str(HERE))

from translate import translate  # noqa: E402


class BuildError(Exception):
    """A compiler failed; the message is what it said."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a command that must not fail."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"{command[0]} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
    return result.stdout


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


def check(build: Build, shared: list[Path], operator: str, case: str) -> tuple[int, str]:
    """Build an operator's program and run its cases; exit code and output."""
    ptx, host = build.nvcc(operator)
    objects = [build.kernels(operator, ptx), build.compile(HERE / f"{operator}.cpp"), host, *shared]
    result = subprocess.run([build.link(operator, objects), case], capture_output=True, text=True)
    return result.returncode, f"{operator}: {result.stdout}{result.stderr}".strip()


def main() -> None:
    """Run the operators side by side; exit with 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help=f"of {', '.join(OPERATORS)}; default all")
    parser.add_argument("--case", default="", help="only cases whose names contain this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="operators at the same time")
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
                    lambda one: check(build, shared, one, arguments.case), arguments.operators or OPERATORS
                )
                codes = [code for code, output in checked if not print(output, flush=True)]
        except BuildError as error:
            sys.exit(str(error))
    sys.exit(int(any(codes)))


if __name__ == "__main__":
    main()
