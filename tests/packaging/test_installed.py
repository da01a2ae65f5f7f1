"""What an installation promises, whatever torch it runs under."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import pymixunlearn
from pymixunlearn import ops

PROGRAM = Path(sys.executable).parent / "mixunlearn-cli"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # From an empty folder, since the working directory would come before the installation.
    command = [sys.executable, "-c", code]
    with TemporaryDirectory() as empty:
        return subprocess.run(command, capture_output=True, text=True, cwd=empty, env={**os.environ, **environment})


def test_version_has_one_home() -> None:
    assert pymixunlearn.__version__ == version("pymixunlearn")


def test_build_facts_name_compiler_abi_and_instruction_set() -> None:
    facts = ops.status().facts
    assert facts["torch_abi_target"] == "0x020a000000000000"
    assert facts["compiler"].split()[0] in ("gcc", "clang")
    assert facts["cpu_isa"] in ("baseline", "avx2", "avx512")
    assert (facts["cuda"] is None) == (facts["cuda_architectures"] is None)


def test_info_prints_versions_devices_and_build_facts() -> None:
    result = subprocess.run([PROGRAM, "info"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for word in ("pymixunlearn", "torch", "cpu", ops.status().facts["cpu_isa"], ops.status().facts["compiler"]):
        assert word in result.stdout


def test_package_data_is_installed() -> None:
    folder = Path(pymixunlearn.__file__).parent
    assert (folder / "py.typed").exists()
    assert list((folder / "experiments" / "presets").glob("*.yaml"))
    assert list((folder / "reporting" / "templates").iterdir())


@pytest.fixture
def without_libraries(tmp_path: Path) -> str:
    """A copy of the package that has no compiled operators."""
    for name in ("pymixunlearn", "mixunlearn_cli"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(Path(spec.origin).parent, tmp_path / name, ignore=ignore)
    return str(tmp_path)


LOSS = (
    "import torch; from pymixunlearn import ops\n"
    "y = torch.arange(3)\n"
    "for _ in range(2): print(ops.sim_loss(torch.eye(3), y).sum().item())\n"
)


def test_without_libraries_the_reference_serves_and_says_so_once(without_libraries: str) -> None:
    result = run(LOSS, PYTHONPATH=without_libraries)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("plain-PyTorch reference operators") == 1
    assert "_ops_cpu.so was not built" in result.stderr
    values = [float(line) for line in result.stdout.split()]
    expected = [float(line) for line in run(LOSS).stdout.split()]
    assert values == pytest.approx(expected)


def test_a_library_that_does_not_load_is_reported(without_libraries: str) -> None:
    (Path(without_libraries) / "pymixunlearn" / "_ops_cpu.so").write_bytes(b"not a library")
    code = "import sys; from mixunlearn_cli.main import main; sys.argv = ['mixunlearn-cli', 'info']; main()"
    result = run(code, PYTHONPATH=without_libraries)
    assert result.returncode == 0, result.stderr
    told = " ".join(result.stdout.split())  # its lines are folded
    assert "CPU library not in use (plain PyTorch instead): _ops_cpu.so does not load" in told
    assert "file too short" in told or "invalid ELF header" in told


@pytest.mark.tools("cc")
def test_a_library_that_lacks_the_operators_is_reported_and_the_reference_serves(without_libraries: str) -> None:
    folder = Path(without_libraries) / "pymixunlearn"
    (folder / "old.c").write_text("int old;")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "_ops_cpu.so", folder / "old.c"], check=True)
    result = run(LOSS, PYTHONPATH=without_libraries)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("_ops_cpu.so is of another version of this package, rebuild it: it lacks") == 1
    expected = [float(line) for line in run(LOSS).stdout.split()]
    assert [float(line) for line in result.stdout.split()] == pytest.approx(expected)


def test_a_build_with_cuda_imports_where_no_driver_is() -> None:
    result = run(LOSS, CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0 and not result.stderr.strip()
