"""Builds the compiled operators; everything else about the package is in pyproject.toml.

Three extension modules come out of csrc/ (its list of sources is csrc/sources.json):

- ``_ops_cpu``: schemas and CPU operators,
- ``_ops_cuda``: CUDA operators, a file of its own so that a CUDA build still imports where no driver is,
- ``_introspection``: facts about the build, through pybind11. It alone is for one version of Python, and is optional:
  in a wheel the others do without it.

Where no C++ compiler is found the package installs without them and runs on its plain-PyTorch reference operators.

Environment:

- ``PYMIXUNLEARN_EXTENSIONS``: ``0`` installs without compiled operators, ``1`` builds them or fails.
- ``PYMIXUNLEARN_CUDA``: ``1`` builds the CUDA operators or fails saying why, ``0`` leaves them out. Without it they are
  built when torch has CUDA and a matching nvcc is found.
- ``TORCH_CUDA_ARCH_LIST``: GPU architectures, as for any torch extension. Without it, those of the GPUs that this
  machine has and PTX of the newest, or the list in csrc/sources.json where it has none.
- ``PYMIXUNLEARN_LIBRARIES``: a folder with libraries of operators that were built from these very sources, which are
  taken instead of compiling them again (release/wheels.py).
- ``MAX_JOBS``: parallel compile jobs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import setuptools

# A build without isolation takes what is installed. An older setuptools does not understand pyproject.toml.
OLDEST_SETUPTOOLS = 77
if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
    sys.exit(
        f"setuptools {setuptools.__version__} is too old to build with; expected {OLDEST_SETUPTOOLS} or later: "
        f'pip install "setuptools>={OLDEST_SETUPTOOLS}"'
    )
LACKING = 'building without isolation needs {}: pip install "torch>=2.10" numpy "pybind11>=2.12" ninja'
try:
    import torch
except ModuleNotFoundError as missing:
    sys.exit(LACKING.format(missing.name))

from setuptools import Extension, find_packages, setup  # noqa: E402
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402

ROOT = Path(__file__).resolve().parent
CSRC = json.loads((ROOT / "csrc" / "sources.json").read_text())
TARGET = CSRC["torch_target"]
FOR_ONE_PYTHON = "_introspection"
COMPILERS = ["c++", "g++", "clang++"]
TOO_OLD = r"[1-7]\.|Kepler|Maxwell|Pascal|Volta|Turing"
SYNTAX_CHECK = ["-std=c++17", "-fsyntax-only", "-x", "c++", os.devnull]


class Toolkit(NamedTuple):
    """A CUDA toolkit: its own folder (the one that holds lib64) and its version."""

    home: str
    version: tuple[int, int]


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a build tool, which may be for another machine, not executable, or broken; raise ValueError saying which."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=120
        )
    except OSError as error:
        raise ValueError(f"{command[0]} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} did not end in two minutes") from None
    if result.returncode != 0:
        said = (result.stdout + result.stderr).strip().splitlines()
        raise ValueError(f"{command[0]} failed ({said[-1] if said else f'exit code {result.returncode}'})")
    return result


def find_toolkit() -> Toolkit:
    """Ask nvcc where it lives: on some systems the nvcc on PATH is a script, and its folder is not the toolkit's.

    ValueError says why there is none: no nvcc, or one that cannot be run.
    """
    candidates = [os.path.join(home, "bin", "nvcc") for key in ("CUDA_HOME", "CUDA_PATH") if (home := os.getenv(key))]
    nvcc = next((path for path in candidates if os.path.exists(path)), None) or shutil.which("nvcc")
    if nvcc is None:
        raise ValueError("nvcc was not found in CUDA_HOME, CUDA_PATH or PATH")
    version = re.search(r"release (\d+)\.(\d+)", ask(nvcc, "--version").stdout)
    if version is None:
        raise ValueError(f"{nvcc} --version names no release")
    home = os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
    # A wrapper need not know this option; its folder is then the only guess.
    with contextlib.suppress(ValueError):
        dry = ask(nvcc, "--dryrun", "-x", "cu", "-c", os.devnull)
        if top := re.search(r"^#\$ TOP=(.+)$", dry.stderr, re.MULTILINE):
            home = os.path.realpath(top.group(1).strip())
    return Toolkit(home, (int(version.group(1)), int(version.group(2))))


def usable_toolkit() -> Toolkit | None:
    """The toolkit to build CUDA operators with, or None; a forced build that cannot be done ends here."""
    wish = os.getenv("PYMIXUNLEARN_CUDA", "auto").lower()
    if wish not in ("0", "1", "auto"):
        sys.exit(f"PYMIXUNLEARN_CUDA must be 0, 1 or auto, got {wish!r}")
    if wish == "0":
        return None
    if torch.version.cuda is None:
        problem = f"torch {torch.__version__} has no CUDA; expected a CUDA build of torch"
    else:
        built_with = f"torch {torch.__version__} was built with CUDA {torch.version.cuda}"
        try:
            toolkit = find_toolkit()
            if toolkit.version[0] == int(torch.version.cuda.split(".")[0]):
                return toolkit
            found = ".".join(map(str, toolkit.version))
            problem = f"found CUDA toolkit {found} in {toolkit.home}; expected the major version to match: {built_with}"
        except ValueError as error:
            problem = f"{error}; expected a toolkit to match: {built_with}"
    if wish == "1":
        sys.exit(f"PYMIXUNLEARN_CUDA=1, but the CUDA operators cannot be built: {problem}")
    print(f"building without CUDA operators: {problem}", file=sys.stderr)
    return None


def architectures(toolkit: Toolkit) -> list[str]:
    """What to build for: the GPUs of this machine, or the whole list where it has none or one that nvcc does not know.

    Either ends in PTX, which the driver compiles for newer GPUs.
    """
    if not torch.cuda.is_available():
        return list(CSRC["cuda_architectures"])
    found = sorted({torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})
    try:
        known = ask(os.path.join(toolkit.home, "bin", "nvcc"), "--list-gpu-code").stdout.split()
    except ValueError:
        known = []
    if any(f"sm_{major}{minor}" not in known for major, minor in found if major >= 8):
        return list(CSRC["cuda_architectures"])
    *older, newest = [f"{major}.{minor}" for major, minor in found if major >= 8] or CSRC["cuda_architectures"]
    return [*older, newest if newest.endswith("+PTX") else f"{newest}+PTX"]


def nvcc_flags(toolkit: Toolkit) -> list[str]:
    """Flags for this toolkit: small binaries, and where there are many processors the architectures side by side."""
    jobs = int(os.getenv("MAX_JOBS") or os.cpu_count() or 1)
    flags = [*CSRC["nvcc_flags"], f"--threads={max(1, jobs // 3)}"]
    return [*flags, "--compress-mode=size"] if toolkit.version >= (12, 8) else flags


def choose_compiler() -> None:
    """Let torch build with the first C++17 compiler that works; ValueError says why there is none."""
    if named := os.getenv("CXX", "").split():
        ask(*named, *SYNTAX_CHECK)
        return
    problems = []
    for compiler in filter(shutil.which, COMPILERS):
        try:
            ask(compiler, *SYNTAX_CHECK)
            os.environ["CXX"] = compiler
            return
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; ".join(problems) or f"no C++ compiler was found ({', '.join(COMPILERS)})")


def check_torch() -> None:
    """The headers of the stable ABI are those of ``torch_target``; ValueError where torch is older."""
    oldest = (int(TARGET[2:4], 16), int(TARGET[4:6], 16))
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if found and (int(found[1]), int(found[2])) < oldest:
        raise ValueError(
            f"torch {torch.__version__} is too old to build with; expected {oldest[0]}.{oldest[1]} or later"
        )


def wanted() -> bool:
    """Whether to build compiled operators: as the environment says, otherwise where there is a compiler."""
    wish = os.getenv("PYMIXUNLEARN_EXTENSIONS", "auto").lower()
    if wish not in ("0", "1", "auto"):
        sys.exit(f"PYMIXUNLEARN_EXTENSIONS must be 0, 1 or auto, got {wish!r}")
    if os.getenv("PYMIXUNLEARN_CUDA") == "1":
        wish = "1"
    if wish == "0":
        return False
    try:
        check_torch()
        choose_compiler()
    except ValueError as error:
        if wish == "1":
            sys.exit(f"the compiled operators cannot be built: {error}")
        print(f"installing without compiled operators: {error}", file=sys.stderr)
        return False
    return True


build_extensions = wanted()
toolkit = usable_toolkit() if build_extensions else None
if toolkit is not None:
    os.environ["CUDA_HOME"] = toolkit.home
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ";".join(architectures(toolkit)))
    if old := [name for name in re.split(r"[;, ]+", os.environ["TORCH_CUDA_ARCH_LIST"]) if re.match(TOO_OLD, name)]:
        sys.exit(f"TORCH_CUDA_ARCH_LIST names {', '.join(old)}; the CUDA operators need architectures from 8.0 on")

# After CUDA_HOME is set: the module reads it when it is imported.
from torch.utils.cpp_extension import BuildExtension, CUDAExtension, include_paths, library_paths  # noqa: E402


def sources(*groups: str) -> list[str]:
    """Paths of source groups, relative to this file as setuptools wants them."""
    found = [sorted((ROOT / "csrc").glob(pattern)) for group in groups for pattern in CSRC[group]]
    return [path.relative_to(ROOT).as_posix() for paths in found for path in paths]


def extensions() -> list[Extension]:
    """The extension modules of this build."""
    stable = ("TORCH_TARGET_VERSION", TARGET)
    cpu = Extension(
        "pymixunlearn._ops_cpu",
        sources("core", "ops_cpu"),
        include_dirs=include_paths(),
        library_dirs=library_paths(),
        libraries=["c10", "torch_cpu"],
        define_macros=[stable],
        extra_compile_args={"cxx": CSRC["cxx_flags"]},
    )
    facts = [("PMX_BUILD_TORCH", torch.__version__), ("PMX_TORCH_TARGET", TARGET)]
    built = [cpu]
    if toolkit is not None:
        facts += [
            ("PMX_CUDA_VERSION", ".".join(map(str, toolkit.version))),
            ("PMX_CUDA_ARCHS", os.environ["TORCH_CUDA_ARCH_LIST"].replace(" ", ";")),
        ]
        cuda = CUDAExtension(
            "pymixunlearn._ops_cuda",
            sources("ops_cuda"),
            py_limited_api=True,  # keeps libtorch_python out: the library must not depend on the Python that built it
            define_macros=[stable, ("USE_CUDA", None)],
            extra_compile_args={"cxx": CSRC["cxx_flags"], "nvcc": nvcc_flags(toolkit)},
        )
        built.append(cuda)
    try:
        import pybind11
    except ModuleNotFoundError as missing:
        sys.exit(LACKING.format(missing.name))

    introspection = Extension(
        f"pymixunlearn.{FOR_ONE_PYTHON}",
        sources("introspection"),
        include_dirs=[pybind11.get_include()],
        define_macros=facts,
        extra_compile_args={"cxx": CSRC["cxx_flags"]},
    )
    return [*built, introspection]


class Build(BuildExtension.with_options(no_python_abi_suffix=True)):
    """Compiles each extension in a folder of its own: they share sources, which they compile differently.

    The libraries of operators have plain ".so" names: they are shared libraries for the dispatcher, not Python modules.
    """

    def get_ext_filename(self, name: str) -> str:
        self.no_python_abi_suffix = not name.endswith(FOR_ONE_PYTHON)
        return super().get_ext_filename(name)

    def build_extension(self, ext: Extension) -> None:
        if (folder := os.getenv("PYMIXUNLEARN_LIBRARIES")) and not ext.name.endswith(FOR_ONE_PYTHON):
            target = Path(self.get_ext_fullpath(ext.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(folder) / target.name, target)
            return
        together = self.build_temp
        self.build_temp = os.path.join(together, ext.name)
        super().build_extension(ext)
        self.build_temp = together


class Wheel(bdist_wheel):
    """A wheel for every Python: what is built for one alone bears its name, so that the others pass it over."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


packages = find_packages(include=["pymixunlearn*"])
packages += ["mixunlearn_cli", *(f"mixunlearn_cli.{name}" for name in find_packages("cli"))]

setup(
    packages=packages,
    ext_modules=extensions() if build_extensions else [],
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
)
