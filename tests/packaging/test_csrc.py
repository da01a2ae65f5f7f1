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
OPERATORS = ("losses", "mask_mix", "attention")

#: What a folder may include besides its own files, as in csrc/README.md.
MAY_INCLUDE = {
    "core": set(),
    "cpu": {"core"},
    "cpu/isa": {"core", "cpu"},
    "cuda": {"core"},
    "bindings": {"core", "cpu", "cuda"},
    "api": {"core", "cpu", "include/pymixunlearn"},
    "include/pymixunlearn": set(),
}
#: The files of a folder that serve every operator.
SHARED = {
    "core": {"macros.h", "scalar.h"},
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
    "bindings": {"cuda_queue.h", "introspection.cpp", "schemas.cpp", "tensors.h"},
    "api": {"arguments.h", "runtime.cpp"},
    "include/pymixunlearn": {"mixing.h", "pairing.h", "runtime.h"},
}
#: MixBlock's attention has no interface for C++ users.
WITHOUT_ATTENTION = {"api", "include/pymixunlearn"}


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
            if folder_of(target, csrc) not in MAY_INCLUDE[folder] | {folder}:
                found.append(f"{name} includes {target.relative_to(csrc).as_posix()}")
        for header in sorted(others):
            if re.match(r"(torch|ATen|c10|pybind11|Python\.h)", header) and folder != "bindings":
                found.append(f"{name} includes {header}")
            if re.match(r"cuda|cublas|cooperative_groups", header) and folder not in ("cuda", "bindings"):
                # The host's build of core must not see CUDA headers.
                guarded = re.search(rf"#if defined\(__CUDACC__\)\n#include <{re.escape(header)}>", path.read_text())
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
        for operator in OPERATORS:
            if operator == "attention" and folder in WITHOUT_ATTENTION:
                continue
            if not any(name.startswith((f"{operator}.", f"{operator}_")) for name in mirrored):
                found.append(f"{folder} has no file of {operator}")
    return found


def test_folders_include_only_what_they_may() -> None:
    assert violations(CSRC) == []
    assert circle(CSRC) == []


def test_file_names_mirror_the_operators() -> None:
    assert misnamed(CSRC) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CSRC, tmp_path / "csrc"))


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("core/losses.h", '#include "../cpu/isa.h"', "core/losses.h includes cpu/isa.h"),
        ("core/losses.h", "#include <torch/csrc/stable/tensor.h>", "core/losses.h includes torch/csrc/stable/tensor.h"),
        ("core/losses.h", "#include <cuda_runtime.h>", "core/losses.h includes cuda_runtime.h"),
        ("cpu/mask_mix.h", '#include "../cuda/mask_mix.h"', "cpu/mask_mix.h includes cuda/mask_mix.h"),
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
    (copy / "cpu" / "attention.h").unlink()
    assert misnamed(copy) == ["cpu has no file of attention", "cuda/mixing.cuh bears no operator's name"]


def test_every_source_is_listed_and_exists() -> None:
    listed = json.loads((CSRC / "sources.json").read_text())
    built = {name for group in ("core", "api", "ops_cpu", "ops_cuda", "introspection") for name in listed[group]}
    present = {p.relative_to(CSRC).as_posix() for p in CSRC.rglob("*") if p.suffix in (".cpp", ".cu")}
    assert built == {name for name in present if not name.startswith("tools/")}
    assert set(listed["cpp_tests"]) == {p.name for p in (ROOT / "tests" / "cpp").glob("test_*.cpp")}


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


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("silenced", [False, True])
def test_the_old_name_of_a_header_forwards_and_warns(tmp_path: Path, silenced: bool) -> None:
    program = tmp_path / "program.cpp"
    program.write_text("#include <pymixunlearn/mixing.h>\npymixunlearn::MaskMix<float> mix;\n")
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-I{CSRC / 'include'}", str(program)]
    command += ["-DPYMIXUNLEARN_NO_DEPRECATION_WARNINGS"] if silenced else []
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert ("<pymixunlearn/mixing.h> is now <pymixunlearn/mask_mix.h>" in result.stderr) is not silenced
