"""The structure of csrc: which folder may include which, one file name per operator, one list of sources."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CODE = {".h", ".cpp", ".cu", ".cuh"}
OPERATORS = sorted(path.stem for path in (CSRC / "cuda").glob("*.cu"))

#: What a folder may include besides its own files, as in csrc/README.md.
MAY_INCLUDE = {
    "core": set(),
    "cpu": {"core"},
    "cpu/isa": {"core", "cpu"},
    "cuda": {"core"},
    "bindings": {"core", "cpu", "cuda"},
    "python": {"cpu"},
    "api": {"core", "cpu", "include/pymixunlearn"},
    "include/pymixunlearn": set(),
}
#: The files of a folder that serve every operator.
SHARED = {
    "core": {"macros.h", "scalar.h", "stream.h"},
    "cpu": {"isa.cpp", "isa.h", "kernel_table.cpp", "kernel_table.h"},
    "cpu/isa": {
        "matrix_product.h",
        "row_loops.h",
        "simd.h",
        "table_avx2.cpp",
        "table_avx512.cpp",
        "table_baseline.cpp",
    },
    "cuda": {"block.cuh", "launch_plan.h", "mma.cuh", "pack.cuh"},
    "bindings": {"cuda_queue.h", "tensors.h"},
    "python": {"introspection.cpp"},
    "api": {"arguments.h", "runtime.cpp"},
    "include/pymixunlearn": {"mixing.h", "pairing.h", "runtime.h"},
}

#: What an operator consists of: files of its own, and shared files that it adds lines to. What grows too long has
#: parts, whose names have a suffix.
OWN = [
    "csrc/core/OPERATOR.h",
    "csrc/cpu/isa/OPERATOR.h",
    "csrc/cuda/OPERATOR.cuh",
    "csrc/cuda/OPERATOR.cu",
    "csrc/bindings/OPERATOR.cpp",
    "csrc/tools/ptx/OPERATOR.cpp",
    "pymixunlearn/ops/_OPERATOR.py",
    "tests/cpp/test_OPERATOR.cpp",
    "tests/ops/test_OPERATOR.py",
]
ADDED_TO = ["csrc/cpu/kernel_table.h", "pymixunlearn/ops/reference.py", "pymixunlearn/ops/__init__.py"]
#: The interface for C++ users, which the losses and mask_mix have, and what it shares with the binding.
OPTIONAL = ["csrc/cpu/OPERATOR.h", "csrc/api/OPERATOR.cpp", "csrc/include/pymixunlearn/OPERATOR.h"]
#: Where a new operator must not have to be named.
GENERAL = ["setup.py", "CMakeLists.txt", "cmake", "csrc", "pymixunlearn/ops", "tests/ops/problem.py"]
GENERAL += ["tests/ops/problems.py", "tests/ops/test_every_operator.py", "tests/ops/conftest.py"]


def files(csrc: Path) -> list[Path]:
    return sorted(path for folder in MAY_INCLUDE for path in (csrc / folder).iterdir() if path.suffix in CODE)


def folder_of(path: Path, csrc: Path) -> str:
    return path.parent.relative_to(csrc).as_posix()


def includes(path: Path, csrc: Path) -> tuple[set[Path], set[str]]:
    """The files of csrc that a file includes, and the headers of others."""
    text = path.read_text()
    own = set()
    for name in re.findall(r'^\s*#include "([^"]+)"', text, re.MULTILINE):
        base = csrc / "include" if name.startswith("pymixunlearn/") else path.parent
        own.add((base / name).resolve())
    return own, set(re.findall(r"^\s*#include <([^>]+)>", text, re.MULTILINE))


def violations(csrc: Path) -> list[str]:
    """One line for each include that the rules forbid."""
    found = []
    for path in files(csrc):
        folder, name = folder_of(path, csrc), path.relative_to(csrc).as_posix()
        own, others = includes(path, csrc)
        for target in sorted(own):
            if not target.exists():
                found.append(f"{name} includes {target.name}, which does not exist")
                continue
            # The kernels, for the table_ISA.cpp alone.
            table = name == "cpu/kernel_table.h" and folder_of(target, csrc) == "cpu/isa"
            if not table and folder_of(target, csrc) not in MAY_INCLUDE[folder] | {folder}:
                found.append(f"{name} includes {target.relative_to(csrc).as_posix()}")
        for header in sorted(others):
            if re.match(r"(torch|ATen|c10)", header) and folder != "bindings":
                found.append(f"{name} includes {header}")
            if re.match(r"(pybind11|Python\.h)", header) and folder != "python":
                found.append(f"{name} includes {header}")
            if re.match(r"cuda|cublas|cooperative_groups", header) and folder not in ("cuda", "bindings"):
                # The host's build of core must not see CUDA headers.
                before = r"#if defined\(__CUDACC__\)\n(#include <[^>]+>\n)*"
                guarded = re.search(rf"{before}#include <{re.escape(header)}>", path.read_text())
                if not (folder == "core" and guarded):
                    found.append(f"{name} includes {header}")
        if path.suffix == ".cuh" and "<<<" in path.read_text():
            found.append(f"{name} holds launch syntax, which belongs in a .cu")
    return found


def circle(csrc: Path) -> list[str]:
    """The files of an include circle, if there is one."""
    graph = {path: {target for target in includes(path, csrc)[0] if target.exists()} for path in files(csrc)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [path.relative_to(csrc).as_posix() for path in error.args[1]]
    return []


def misnamed(csrc: Path) -> list[str]:
    """Files that bear no operator's name and serve not all of them, and operators that a folder lacks."""
    found = []
    for folder, shared in SHARED.items():
        names = {path.name for path in (csrc / folder).iterdir() if path.suffix in CODE}
        mirrored = {name for name in names if re.match(rf"({'|'.join(OPERATORS)})(_\w+)?\.", name)}
        found += [f"{folder}/{name} bears no operator's name" for name in sorted(names - mirrored - shared)]
        found += [f"{folder}/{name} is missing" for name in sorted(shared - names)]
    return found


