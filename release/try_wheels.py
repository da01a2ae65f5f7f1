"""Installs wheels in fresh environments without a compiler, and runs smoke.py in each.

    python release/try_wheels.py dist/*.whl --python python3.10 --python python3.13
    python release/try_wheels.py dist/*.whl --python python3.10 --with torch==2.10.0 --with torchvision==0.25.0

Dependencies come from PyPI. With ``--dependencies FOLDER`` they are those of a site-packages folder of the same
version of Python, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SMOKE = Path(__file__).resolve().parent / "smoke.py"
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc", "ninja")


def run(environment: dict[str, str], *command: str | Path, cwd: Path) -> None:
    """Run a command; where it fails, show what it said and end."""
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
    if result.returncode != 0:
        sys.exit(f"{result.stdout}{result.stderr}\nfailed: {' '.join(map(str, command))}")
    print(result.stdout, end="", flush=True)


def attempt(wheel: Path, python: str, packages: list[str], dependencies: Path | None) -> None:
    """Install a wheel in an environment of its own, and use it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv = folder / "venv"
        subprocess.run([python, "-m", "venv", venv], check=True)
        programs = venv / "bin"
        if found := [name for name in COMPILERS if shutil.which(name, path=str(programs))]:
            sys.exit(f"{programs} holds {', '.join(found)}; expected no compiler")
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "CC", "CXX")}
        environment = {**kept, "PATH": str(programs), "PYMIXUNLEARN_CACHE": str(folder / "cache")}
        install = [programs / "python", "-m", "pip", "install", "-q", "--ignore-installed", "--only-binary", ":all:"]
        if dependencies is not None:
            (site,) = venv.glob("lib/python*/site-packages")
            (site / "dependencies.pth").write_text(f"{dependencies.absolute()}\n")
            install.append("--no-deps")
        print(f"{wheel.name}, {python}", flush=True)
        run(environment, *install, wheel.absolute(), *packages, cwd=folder)
        run(environment, programs / "python", SMOKE, cwd=folder)


def main() -> None:
    """Try every wheel with every Python."""
    parser = argparse.ArgumentParser(
        description="Install wheels in fresh environments without a compiler and use them."
    )
    parser.add_argument("wheels", type=Path, nargs="+")
    parser.add_argument("--python", action="append", required=True, help="a Python to try them with; may be repeated")
    parser.add_argument("--with", dest="packages", action="append", default=[], help="a requirement, as torch==2.10.0")
    parser.add_argument("--dependencies", type=Path, help="site-packages folder that has the dependencies")
    arguments = parser.parse_args()
    for python in arguments.python:
        for wheel in arguments.wheels:
            attempt(wheel, python, arguments.packages, arguments.dependencies)


if __name__ == "__main__":
    main()
