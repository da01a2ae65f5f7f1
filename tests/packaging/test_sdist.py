"""The source distribution: it holds all that is built from it, and the wheel built from it works away from the sources.

``PYMIXUNLEARN_DIST`` names a folder that keeps both archives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "*.so", "*.pyc", "build", "dist", "runs", "node_modules"
)
#: Folders that CMake and setup.py read.
BUILT_FROM = ("csrc", "cmake", "tests/cpp", "examples/cpp", "benchmarks/cpp")

pytestmark = pytest.mark.slow


def sources(folder: Path) -> Iterator[str]:
    """Files below a folder, relative to the root, without what a build leaves there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".so", ".pyc") and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix()


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("PYMIXUNLEARN_DIST") or tmp_path_factory.mktemp("dist")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def sdist(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m build --sdist`` makes, built in a copy of the tree: a build leaves files in it."""
    tree = shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "tree", ignore=GENERATED)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", build, dist, cwd=tree).splitlines()[-1]
    return dist / name


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(dist: Path, sdist: Path) -> Path:
    """Built from the sdist, CPU operators included."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", dist, sdist]
    run(*command, cwd=dist, PYMIXUNLEARN_CUDA="0", PYMIXUNLEARN_EXTENSIONS="1")
    (built,) = dist.glob("pymixunlearn-*.whl")
    return built


@pytest.mark.parametrize("folder", [*BUILT_FROM, "pymixunlearn", "cli"])
def test_the_sdist_is_complete(unpacked: Path, folder: str) -> None:
    expected = list(sources(ROOT / folder))
    assert expected
    assert [name for name in expected if not (unpacked / name).is_file()] == []


def test_the_sdist_holds_nothing_that_was_built(unpacked: Path) -> None:
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix in (".so", ".o", ".pyc")] == []
    for name in ("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "setup.py", "CHANGELOG.md"):
        assert (unpacked / name).is_file()


@pytest.mark.tools("cmake")
def test_cmake_finds_every_source_in_the_sdist(unpacked: Path, tmp_path: Path) -> None:
    run("cmake", "-S", unpacked, "-B", tmp_path / "build", cwd=tmp_path)


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = set(sources(ROOT / "pymixunlearn"))
    expected |= {f"mixunlearn_{name}" for name in sources(ROOT / "cli")}
    assert sorted(expected - held) == []
    assert {name for name in held if name.endswith(".so")} == {
        "pymixunlearn/_ops_cpu.so",
        f"pymixunlearn/_introspection{sysconfig.get_config_var('EXT_SUFFIX')}",
    }
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert [name for name in held if name.split("/")[0] in ("csrc", "tests", "benchmarks", "examples")] == []


def test_the_installed_wheel_computes(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    code = """
import torch
from pymixunlearn import ops
assert ops.status().cpu.available, ops.status()
print(ops.__file__, float(ops.sim_loss(torch.zeros(1, 4), torch.tensor([0]))))
"""
    where, value = run(sys.executable, "-c", code, cwd=empty, PYTHONPATH=str(site)).split()
    assert Path(where).is_relative_to(site)
    assert float(value) == pytest.approx(0.5)