def test_folders_include_only_what_they_may() -> None:
    assert violations(CSRC) == []
    assert circle(CSRC) == []


def test_file_names_mirror_the_operators() -> None:
    assert misnamed(CSRC) == []


def test_an_operator_is_the_files_that_the_readme_lists() -> None:
    text = (CSRC / "README.md").read_text().split("## Add an operator")[1].split("\n## ")[0]
    numbered = re.findall(r"^\| (\d+) \| `([^`]+)` \|", text, re.MULTILINE)
    assert [int(number) for number, _ in numbered] == list(range(1, len(numbered) + 1))
    assert sorted(name for _, name in numbered) == sorted([*OWN, *ADDED_TO])
    assert len(numbered) <= 12


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_its_files_where_a_new_one_will(operator: str) -> None:
    """The losses, which are four operators, have several files in place of some: ``losses_rows.h``."""
    named = re.compile(rf"(_|test_|test_api_)?{operator}(_\w+)?\.\w+")
    places = [ROOT / name.replace("OPERATOR", operator) for name in (*OWN, *OPTIONAL)]
    for path in places[: len(OWN)]:
        assert path.exists() or list(path.parent.glob(f"{path.stem}_*{path.suffix}")), path
    folders = {path.parent for path in places}
    elsewhere = [
        path
        for folder in ("csrc", "pymixunlearn/ops", "tests/cpp", "tests/ops")
        for path in (ROOT / folder).rglob("*.*")
        if named.fullmatch(path.name) and path.suffix != ".pyc" and path.parent not in folders
    ]
    assert elsewhere == []


