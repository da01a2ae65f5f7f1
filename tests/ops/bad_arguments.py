"""Calls that compiled operators and the reference refuse alike: the call, the error, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Z, P, Y = torch.zeros(4, 5), torch.full((4, 5), 0.2), torch.zeros(4, dtype=torch.int64)
X, M = torch.zeros(2, 3, 8, 6), torch.zeros(2, 2, 3)
B = X.to(torch.uint8)
WIDE = torch.zeros(2, 65, 2, 2, dtype=torch.uint8)
NAMES = ("q_f", "k_f", "v_f", "q_r", "k_r", "v_r")


def attend(module: Any, change: dict[str, Any]) -> Tensor:
    """The attention of two pairs, with some arguments exchanged."""
    own = {name: torch.zeros((2, 4, 4) if name[0] == "v" else (2, 3, 4, 4)) for name in NAMES}
    mask_logits: Tensor = module.mixblock_attention(**(own | change))
    return mask_logits


BAD_ARGUMENTS: list[tuple[Callable[[Any], Tensor], type[Exception], str]] = [
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
    (lambda f: f.mask_mix([1.0], X, M), TypeError, "x_forget must be a tensor, got list"),
    (lambda f: f.mask_mix(X.int(), X, M), TypeError, "x_forget must be float32, .* or uint8, got torch.int32"),
    (lambda f: f.mask_mix(X[0], X, M), ValueError, r"x_forget must have shape \[N, C, H, W\], got \[3, 8, 6\]"),
    (lambda f: f.mask_mix(X, X.double(), M), TypeError, "x_retain must have the dtype of x_forget"),
    (lambda f: f.mask_mix(X, B, M), TypeError, "x_retain must have the dtype of x_forget"),
    (lambda f: f.mask_mix(X, X[..., :5], M), ValueError, r"images of shape \[3, 8, 6\], got \[3, 8, 5\]"),
    (lambda f: f.mask_mix(X[..., :0], X[..., :0], M), ValueError, "x_forget must have C, H and W of at least 1"),
    (lambda f: f.mask_mix(X, X[:1], M), ValueError, "zip pairing needs as many .* got 2 and 1"),
    (lambda f: f.mask_mix(X, X, M, pairing="grid"), ValueError, "mask_logits must have 4 rows, .* got 2"),
    (lambda f: f.mask_mix(X, X, M, pairing="all"), ValueError, "pairing must be one of 'zip', 'grid', got 'all'"),
    (lambda f: f.mask_mix(X, X, M[0]), ValueError, r"mask_logits must have shape \[P, h, w\], got \[2, 3\]"),
    (lambda f: f.mask_mix(X, X, M.int()), TypeError, "mask_logits must be float32, .* got torch.int32"),
    (lambda f: f.mask_mix(X, X, M[:, :0]), ValueError, "mask_logits must have h and w of at least 1"),
    (lambda f: f.mask_mix(X, X, M.to("meta")), ValueError, "x_forget must be on the device of mask_logits"),
    (lambda f: f.mask_mix(X, X, M, mean=(0,) * 3), ValueError, "mean and std must be given together"),
    (lambda f: f.mask_mix(X, X, M, mean=(0,) * 3, std=(1,) * 3), TypeError, "mean and std are for uint8 images"),
    (lambda f: f.mask_mix(B, B, M, mean=(0, 0), std=(1,) * 3), ValueError, "mean must have 3 values, .* got 2"),
    (lambda f: f.mask_mix(B, B, M, mean=(0,) * 3, std=(1, 0, 1)), ValueError, r"std must be above 0, got \[1, 0"),
    (lambda f: f.mask_mix(B, B, M, mean=M[0, 0], std=(1,) * 3), TypeError, "mean must be a sequence of numbers"),
    (lambda f: f.mask_mix(B, B, M, mean=("a",) * 3, std=(1,) * 3), TypeError, "mean must be a sequence of numbers"),
    (lambda f: f.mask_mix(B, B, M, dtype=torch.uint8), TypeError, "dtype must be float32, .* got torch.uint8"),
    (
        lambda f: f.mask_mix(WIDE, WIDE, M, mean=(0.0,) * 65, std=(1.0,) * 65),
        ValueError,
        "up to 64 channels, got 65",
    ),
    (lambda f: attend(f, {"q_r": [1.0]}), TypeError, "q_r must be a tensor, got list"),
    (lambda f: attend(f, {"q_f": torch.zeros(2, 3, 4, 4).int()}), TypeError, "q_f must be float32, .* got torch.int32"),
    (
        lambda f: attend(f, {"k_r": torch.zeros(2, 3, 4, 4).double()}),
        TypeError,
        r"k_r must have the dtype of q_f \(torch.float32\)",
    ),
    (
        lambda f: attend(f, {"k_r": torch.zeros(2, 3, 16)}),
        ValueError,
        r"k_r must have shape \[N, d, h, w\], got \[2, 3, 16\]",
    ),
    (
        lambda f: attend(f, {"v_f": torch.zeros(2, 1, 4, 4)}),
        ValueError,
        r"v_f must have shape \[N, h, w\], got \[2, 1, 4, 4\]",
    ),
    (
        lambda f: attend(f, {"k_f": torch.zeros(2, 5, 4, 4)}),
        ValueError,
        r"k_f must have shape \[2, 3, 4, 4\], got \[2, 5, 4, 4\]",
    ),
    (
        lambda f: attend(f, {"v_r": torch.zeros(2, 2, 8)}),
        ValueError,
        r"v_r must have shape \[2, 4, 4\], got \[2, 2, 8\]",
    ),
    (
        lambda f: attend(f, {"q_r": torch.zeros(3, 3, 4, 4)}),
        ValueError,
        "as many forget as retain samples, got 2 and 3",
    ),
    (
        lambda f: attend(f, {"v_r": torch.zeros(2, 4, 4, device="meta")}),
        ValueError,
        r"v_r must be on the device of q_f \(cpu\)",
    ),
    (lambda f: attend(f, {"pairing": "all"}), ValueError, "pairing must be one of 'zip', 'grid', got 'all'"),
    (
        lambda f: attend(f, {name: torch.zeros((2, 3, 0, 4) if name[0] != "v" else (2, 0, 4)) for name in NAMES}),
        ValueError,
        r"q_f must have d, h and w of at least 1, got shape \[2, 3, 0, 4\]",
    ),
    # What kernels would read as something else, or not at all.
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
            ("x_retain", lambda f: f.mask_mix(X, X.to_sparse(), M)),
            ("mask_logits", lambda f: f.mask_mix(X, X, M.to_sparse())),
            ("k_f", lambda f: attend(f, {"k_f": torch.zeros(2, 3, 4, 4).to_sparse()})),
        )
    ),
]

#: Numbers out of range in CPU tensors. A traced graph, and a GPU, would have to wait for them.
BAD_VALUES: list[tuple[Callable[[Any], Tensor], type[Exception], str]] = [
    (
        lambda f: f.mix_contrastive_loss(Z, P, P, torch.tensor(1.5), 1.0),
        ValueError,
        r"lam must be in \[0, 1\], got 1.5",
    ),
    (lambda f: f.mix_contrastive_loss(Z, P, P, Z[:, 0] - 1, 1.0), ValueError, r"lam must be in \[0, 1\], got -1.0"),
    (lambda f: f.mix_contrastive_loss(Z, P, P, 0.3, torch.tensor(0.0)), ValueError, "tau must be above 0, got 0.0"),
    (lambda f: f.real_contrastive_loss(Z, Z, P, P, torch.tensor(math.nan)), ValueError, "tau must be above 0, got nan"),
]
