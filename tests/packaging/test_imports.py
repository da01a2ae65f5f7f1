"""Nothing lower imports anything higher, and no modules import each other in a circle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_import_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "Contracts: 3 kept, 0 broken." in done.stdout


@pytest.mark.parametrize(
    ("low", "high", "broken"),
    [
        ("pymixunlearn/ops/__init__.py", "pymixunlearn.methods", "Nothing lower imports anything higher BROKEN"),
        ("pymixunlearn/nn/losses.py", "pymixunlearn.nn.mixblock", "No import circle BROKEN"),
    ],
)
def test_an_import_against_the_contracts_is_found(tmp_path: Path, low: str, high: str, broken: str) -> None:
    """A small package of the same names: the contracts can fail."""
    text = (ROOT / "pyproject.toml").read_text()
    _, _, rest = text.partition("[tool.importlinter]")
    contracts, _, _ = rest.partition("[tool.pytest")
    (tmp_path / "pyproject.toml").write_text(f"[tool.importlinter]{contracts}")
    for path in (ROOT / "pymixunlearn").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("")
    (tmp_path / "mixunlearn_cli").mkdir()
    (tmp_path / "mixunlearn_cli" / "__init__.py").write_text("")
    other = tmp_path / f"{high.replace('.', '/')}.py"
    (tmp_path / low).write_text(f"import {high}\n")
    if other.exists():
        other.write_text(f"import {low.removesuffix('.py').replace('/', '.')}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and broken in done.stdout, done.stdout
