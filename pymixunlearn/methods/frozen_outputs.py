"""Outputs of a frozen network for every image of a set: computed once, in memory or, beyond a bound, in a file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.methods.view import Images

CHUNK = 128
"""Images per forward pass."""

_MEGABYTE = 2**20


class FrozenOutputs:
    """Table of tensors [N, ...], one row per image.

    Args:
        network: Maps network inputs to tensors [n, ...], in evaluation mode.
        images: The set.
        preprocess: Makes the inputs, without augmentation.
        device: Where the network is, and the table as long as it stays in memory.
        budget_mb: Megabytes beyond which the table is mapped from a temporary file.
        closing: Where the file's end is noted.

    Raises:
        UserError: The folder of temporary files has no room for them.
    """

    def __init__(
        self,
        network: Callable[[Tensor], list[Tensor]],
        images: Images,
        preprocess: Preprocess,
        *,
        device: torch.device,
        budget_mb: int,
        closing: ExitStack,
    ) -> None:
        """Compute everything."""
        self._device = device
        self.tables: list[Tensor] = []
        start = 0
        for batch in images.iterate(torch.arange(len(images)), CHUNK, device):
            with torch.no_grad():
                found = network(preprocess.evaluation(batch.images))
            if not self.tables:
                rows = [(part.shape[1:], part.dtype) for part in found]
                self.tables = self._room(rows, len(images), budget_mb, closing)
            for table, part in zip(self.tables, found, strict=True):
                table[start : start + len(part)] = part
            start += len(batch.images)

    def __call__(self, indices: Tensor) -> list[Tensor]:
        """Return the rows of the images at ``indices``, int64 [n], on the device."""
        return [table[indices.to(table.device)].to(self._device) for table in self.tables]

    def _room(
        self, rows: list[tuple[torch.Size, torch.dtype]], count: int, budget_mb: int, closing: ExitStack
    ) -> list[Tensor]:
        sizes = [count * prod(shape) * dtype.itemsize for shape, dtype in rows]
        if sum(sizes) <= budget_mb * _MEGABYTE:
            return [torch.empty(count, *shape, dtype=dtype, device=self._device) for shape, dtype in rows]
        folder = Path(tempfile.mkdtemp(prefix="pymixunlearn-"))
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        free = shutil.disk_usage(folder).free
        if free < sum(sizes):
            raise UserError(
                f"the outputs of frozen layers need {sum(sizes) / 1e9:.1f} GB, and the folder of temporary files "
                f"'{folder.parent}' has {free / 1e9:.1f} GB left; set TMPDIR to another, or raise cache_mb"
            )
        return [
            torch.from_file(str(folder / str(number)), shared=True, size=count * prod(shape), dtype=dtype).reshape(
                count, *shape
            )
            for number, (shape, dtype) in enumerate(rows)
        ]
