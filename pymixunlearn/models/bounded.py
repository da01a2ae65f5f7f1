"""Bound on what a network may claim while it is built from the description in a file, which anyone may have written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules import module
from torch.nn.parameter import is_lazy

from pymixunlearn.errors import UserError

_TIMES = 4
"""A network may make so much more than it keeps: heads that are replaced, auxiliary parts that are taken out."""
_NUMBERS = 2**24
_TENSORS = 1000
"""So many numbers and tensors are no harm at all."""


@contextmanager
def bounded(tensors: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Within, let this thread build no network that is far larger than a file's tensors.

    Args:
        tensors: The file's.
        path: The file, for messages.

    Raises:
        UserError: The network has more parameters and buffers, or far larger ones, than the file could fill.

    Example:
        >>> with bounded({"weight": nn.Linear(2, 2).weight}, Path("a.safetensors")):
        ...     _ = nn.Linear(10_000, 10_000, device="meta")
        Traceback (most recent call last):
        pymixunlearn.errors.UserError: model checkpoint 'a.safetensors' describes a network of more than 16777232 ...
    """
    numbers = _NUMBERS + _TIMES * sum(tensor.numel() for tensor in tensors.values())
    count = _TENSORS + _TIMES * len(tensors)
    here, made, sizes = threading.get_ident(), 0, 0

    def look(of: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal made, sizes
        if tensor is None or threading.get_ident() != here:
            return
        made += 1
        sizes += 0 if is_lazy(tensor) else tensor.numel()
        if made > count or sizes > numbers:
            what = f"{count} tensors" if made > count else f"{numbers} numbers"
            raise UserError(
                f"model checkpoint '{path}' describes a network of more than {what}, far more than the file holds; "
                "expected the description of its own network"
            )

    hooks = [
        module.register_module_parameter_registration_hook(look),
        module.register_module_buffer_registration_hook(look),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
