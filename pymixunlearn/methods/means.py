"""Means of what the steps of an epoch measured."""

from __future__ import annotations

import torch
from torch import Tensor


class Means:
    """Means of named scalars over an epoch, summed on the device and read once at the end."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, **values: Tensor) -> None:
        """Add one observation of each named 0-d tensor; a name always comes with the same others."""
        if not values:
            return
        names = tuple(values)
        # All together: one by one, these few numbers cost a GPU more launches than a whole loss.
        seen = torch.stack([value.detach().double() for value in values.values()])
        self._sums[names] = self._sums[names].add_(seen) if names in self._sums else seen
        self._counts[names] = self._counts.get(names, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the mean of each name; the device is waited for once."""
        if not self._sums:
            return {}
        sums = iter(torch.cat(list(self._sums.values())).tolist())
        return {name: next(sums) / count for names, count in self._counts.items() for name in names}
