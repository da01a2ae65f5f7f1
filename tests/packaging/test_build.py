"""The build from a source tree: what is built where a tool is missing, does not work, or does not match torch."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import setuptools
import torch
import torch.utils.cpp_extension  # when it is first imported it may say which CUDA it found, on stderr
from setuptools import Command, Distribution, Extension

ROOT = Path(__file__).resolve().parents[2]

#: The extensions that setup.py would build in an environment, by name, and what it says on the way.
Configure = Callable[..., tuple[list[str], str]]


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Extension]]:
    """Runs setup.py up to the call of setup(), in an environment; a refusal is SystemExit."""

    def run(**environment: str) -> dict[str, Extension]:
        inherited = {key: value for key, value in os.environ.items() if key not in ("CUDA_HOME", "CUDA_PATH", "CXX")}
        monkeypatch.chdir(ROOT)
        with (
            mock.patch.dict(os.environ, {**inherited, **environment}, clear=True),
            mock.patch("setuptools.setup") as setup,
        ):
            runpy.run_path(str(ROOT / "setup.py"))
        return {extension.name: extension for extension in setup.call_args.kwargs["ext_modules"]}

    return run


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, compiler: str) -> dict[str, Callable[..., Command]]:
    """The commands that setup.py gives to setuptools."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PYMIXUNLEARN_CUDA", "0")
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    found: dict[str, Callable[..., Command]] = setup.call_args.kwargs["cmdclass"]
    return found


@pytest.fixture
def configure(extensions: Callable[..., dict[str, Extension]], capsys: pytest.CaptureFixture[str]) -> Configure:
    """The names of the extensions, and what setup.py says."""
    return lambda **environment: (list(extensions(**environment)), capsys.readouterr().err)


@pytest.fixture
def refusal(configure: Configure) -> Callable[..., str]:
    """What setup.py says as it refuses to build in an environment."""

    def run(**environment: str) -> str:
        with pytest.raises(SystemExit) as refused:
            configure(**environment)
        return str(refused.value)

    return run


def tool(path: Path, script: str | bytes, mode: int = 0o755) -> Path:
    """A build tool that is what the test needs it to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(script.encode() if isinstance(script, str) else script)
    path.chmod(mode)
    return path


@pytest.fixture
def compiler(tmp_path: Path) -> str:
    """A compiler that accepts everything: setup.py asks for no more than that."""
    return str(tool(tmp_path / "compilers" / "compiler", "#!/bin/sh\nexit 0\n"))


def test_a_refusal_is_one_line_and_exit_code_1() -> None:
    environment = {**os.environ, "PYMIXUNLEARN_CUDA": "yes"}
    command = [sys.executable, "setup.py", "--version"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "PYMIXUNLEARN_CUDA must be 0, 1 or auto, got 'yes'"
    assert "Traceback" not in result.stderr


def test_a_setuptools_that_is_too_old_is_named(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``python -m venv`` brings it on Python 3.11: a build without isolation takes it."""
    monkeypatch.setattr(setuptools, "__version__", "65.5.0")
    told = refusal()
    assert told == 'setuptools 65.5.0 is too old to build with; expected 77 or later: pip install "setuptools>=77"'
    required = re.search(r"setuptools>=(\d+)", (ROOT / "pyproject.toml").read_text())
    assert required is not None and f"expected {required[1]} or later" in told


