"""Problem of a case: its tensors, and what every provider does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.benchmarking.ops import rivals
from pymixunlearn.benchmarking.ops.cases import DTYPES, IMAGE_CHANNELS, Case
from pymixunlearn.benchmarking.timing import Job

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Problem:
    """The functions to compare and the tensors that they are given.

    Attributes:
        functions: By provider, "fused" first; all take ``arguments``.
        arguments: Those that require grad are what a training step differentiates.
        cotangent: The gradient of the result.
    """

    functions: dict[str, Function]
    arguments: tuple[Tensor, ...]
    cotangent: Tensor

    def job(self, function: Function) -> Job:
        """Return a provider's forward and backward.

        The forward keeps what the backward needs, as in training; gradients are returned, not accumulated.
        """
        leaves = [tensor for tensor in self.arguments if tensor.requires_grad]
        return Job(
            lambda: function(*self.arguments),
            lambda result: torch.autograd.grad(result, leaves, self.cotangent),
        )


def uses_kernel(case: Case, device: torch.device) -> bool:
    """Whether the operator's function runs a compiled kernel on this device, not its plain-PyTorch twin."""
    status = ops.status()
    available = status.cuda.available if device.type == "cuda" else status.cpu.available
    return available and hasattr(torch.ops.pymixunlearn, case.op)


def build(case: Case, device: torch.device) -> Problem:
    """Draw the inputs of a case, the same on every call, and name its providers.

    ``torch.compile`` is a provider too, made of the plain formulation by whoever measures.
    """
    draw = _Draw(case, device)
    return _BUILDERS[case.op](case, draw)


def runnable(problem: Problem, provider: str) -> Job:
    """Return a provider's job; a compiled one has been compiled, forward and backward."""
    if provider != "compile":
        return problem.job(problem.functions[provider])
    job = problem.job(torch.compile(problem.functions["pytorch"], fullgraph=True, dynamic=False))
    job.backward(job.forward())
    return job


class _Draw:
    """Normal and derived random tensors in the dtype and on the device of a case."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self._dtype, self._device = DTYPES[case.dtype], device
        self._generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        tensor = torch.empty(shape, dtype=self._dtype, device=self._device)
        return tensor.normal_(generator=self._generator)

    def leaf(self, *shape: int) -> Tensor:
        return self.normal(*shape).requires_grad_()

    def targets(self, *shape: int) -> Tensor:
        return torch.softmax(self.normal(*shape), dim=-1)

    def one(self) -> Tensor:
        return torch.ones((), dtype=self._dtype, device=self._device)


def _sharpen(case: Case, draw: _Draw) -> Problem:
    samples, classes = case.shape[:2]
    functions: dict[str, Function] = {
        "fused": partial(ops.sharpen, T=rivals.SHARPEN_T),
        "pytorch": rivals.sharpen,
    }
    return Problem(functions, (draw.leaf(samples, classes),), draw.normal(samples, classes))


def _sim_loss(case: Case, draw: _Draw) -> Problem:
    samples, classes = case.shape[:2]
    arguments = (draw.leaf(samples, classes), draw.targets(samples, classes))
    return Problem({"fused": ops.sim_loss, "pytorch": rivals.sim_loss}, arguments, draw.normal(samples))


def _mix(case: Case, draw: _Draw) -> Problem:
    samples, classes = case.shape[:2]
    rows = (samples, samples) if case.pairing == "grid" else (samples,)
    arguments = (draw.leaf(*rows, classes), draw.targets(samples, classes), draw.targets(samples, classes))
    functions: dict[str, Function] = {
        "fused": partial(ops.mix_contrastive_loss, lam=rivals.LAM, tau=rivals.TAU, pairing=case.pairing),
        "pytorch": partial(rivals.mix_contrastive_loss, pairing=case.pairing),
    }
    return Problem(functions, arguments, draw.one())


def _real(case: Case, draw: _Draw) -> Problem:
    shape = case.shape[:2]
    arguments = (draw.leaf(*shape), draw.leaf(*shape), draw.targets(*shape), draw.targets(*shape))
    functions: dict[str, Function] = {
        "fused": partial(ops.real_contrastive_loss, tau=rivals.TAU),
        "pytorch": rivals.real_contrastive_loss,
    }
    return Problem(functions, arguments, draw.one())


def _mask_mix(case: Case, draw: _Draw) -> Problem:
    samples, _, image, side, _ = case.shape
    pixels = (IMAGE_CHANNELS, image, image)
    arguments = (draw.normal(samples, *pixels), draw.normal(samples, *pixels), draw.leaf(case.pairs, side, side))
    functions: dict[str, Function] = {
        "fused": partial(ops.mask_mix, pairing=case.pairing),
        "pytorch": partial(rivals.mask_mix, pairing=case.pairing),
    }
    return Problem(functions, arguments, draw.normal(case.pairs, *pixels))


def _attention(case: Case, draw: _Draw) -> Problem:
    samples, _, _, side, dim = case.shape
    channels, places = (samples, dim, side, side), (samples, side, side)
    arguments = tuple(draw.leaf(*shape) for shape in (channels, channels, places) * 2)
    functions: dict[str, Function] = {
        "fused": partial(ops.mixblock_attention, pairing=case.pairing),
        "pytorch": partial(rivals.mixblock_attention, pairing=case.pairing),
        "sdpa": partial(rivals.mixblock_attention, pairing=case.pairing, sdpa=True),
        "sdpa-padded": partial(rivals.mixblock_attention_padded, pairing=case.pairing),
    }
    return Problem(functions, arguments, draw.normal(case.pairs, side, side))


_BUILDERS: dict[str, Callable[[Case, _Draw], Problem]] = {
    "sharpen": _sharpen,
    "sim_loss": _sim_loss,
    "mix_contrastive_loss": _mix,
    "real_contrastive_loss": _real,
    "mask_mix": _mask_mix,
    "mixblock_attention": _attention,
}
