"""Every operator in every way that it is called, for the tests that all operators pass.

A new operator is a few lines more here, and passes ``test_every_operator.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pymixunlearn import ops
from tests.ops import test_attention, test_mask_mix
from tests.ops.test_losses import KINDS, logits_of, targets_of


class Problem(NamedTuple):
    """One way of calling an operator.

    ``tensors`` draws arguments of one of ``sizes``, first those that have gradients; ``call`` is given ``ops`` or the
    reference, and the tensors. The first of the sizes is tiny, the last one for GPUs. ``empty`` are sizes without
    forget or without retain samples, or without both.
    """

    name: str
    differentiable: int
    sizes: tuple[Any, ...]
    empty: tuple[Any, ...]
    tensors: Callable[[Any, torch.dtype, str, int], list[Tensor]]
    call: Callable[..., Tensor]

    def draw(
        self, size: Any, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0, grad: bool = True
    ) -> list[Tensor]:
        """Tensors of a size; those that have gradients ask for them."""
        tensors = self.tensors(size, dtype, device, seed)
        return [x.detach().requires_grad_(grad and i < self.differentiable) for i, x in enumerate(tensors)]

    def split(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What the call is differentiated for, and the rest."""
        return tensors[: self.differentiable], tensors[self.differentiable :]

    def bound(self, module: Any, constants: list[Tensor]) -> Callable[..., Tensor]:
        """The call as a function of what it is differentiated for."""
        return lambda *leaves: self.call(module, *leaves, *constants)

    def cotangent(self, value: Tensor) -> Tensor:
        """Incoming gradient that is not the same everywhere."""
        count = value.numel()
        return torch.linspace(0.5, 1.5, count, dtype=value.dtype, device=value.device).view_as(value)

    def results(self, *tensors: Tensor, module: Any = ops) -> list[Tensor]:
        """The value, and its gradients for :meth:`cotangent`."""
        leaves, constants = self.split([x.detach() for x in tensors])
        for leaf in leaves:
            leaf.requires_grad_()
        value = self.call(module, *leaves, *constants)
        grads = torch.autograd.grad(value, leaves, self.cotangent(value), materialize_grads=True)
        return [value.detach(), *grads]


def _loss(name: str, kind: str, numbers: bool = False) -> Problem:
    """A loss; with ``numbers`` its ratio and temperature are no tensors."""

    def tensors(size: tuple[int, int, int], dtype: torch.dtype, device: str, seed: int) -> list[Tensor]:
        n_forget, n_retain, classes = size
        if name == "zip":
            n_retain = n_forget
        shapes = {"grid": [(n_forget, n_retain, classes)], "real": [(n_forget, classes), (n_retain, classes)]}
        logits = [
            logits_of(*shape, seed=seed + i, dtype=dtype, device=device)
            for i, shape in enumerate(shapes.get(name, [(n_forget, classes)]))
        ]
        forget, retain = (
            targets_of(kind, n, classes, seed + i, dtype, device) for i, n in ((5, n_forget), (6, n_retain))
        )
        generator = torch.Generator().manual_seed(seed)
        lam = torch.rand(logits[0].shape[:-1], generator=generator).to(device, dtype)
        tau = (1 + torch.rand((), generator=generator)).to(device, dtype)
        constants = {"sim": [forget], "real": [forget, retain, tau]}.get(name, [forget, retain, lam, tau])
        return [*logits, *(constants[:2] if numbers else constants)]

    def call(module: Any, *x: Tensor) -> Tensor:
        # Written out: dynamic=True makes symbols of numbers from elsewhere at first, which is a graph more.
        extra: dict[str, Any] = {"sharpen_T": 0.3} if kind == "teacher" else {}
        value: Tensor
        if numbers:
            x = (*x, 2.0) if name == "real" else (*x, 0.3, 2.0)  # type: ignore[assignment]
        if name == "sim":
            value = module.sim_loss(*x, **extra)
        elif name == "real":
            value = module.real_contrastive_loss(*x, reduction="mean", **extra)
        else:
            value = module.mix_contrastive_loss(
                *x, pairing=name, reduction="mean" if name == "grid" else "sum", **extra
            )
        return value

    sizes = ((3, 5, 4), (4, 7, 5), (7, 10, 5), (12, 15, 5), (33, 36, 5), (300, 310, 5))
    large = (60, 50, 33) if name == "grid" else (20_000, 15_000, 33)
    empty = ((0, 0, 4),) if name in ("sim", "zip") else ((0, 0, 4), (0, 3, 4), (3, 0, 4))
    own = f"{name}-{kind}-numbers" if numbers else f"{name}-{kind}"
    return Problem(own, 2 if name == "real" else 1, (*sizes, large), empty, tensors, call)


