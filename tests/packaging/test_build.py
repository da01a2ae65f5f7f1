"""The build from a source tree: what a forced CUDA build says when it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def setup(**environment: str) -> subprocess.CompletedProcess[str]:
    """Let setup.py decide what it would build in this environment."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("CUDA_HOME", "CUDA_PATH", "CXX")}
    command = [sys.executable, "setup.py", "--version"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**inherited, **environment})


def refusal(**environment: str) -> str:
    """What setup.py says as it refuses to build in this environment."""
    result = setup(**environment)
    assert result.returncode == 1
    return result.stderr


# Without CUDA in torch there is nothing to match a toolkit with, and that is said first.
NO_CUDA_TORCH = None if torch.version.cuda else "has no CUDA; expected a CUDA build of torch"


def test_a_forced_build_without_nvcc_says_what_was_expected() -> None:
    message = refusal(PYMIXUNLEARN_CUDA="1", PATH="/nowhere")
    assert (NO_CUDA_TORCH or "nvcc was not found in CUDA_HOME, CUDA_PATH or PATH; expected") in message


def test_a_toolkit_of_another_major_version_is_refused(tmp_path: Path) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 9.1, V9.1.85'\n")
    nvcc.chmod(0o755)
    message = refusal(PYMIXUNLEARN_CUDA="1", CUDA_HOME=str(tmp_path))
    assert (NO_CUDA_TORCH or "found CUDA toolkit 9.1") in message
    assert (NO_CUDA_TORCH or f"was built with CUDA {torch.version.cuda}") in message


def test_an_unknown_wish_is_refused() -> None:
    assert "PYMIXUNLEARN_CUDA must be 0, 1 or auto, got 'yes'" in refusal(PYMIXUNLEARN_CUDA="yes")
    assert "PYMIXUNLEARN_EXTENSIONS must be 0, 1 or auto, got 'yes'" in refusal(PYMIXUNLEARN_EXTENSIONS="yes")


def test_without_a_compiler_the_package_installs_without_operators_and_says_so() -> None:
    result = setup(PATH="/nowhere")
    assert result.returncode == 0, result.stderr
    assert "no C++ compiler (c++, g++, clang++, cl): installing without compiled operators" in result.stderr
    assert not setup(PYMIXUNLEARN_EXTENSIONS="0").stderr.count("compiler")
