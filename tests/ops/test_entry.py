"""What importing the operators costs: PyTorch, and nothing else that takes time or need not be installed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pymixunlearn.ops._attention import tf32_allowed

#: Parts of PyTorch that it does not import itself, since they take seconds.
SLOW = ("torch._dynamo", "torch._inductor", "torch.onnx", "torch.export", "torch.distributed.tensor", "sympy", "triton")


@pytest.mark.parametrize("package", ["pymixunlearn.ops", "pymixunlearn.nn"])
def test_imports_pytorch_and_numpy_alone(package: str) -> None:
    code = (
        f"import sys, torch, numpy; before = set(sys.modules); import {package}; print(*set(sys.modules) - before)\n"
        f"print(*(name for name in {SLOW} if name in set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, slow = run.stdout.split("\n")[:2]
    foreign = {name.split(".")[0] for name in imported.split()} - {"pymixunlearn", "torch", "numpy"}
    assert foreign <= set(sys.stdlib_module_names)  # no scipy, sklearn, click, torchvision, matplotlib …
    assert not slow


def test_the_mark_of_a_constant_is_that_of_pytorch() -> None:
    """``torch.compiler.assume_constant_result`` itself would import torch._dynamo."""

    def own() -> bool:
        return True

    assert vars(torch.compiler.assume_constant_result(own)) == vars(tf32_allowed)