@pytest.mark.parametrize("module", ["torch", "pybind11"])
def test_a_module_that_a_build_without_isolation_lacks_is_named(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, compiler: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    expected = f'building without isolation needs {module}: pip install "torch>=2.10" numpy "pybind11>=2.12" ninja'
    assert refusal(CXX=compiler, PYMIXUNLEARN_CUDA="0") == expected


def test_an_unknown_wish_is_refused(refusal: Callable[..., str]) -> None:
    told = refusal(PYMIXUNLEARN_EXTENSIONS="yes")
    assert told == "PYMIXUNLEARN_EXTENSIONS must be 0, 1 or auto, got 'yes'"


class TestNvcc:
    """With a compiler that works and a torch that has CUDA, whichever are here."""

    @pytest.fixture(autouse=True)
    def cuda_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")

    def test_a_torch_without_cuda_is_said_first(
        self, refusal: Callable[..., str], compiler: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        told = refusal(PYMIXUNLEARN_CUDA="1", PATH="/nowhere", CXX=compiler)
        assert "has no CUDA; expected a CUDA build of torch" in told

    def test_a_forced_build_without_nvcc_says_what_was_expected(
        self, refusal: Callable[..., str], compiler: str
    ) -> None:
        told = refusal(PYMIXUNLEARN_CUDA="1", PATH="/nowhere", CXX=compiler)
        assert "nvcc was not found in CUDA_HOME, CUDA_PATH or PATH; expected" in told

    def test_a_toolkit_of_another_major_version_is_refused(
        self, refusal: Callable[..., str], tmp_path: Path, compiler: str
    ) -> None:
        tool(tmp_path / "bin" / "nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 9.1, V9.1.85'\n")
        told = refusal(PYMIXUNLEARN_CUDA="1", CUDA_HOME=str(tmp_path), CXX=compiler)
        assert "found CUDA toolkit 9.1" in told and "was built with CUDA 13.0" in told

    @pytest.mark.parametrize(
        ("script", "mode", "reason"),
        [
            ("#!/bin/sh\n", 0o644, "cannot be run (Permission denied)"),
            (b"\x7fELF of another machine", 0o755, "cannot be run (Exec format error)"),
            ("#!/nowhere/interpreter\n", 0o755, "cannot be run (No such file or directory)"),
            ("#!/bin/sh\necho 'libnvvm is missing' >&2; exit 1\n", 0o755, "failed (libnvvm is missing)"),
            ("#!/bin/sh\nkill -SEGV $$\n", 0o755, "failed (exit code -11)"),
            ("#!/bin/sh\nprintf 'release \\377'\n", 0o755, "--version names no release"),
        ],
    )
    def test_one_that_does_not_work_counts_as_not_found(
        self, configure: Configure, tmp_path: Path, compiler: str, script: str | bytes, mode: int, reason: str
    ) -> None:
        nvcc = tool(tmp_path / "bin" / "nvcc", script, mode)
        extensions, told = configure(CUDA_HOME=str(tmp_path), CXX=compiler)
        assert extensions == ["pymixunlearn._ops_cpu", "pymixunlearn._introspection"]
        expected = f"{nvcc} {reason}; expected a toolkit to match: torch {torch.__version__}"
        assert told.startswith(f"building without CUDA operators: {expected}")

    @pytest.mark.parametrize(
        ("architectures", "told"), [("7.5;8.6", "7.5"), ("Turing 9.0+PTX", "Turing"), ("8.9;6.1+PTX", "6.1+PTX")]
    )
    def test_architectures_that_the_kernels_cannot_run_on_are_refused(
        self, refusal: Callable[..., str], tmp_path: Path, compiler: str, architectures: str, told: str
    ) -> None:
        tool(tmp_path / "bin" / "nvcc", "#!/bin/sh\necho 'release 13.0, V1'\n")
        message = refusal(CUDA_HOME=str(tmp_path), TORCH_CUDA_ARCH_LIST=architectures, CXX=compiler)
        assert message == f"TORCH_CUDA_ARCH_LIST names {told}; the CUDA operators need architectures from 8.0 on"

    @pytest.mark.parametrize(
        ("capabilities", "expected"),
        [
            ([], "8.0;8.6;8.9;9.0+PTX"),
            ([(9, 0)], "9.0+PTX"),
            ([(8, 9), (8, 6), (8, 9)], "8.6;8.9+PTX"),
            ([(7, 5), (9, 0)], "9.0+PTX"),
            ([(7, 5)], "8.0;8.6;8.9;9.0+PTX"),
            ([(13, 0), (9, 0)], "8.0;8.6;8.9;9.0+PTX"),  # newer than nvcc: the driver compiles the PTX
        ],
    )
    def test_the_build_is_for_the_gpus_that_there_are(
        self,
        extensions: Callable[..., dict[str, Extension]],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        compiler: str,
        capabilities: list[tuple[int, int]],
        expected: str,
    ) -> None:
        tool(tmp_path / "bin" / "nvcc", "#!/bin/sh\necho 'release 13.0, V1'\necho 'sm_80 sm_86 sm_89 sm_90'\n")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
        found = extensions(CUDA_HOME=str(tmp_path), CXX=compiler, MAX_JOBS="12")
        assert ("PMX_CUDA_ARCHS", expected) in found["pymixunlearn._introspection"].define_macros
        flags = found["pymixunlearn._ops_cuda"].extra_compile_args["nvcc"]
        assert flags[-2:] == ["--threads=4", "--compress-mode=size"]


NONE_FOUND = "no C++ compiler was found (c++, g++, clang++)"


def test_without_a_compiler_nothing_is_built_and_that_is_said(configure: Configure) -> None:
    assert configure(PATH="/nowhere") == ([], f"installing without compiled operators: {NONE_FOUND}\n")
    assert configure(PATH="/nowhere", PYMIXUNLEARN_EXTENSIONS="0") == ([], "")


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0+cu117"])
def test_a_torch_that_is_too_old_to_build_with_is_named(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    expected = f"torch {version} is too old to build with; expected 2.10 or later"
    assert configure() == ([], f"installing without compiled operators: {expected}\n")


@pytest.mark.parametrize("wish", ["PYMIXUNLEARN_EXTENSIONS", "PYMIXUNLEARN_CUDA"])
def test_a_forced_build_without_a_compiler_is_refused(refusal: Callable[..., str], wish: str) -> None:
    assert refusal(PATH="/nowhere", **{wish: "1"}) == f"the compiled operators cannot be built: {NONE_FOUND}"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho 'unrecognized option -std=c++17' >&2; exit 4\n", "failed (unrecognized option -std=c++17)"),
        (b"\x7fELF of another machine", "cannot be run (Exec format error)"),
    ],
)
def test_a_compiler_that_does_not_work_counts_as_none(
    configure: Configure, tmp_path: Path, script: str | bytes, reason: str
) -> None:
    broken = tool(tmp_path / "g++", script)
    assert configure(PATH=str(tmp_path)) == ([], f"installing without compiled operators: g++ {reason}\n")
    assert configure(CXX=f"{broken} -m64") == ([], f"installing without compiled operators: {broken} {reason}\n")


def test_the_first_compiler_that_works_is_taken(configure: Configure, tmp_path: Path, compiler: str) -> None:
    tool(tmp_path / "c++", "#!/bin/sh\nexit 1\n")
    (tmp_path / "clang++").symlink_to(compiler)
    extensions, told = configure(PATH=str(tmp_path), PYMIXUNLEARN_CUDA="0")
    assert (extensions, told) == (["pymixunlearn._ops_cpu", "pymixunlearn._introspection"], "")


def test_only_the_introspection_is_for_one_python(commands: dict[str, Callable[..., Command]]) -> None:
    build = commands["build_ext"](Distribution())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert build.get_ext_filename("pymixunlearn._ops_cpu") == "pymixunlearn/_ops_cpu.so"
    assert build.get_ext_filename("pymixunlearn._introspection") == f"pymixunlearn/_introspection{suffix}"
    assert build.get_ext_filename("pymixunlearn._ops_cuda") == "pymixunlearn/_ops_cuda.so"


def test_a_wheel_is_for_every_python_and_one_platform(commands: dict[str, Callable[..., Command]]) -> None:
    module = Extension("pymixunlearn._ops_cpu", [])
    wheel = commands["bdist_wheel"](Distribution({"name": "pymixunlearn", "ext_modules": [module]}))
    wheel.ensure_finalized()
    python, abi, platform = wheel.get_tag()
    assert (python, abi) == ("py3", "none") and platform not in ("any", "")


def test_libraries_that_are_given_are_not_compiled(
    commands: dict[str, Callable[..., Command]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "_ops_cpu.so").write_bytes(b"built before")
    monkeypatch.setenv("PYMIXUNLEARN_LIBRARIES", str(tmp_path))
    given = Extension("pymixunlearn._ops_cpu", ["nothing-to-compile.cpp"])
    build = commands["build_ext"](Distribution({"name": "pymixunlearn", "ext_modules": [given]}))
    build.build_lib, build.build_temp = str(tmp_path / "lib"), str(tmp_path / "temp")
    build.ensure_finalized()
    build.build_extension(given)
    assert (tmp_path / "lib" / "pymixunlearn" / "_ops_cpu.so").read_bytes() == b"built before"
    with pytest.raises(FileNotFoundError, match="_ops_cuda.so"):
        build.build_extension(Extension("pymixunlearn._ops_cuda", []))
