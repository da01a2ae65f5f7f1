"""The losses in every way that they are called, and the calls that are refused."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.ops.problem import Problem, Refusal

KINDS = ["probabilities", "labels", "teacher"]


def logits_of(*shape: int, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).to(device)


def targets_of(kind: str, rows: int, classes: int, seed: int, dtype: torch.dtype, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "labels":
        return torch.randint(0, classes, (rows,), generator=generator).to(device)
    raw = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return (raw if kind == "teacher" else raw.softmax(1)).to(dtype).to(device)


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


BY_KIND = {kind: [_loss(name, kind) for name in ("sim", "zip", "grid", "real")] for kind in KINDS}
SHARPEN = _sharpen()
PROBLEMS = [
    SHARPEN,
    *(problem for losses in BY_KIND.values() for problem in losses),
    *(_loss(name, "probabilities", numbers=True) for name in ("zip", "real")),
]
#: Compiled together, for compiling is slow.
COMPILED = {kind: [SHARPEN, *losses] for kind, losses in BY_KIND.items()}

Z, P, Y = torch.zeros(4, 5), torch.full((4, 5), 0.2), torch.zeros(4, dtype=torch.int64)

BAD_ARGUMENTS: list[Refusal] = [
    (lambda f: f.sim_loss([1.0], P), TypeError, "logits must be a tensor, got list"),
    (lambda f: f.sim_loss(Z.int(), P), TypeError, "logits must be float32, .* got torch.int32"),
    (lambda f: f.sim_loss(Z[0], P), ValueError, r"logits must have shape \[N, C\], got \[5\]"),
    (lambda f: f.sim_loss(Z, P[:3]), ValueError, r"target must have shape \[4, 5\] .* got \[3, 5\]"),
    (lambda f: f.sim_loss(Z, Y[:3]), ValueError, r"target must have shape \[4\] \(labels\), got \[3\]"),
    (lambda f: f.sim_loss(Z, Y.int()), TypeError, "target must be floating .* got torch.int32"),
    (lambda f: f.sim_loss(Z, Y, sharpen_T=0.3), ValueError, "sharpen_T needs the teacher's logits"),
    (lambda f: f.sim_loss(Z, P, sharpen_T=0.0), ValueError, "sharpen_T must be above 0, got 0.0"),
    (lambda f: f.sim_loss(Z, P.clone().requires_grad_()), ValueError, "target is a constant .* requires grad"),
    (lambda f: f.sim_loss(Z[:, :0], P[:, :0]), ValueError, "logits must have at least one class"),
    (lambda f: f.sharpen(Z, 0), ValueError, "T must be above 0, got 0"),
    (lambda f: f.mix_contrastive_loss(Z, P, P, 1.5, 1.0), ValueError, r"lam must be in \[0, 1\], got 1.5"),
    (lambda f: f.mix_contrastive_loss(Z, P, P, "a", 1.0), TypeError, "lam must be a float or a tensor, got str"),
    (lambda f: f.mix_contrastive_loss(Z, P, P, 0.5, -1.0), ValueError, "tau must be above 0, got -1.0"),
    (
        lambda f: f.mix_contrastive_loss(Z, P, P, torch.ones(3), 1.0),
        ValueError,
        r"lam must be one value or .* \[4\]",
    ),
    (lambda f: f.mix_contrastive_loss(Z, P, P, 0.5, torch.ones(4)), ValueError, "tau must be a float or a 0-d"),
    (lambda f: f.mix_contrastive_loss(Z, P, Y, 0.5, 1.0), TypeError, "must both be labels or both be floating"),
    (
        lambda f: f.mix_contrastive_loss(Z, P, P, 0.5, 1.0, pairing="all"),
        ValueError,
        "pairing must be one of 'zip', 'grid', got 'all'",
    ),
    (
        lambda f: f.mix_contrastive_loss(Z, P, P, 0.5, 1.0, reduction="none"),
        ValueError,
        "reduction must be one of 'sum', 'mean', got 'none'",
    ),
    (
        lambda f: f.mix_contrastive_loss(Z, P, P, 0.5, 1.0, pairing="grid"),
        ValueError,
        r"logits must have shape \[N_f, N_r, C\], got \[4, 5\]",
    ),
    (
        lambda f: f.real_contrastive_loss(Z, Z[:, :4], P, P, 1.0),
        ValueError,
        "must have the same number of classes, got 5 and 4",
    ),
    (
        lambda f: f.real_contrastive_loss(Z.double(), Z, P, P, 1.0),
        TypeError,
        "must have the same dtype, got torch.float64 and torch.float32",
    ),
    (lambda f: f.sim_loss(Z, P.to("meta")), ValueError, "target must be on the device of logits .* got meta"),
    *(
        (lambda f, bad=bad, call=call: call(f, bad), TypeError, f"{name} must be floating .* got {bad.dtype}")
        for bad in (P.to(torch.complex64), P > 0, P.to(torch.float8_e4m3fn), Y.bool(), P.int())
        for name, call in (
            ("target", lambda f, bad: f.sim_loss(Z, bad)),
            ("target_forget", lambda f, bad: f.mix_contrastive_loss(Z, bad, P, 0.3, 1.0)),
            ("target_retain", lambda f, bad: f.real_contrastive_loss(Z, Z, P, bad, 1.0)),
        )
    ),
    *(
        (lambda f, bad=bad, call=call: call(f, bad), error, f"{name} (must .*)?{says}")
        for bad, error, says in (
            (True, TypeError, "got bool"),
            (torch.tensor(True), TypeError, "got torch.bool"),
            (torch.tensor(1), TypeError, "got torch.int64"),
            (torch.tensor(0.5j), TypeError, "got torch.complex64"),
            (0.5j, TypeError, "got complex"),
            (torch.tensor(0.5, device="meta"), ValueError, "on the device of logits.*got meta"),
            (torch.full((4, 1), 0.5), ValueError, r"got (shape )?\[4, 1\]"),
            (torch.tensor(0.5, requires_grad=True), ValueError, "is a constant of the loss but requires grad"),
        )
        for name, call in (
            ("lam", lambda f, bad: f.mix_contrastive_loss(Z, P, P, bad, 1.0)),
            ("tau", lambda f, bad: f.mix_contrastive_loss(Z, P, P, 0.3, bad)),
            ("tau", lambda f, bad: f.real_contrastive_loss(Z, Z, P, P, bad)),
        )
    ),
    (lambda f: f.mix_contrastive_loss(Z, P, P, math.nan, 1.0), ValueError, r"lam must be in \[0, 1\], got nan"),
    (lambda f: f.mix_contrastive_loss(Z, P, P, 0.3, math.inf), ValueError, "tau must be finite, got inf"),
    (lambda f: f.real_contrastive_loss(Z, Z, P, P, math.nan), ValueError, "tau must be above 0, got nan"),
    (lambda f: f.sim_loss(Z, P, sharpen_T=math.inf), ValueError, "sharpen_T must be finite, got inf"),
    (lambda f: f.sim_loss(Z, P, sharpen_T=True), TypeError, "sharpen_T must be a float or None, got bool"),
    (lambda f: f.sim_loss(Z, P, sharpen_T=torch.tensor(0.3)), TypeError, "sharpen_T must be .* got Tensor"),
    (lambda f: f.sharpen(Z, math.inf), ValueError, "T must be finite, got inf"),
    (lambda f: f.sim_loss(Z.to("meta"), P), ValueError, r"target must be on the device of logits \(meta\), got cpu"),
    (lambda f: f.sim_loss(Z, Z.long()), ValueError, r"target must have shape \[4\] \(labels\), got \[4, 5\]"),
    *(
        (lambda f, call=call: call(f), TypeError, f"{name} must be a dense tensor, got layout torch.sparse")
        for name, call in (
            ("logits", lambda f: f.sharpen(Z.to_sparse())),
            ("logits", lambda f: f.sim_loss(Z.to_sparse_csr(), P)),
            ("target", lambda f: f.sim_loss(Z, P.to_sparse())),
            ("lam", lambda f: f.mix_contrastive_loss(Z, P, P, Z[:, 0].to_sparse(), 1.0)),
        )
    ),
]

#: Numbers out of range in CPU tensors. A traced graph, and a GPU, would have to wait for them.
BAD_VALUES: list[Refusal] = [
    (
        lambda f: f.mix_contrastive_loss(Z, P, P, torch.tensor(1.5), 1.0),
        ValueError,
        r"lam must be in \[0, 1\], got 1.5",
    ),
    (lambda f: f.mix_contrastive_loss(Z, P, P, Z[:, 0] - 1, 1.0), ValueError, r"lam must be in \[0, 1\], got -1.0"),
    (lambda f: f.mix_contrastive_loss(Z, P, P, 0.3, torch.tensor(0.0)), ValueError, "tau must be above 0, got 0.0"),
    (lambda f: f.real_contrastive_loss(Z, Z, P, P, torch.tensor(math.nan)), ValueError, "tau must be above 0, got nan"),
]
