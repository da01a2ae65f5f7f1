"""What an installed wheel must do; run by the Python of the environment that holds it, away from the sources.

The compiled operators are in use and agree with their reference in float64, values and gradients; the CUDA library is
in use, or ``mixunlearn-cli info`` says why it cannot be; and a first model is trained.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import pymixunlearn
from pymixunlearn import ops

PROGRAM = Path(sys.executable).parent / "mixunlearn-cli"
Inputs = list[Tensor]


def problems() -> dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Inputs]]:
    """Every operator: as it is called, its reference, and its differentiable inputs."""
    torch.manual_seed(0)
    logits, others = torch.randn(8, 10), torch.randn(8, 10)
    forget, retain = torch.randn(8, 10).softmax(1), torch.randn(8, 10).softmax(1)
    images = [torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), torch.randn(4, 4, 4)]
    attention = 2 * [torch.randn(4, 16, 5, 5), torch.randn(4, 16, 5, 5), torch.randn(4, 5, 5)]

    def both(name: str, *constants: object) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        def call(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def operate(*inputs: Tensor) -> Tensor:
                given = [c.to(inputs[0]) if isinstance(c, Tensor) else c for c in constants]
                return operator(*inputs, *given)

            return operate

        return call(getattr(ops, name)), call(getattr(ops.reference, name))

    return {
        "sharpen": (*both("sharpen", 0.3), [logits]),
        "sim_loss": (*both("sim_loss", forget), [logits]),
        "mix_contrastive_loss": (*both("mix_contrastive_loss", forget, retain, 0.4, 0.5), [logits]),
        "real_contrastive_loss": (*both("real_contrastive_loss", forget, retain, 0.5), [logits, others]),
        "mask_mix": (*both("mask_mix"), images),
        "mixblock_attention": (*both("mixblock_attention"), attention),
    }


def evaluate(operator: Callable[..., Tensor], inputs: Inputs) -> Inputs:
    """The value of an operator and its gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    value = operator(*leaves)
    return [value.detach(), *torch.autograd.grad(value.square().sum(), leaves)]


def check_operators() -> None:
    """The compiled operators serve, and compute what their references do."""
    status = ops.status()
    assert status.cpu.available, status.cpu.reason
    compared = problems()
    assert {name for name in ops.__all__ if hasattr(ops.reference, name)} == set(compared)
    for name, (operator, reference, inputs) in compared.items():
        truth = evaluate(reference, [tensor.double() for tensor in inputs])
        for found, expected in zip(evaluate(operator, inputs), truth, strict=True):
            torch.testing.assert_close(
                found.double(), expected, rtol=1e-4, atol=1e-5, msg=f"{name} does not agree with its reference"
            )


def expected_of_cuda() -> str | None:
    """What info says of the CUDA library instead of "in use", or None."""
    if not (Path(pymixunlearn.__file__).parent / "_ops_cuda.so").exists():
        return "_ops_cuda.so was not built" if torch.version.cuda else f"torch {torch.__version__} has no CUDA"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA"
    if torch.version.cuda.split(".")[0] != "13":
        return f"_ops_cuda.so is for CUDA 13, and torch {torch.__version__} is built with CUDA {torch.version.cuda[:2]}"
    return None


def check_cuda() -> None:
    """The CUDA library is in use, or the reason why not is told."""
    labelled = "+cu13" in pymixunlearn.__version__
    assert labelled == (Path(pymixunlearn.__file__).parent / "_ops_cuda.so").exists(), pymixunlearn.__version__
    reason = expected_of_cuda()
    assert (reason or "None") in str(ops.status().cuda.reason), ops.status()
    told = subprocess.run([PROGRAM, "info"], capture_output=True, text=True, check=True).stdout
    text = " ".join(told.split())  # its lines are folded
    told_of_cuda = f"not in use (plain PyTorch instead): {reason}" if reason else "in use"
    assert f"CPU library in use CUDA library {told_of_cuda}" in text, told
    print(f"  CUDA library: {told_of_cuda}")


def check_command() -> None:
    """The command trains a first model."""
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "train", "--dataset", "digits", "--set", "epochs=1", "--out", f"{folder}/model.safetensors"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr
        assert Path(folder, "model.safetensors").stat().st_size > 0


def main() -> None:
    """Run all checks."""
    warnings.simplefilter("error", RuntimeWarning)  # the reference that serves instead says so by one
    where = Path(pymixunlearn.__file__)
    assert where.is_relative_to(sysconfig.get_paths()["purelib"]), where
    print(f"pymixunlearn {pymixunlearn.__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}")
    check_operators()
    check_cuda()
    check_command()
    print("  works")


if __name__ == "__main__":
    main()
