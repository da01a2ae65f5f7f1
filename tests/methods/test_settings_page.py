"""What is made from the settings is that of the code: their reference, and their types."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import settings
from pymixunlearn import methods

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text("utf-8") == settings.page(), "run: python -m benchmarks.report settings"


@pytest.mark.parametrize("name", methods.available())
def test_every_setting_has_a_row(name: str) -> None:
    fields = dataclasses.fields(methods.get(name).config_class)
    lines = settings.section(name).splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == [field.name for field in fields]
    assert all(line.count(" | ") == 4 for line in lines if line.startswith("| `"))


def test_a_row_says_default_range_meaning_and_source() -> None:
    lines = settings.section("mixunlearn").splitlines()
    assert (
        "| `tau_gen` | `0.5` | number > 0 | temperature of the generator's loss (Eq. 3) | within the range searched by "
        "MixUnlearn's authors |"
    ) in lines
    assert any(line.startswith("| `precision` | `none` | `float32`, `bfloat16`, or `none` |") for line in lines)
    assert any("whole number ≥ 1" in line for line in lines)


def test_the_types_are_made_from_the_code() -> None:
    written = (PAGE.parents[1] / "pymixunlearn" / "methods" / "_typed.pyi").read_text("utf-8")
    made = settings.typed_classes()
    assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(made)), "run: python -m benchmarks.report settings"


USE = """
from pymixunlearn import MixUnlearn, methods

MixUnlearn(lr=2e-4, pairing="grid", feature_layer=None)
methods.get("scrub")(variant="large", rewind=True)
methods.Unroll(point="start", start=None)
methods.get(input())(anything=1)
"""
MISUSE = """
from pymixunlearn import MixUnlearn, methods

MixUnlearn(omgea=10.0)
MixUnlearn(pairing="gird")
methods.get("scrub")(epochs="ten")
methods.NegGrad(start=None)
methods.NegGradConfig(retain_wieght=1.0)
"""


@pytest.mark.slow  # and needs mypy, of the extra dev
def test_type_checkers_find_misspelt_settings(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "misuse.py").write_text(MISUSE)
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "numpy", "sklearn", "scipy"))
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nfollow_imports = silent\ncache_dir = {tmp_path}\n{skipped}")
    root = str(PAGE.parents[1])
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary", "use.py", "misuse.py"]
    found = subprocess.run(command, cwd=tmp_path, env={**os.environ, "MYPYPATH": root}, capture_output=True, text=True)
    words = [
        "omgea",
        "expected .Literal..zip., .grid...",
        '"epochs" .* incompatible type "str"',
        "start",
        "retain_wieght",
    ]
    lines = [line for line in found.stdout.splitlines() if ": error: " in line]
    assert len(lines) == len(words), found.stdout + found.stderr
    for line, number, word in zip(lines, range(4, 9), words, strict=True):
        assert line.startswith(f"misuse.py:{number}: ") and re.search(word, line), line