def _sharpen() -> Problem:
    def tensors(size: tuple[int, int, int], dtype: torch.dtype, device: str, seed: int) -> list[Tensor]:
        return [logits_of(*size, seed=seed, dtype=dtype, device=device)]

    sizes = ((3, 2, 4), (4, 7, 5), (7, 10, 5), (12, 15, 5), (33, 36, 5), (300, 310, 33))
    return Problem("sharpen", 1, sizes, ((0, 3, 4), (3, 0, 4)), tensors, lambda module, z: module.sharpen(z, 0.4))


def _mask_mix(pairing: str, images: str) -> Problem:
    grid = pairing == "grid"

    def tensors(
        size: tuple[int, int, tuple[int, int], tuple[int, int]], dtype: torch.dtype, device: str, seed: int
    ) -> list[Tensor]:
        n_forget, n_retain, image, mask = size
        counts = (n_forget, n_retain if grid else n_forget)
        pairs = counts[0] * counts[1] if grid else n_forget
        logits = test_mask_mix.draw(pairs, *mask, seed=seed, dtype=dtype, device=device, scale=3)
        if images == "bytes":
            return [logits, *(test_mask_mix.pixels(n, 3, image, seed + i, device) for i, n in enumerate(counts, 1))]
        both = [
            test_mask_mix.draw(n, 3, *image, seed=seed + i, dtype=dtype, device=device).contiguous(
                memory_format=test_mask_mix.LAYOUTS[images]
            )
            for i, n in enumerate(counts, 1)
        ]
        return [*both, logits]

    def mix(module: Any, *x: Tensor) -> Tensor:
        mixed: Tensor = module.mask_mix(*x, pairing=pairing)
        return mixed

    def mix_bytes(module: Any, logits: Tensor, x_f: Tensor, x_r: Tensor) -> Tensor:
        # Numbers written out, as above.
        mixed: Tensor = module.mask_mix(
            x_f, x_r, logits, pairing=pairing, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), dtype=logits.dtype
        )
        return mixed

    sizes = (
        (2, 3, (4, 3), (2, 2)),
        # Sizes that are all different: equal ones would be traced as one and the same.
        (4, 5, (12, 10), (6, 7)),
        (6, 7, (16, 14), (8, 9)),
        (7, 8, (20, 22), (5, 11)),
        (9, 10, (31, 18), (12, 13)),
        (4, 5, (32, 32), (8, 8)),
    )
    sizeless = ((4, 4), (2, 2))
    empty = ((0, 0, *sizeless), (0, 3, *sizeless), (3, 0, *sizeless)) if grid else ((0, 0, *sizeless),)
    names = f"mask_mix-{pairing}-{images}"
    if images == "bytes":
        return Problem(names, 1, sizes, empty, tensors, mix_bytes)
    return Problem(names, 3, sizes, empty, tensors, mix)


def _attention(pairing: str) -> Problem:
    def tensors(size: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> list[Tensor]:
        n_forget, n_retain, *rest = size
        n_retain = n_retain if pairing == "grid" else n_forget
        return test_attention.inputs_of(n_forget, n_retain, *rest, dtype=dtype, device=device, seed=seed)

    def call(module: Any, *x: Tensor) -> Tensor:
        logits: Tensor = module.mixblock_attention(*x, pairing=pairing)
        return logits

    sizes = ((2, 3, 3, 2, 3), (3, 4, 5, 6, 7), (5, 6, 8, 7, 9), (8, 9, 6, 4, 3), (7, 8, 19, 12, 5), (3, 3, 16, 7, 7))
    empty = ((0, 0, 4, 3, 3), (0, 2, 4, 3, 3), (2, 0, 4, 3, 3)) if pairing == "grid" else ((0, 0, 4, 3, 3),)
    return Problem(f"attention-{pairing}", 6, sizes, empty, tensors, call)


LOSSES = {kind: [_loss(name, kind) for name in ("sim", "zip", "grid", "real")] for kind in KINDS}
NUMBERS = [_loss(name, "probabilities", numbers=True) for name in ("zip", "real")]
SHARPEN = _sharpen()
MIXES = [
    _mask_mix(*each) for each in (("zip", "contiguous"), ("grid", "channels_last"), ("zip", "bytes"), ("grid", "bytes"))
]
ATTENTIONS = [_attention("zip"), _attention("grid")]
PROBLEMS = [SHARPEN, *(problem for losses in LOSSES.values() for problem in losses), *NUMBERS, *MIXES, *ATTENTIONS]
