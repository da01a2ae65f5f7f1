"""One seed for a whole run, split into independent streams.

Every consumer of randomness has a stream of its own, by name (and epoch), so that no stream depends on how much another
one was used. A run can thus be resumed at any epoch without saved generator states.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on ``seed`` and on every name, in order."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh ``torch.Generator`` for the stream ``names`` of ``seed``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