def test_nothing_else_names_an_operator() -> None:
    """The attention consists of the listed files alone: what else its kernels and rules need has to find them."""
    own = {name.replace("OPERATOR", "attention") for name in OWN}
    code = {".h", ".cpp", ".cu", ".cuh", ".py", ".json", ".txt", ".cmake", ".sh"}
    found = []
    for place in GENERAL:
        for path in [ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in code and name not in own and name not in ADDED_TO:
                lines = path.read_text().splitlines()
                found += [f"{name}: {line.strip()}" for line in lines if "attention" in line.lower()]
    assert found == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CSRC, tmp_path / "csrc"))


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("core/losses.h", '#include "../cpu/isa.h"', "core/losses.h includes cpu/isa.h"),
        ("core/losses.h", "#include <torch/csrc/stable/tensor.h>", "core/losses.h includes torch/csrc/stable/tensor.h"),
        ("core/losses.h", "#include <cuda_runtime.h>", "core/losses.h includes cuda_runtime.h"),
        ("cpu/mask_mix.h", '#include "../cuda/pack.cuh"', "cpu/mask_mix.h includes cuda/pack.cuh"),
        ("cpu/mask_mix.h", '#include "isa/simd.h"', "cpu/mask_mix.h includes cpu/isa/simd.h"),
        ("cuda/attention.cuh", '#include "../bindings/tensors.h"', "cuda/attention.cuh includes bindings/tensors.h"),
        ("cuda/losses.cu", '#include "../cpu/losses.h"', "cuda/losses.cu includes cpu/losses.h"),
        ("cuda/mma.cuh", "kernel<<<1, 1>>>();", "cuda/mma.cuh holds launch syntax, which belongs in a .cu"),
        ("api/losses.cpp", "#include <ATen/ATen.h>", "api/losses.cpp includes ATen/ATen.h"),
        ("api/losses.cpp", '#include "nowhere.h"', "api/losses.cpp includes nowhere.h, which does not exist"),
    ],
)
def test_a_forbidden_include_is_found(copy: Path, file: str, line: str, told: str) -> None:
    path = copy / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    assert violations(copy) == [told]


def test_an_include_circle_is_found(copy: Path) -> None:
    path = copy / "core" / "scalar.h"
    path.write_text('#include "losses.h"\n' + path.read_text())
    assert set(circle(copy)) == {"core/scalar.h", "core/losses.h"}


def test_a_file_without_an_operator_is_found(copy: Path) -> None:
    (copy / "cuda" / "mixing.cuh").touch()
    assert misnamed(copy) == ["cuda/mixing.cuh bears no operator's name"]


def test_every_source_is_listed_and_exists() -> None:
    listed = json.loads((CSRC / "sources.json").read_text())
    groups = ("core", "api", "ops_cpu", "ops_cuda", "introspection")
    built = {
        path.relative_to(CSRC).as_posix()
        for group in groups
        for pattern in listed[group]
        for path in CSRC.glob(pattern)
    }
    present = {p.relative_to(CSRC).as_posix() for p in CSRC.rglob("*") if p.suffix in (".cpp", ".cu")}
    assert built == {name for name in present if not name.startswith("tools/")}
    assert listed["cpp_tests"] == ["test_*.cpp"]


def test_classes_have_distinct_names() -> None:
    """A name means one class; the public headers have a namespace of their own."""
    defined = re.compile(r"^(?:class|struct|enum class) (\w+)(?: : \w+)?(?: : public \w+)? \{", re.MULTILINE)
    names = Counter(
        name for p in files(CSRC) if p.parent.name != "pymixunlearn" for name in defined.findall(p.read_text())
    )
    assert len(names) > 40
    assert [name for name, count in names.items() if count > 1] == []


def test_the_list_of_old_names_leads_to_files() -> None:
    rows = re.findall(
        r"^\| (`[^|]+) \| (`[^|]+) \|$", (CSRC / "README.md").read_text().split("## Old and new")[1], re.M
    )
    assert len(rows) > 20
    for _, new in rows:
        for name in re.findall(r"`(\w+(?:/\w+)+\.\w+)`", new):
            expected = [name.replace("ISA", isa) for isa in ("baseline", "avx2", "avx512")] if "ISA" in name else [name]
            assert all((CSRC / path).exists() for path in expected), name


@pytest.mark.tools("c++")
@pytest.mark.parametrize("silenced", [False, True])
def test_the_old_name_of_a_header_forwards_and_warns(tmp_path: Path, silenced: bool) -> None:
    program = tmp_path / "program.cpp"
    program.write_text("#include <pymixunlearn/mixing.h>\npymixunlearn::MaskMix<float> mix;\n")
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-I{CSRC / 'include'}", str(program)]
    command += ["-DPYMIXUNLEARN_NO_DEPRECATION_WARNINGS"] if silenced else []
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert ("<pymixunlearn/mixing.h> is now <pymixunlearn/mask_mix.h>" in result.stderr) is not silenced
