"""What a frozen network says of each sample of a set, computed once and kept.

A sample that is shown to the network without random augmentation always gets the same answer. How many samples a run
will ever look at is not known beforehand (an epoch walks through a random part of the larger set), so answers are
computed when they are first needed, for a stretch of steps ahead, and never for a sample that is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess

CHUNK = 128
"""Samples per forward pass: enough to fill a device, and their activations stay small."""


class Observed(NamedTuple):
    """What a network says of N samples: logits [N, classes] and a feature map [N, C', h, w], None where not wanted."""

    logits: Tensor
    features: Tensor | None

    def each(self, function: Callable[[Tensor], Tensor]) -> Observed:
        """Return ``function`` of every tensor."""
        return Observed(function(self.logits), None if self.features is None else function(self.features))


class FrozenOutputs:
    """The outputs of a frozen network for the samples of one set.

    Args:
        network: Maps network inputs [N, C, H, W] on ``device`` to what is to be kept. Its answer to a sample must not
            depend on the others in the batch (evaluation mode).
        images: The set.
        preprocess: Makes the inputs, without augmentation.
        device: Where the network is, and where its outputs are kept.
        budget: Bytes of outputs to keep for good. Samples beyond it are computed every time they are used.
        window: The most samples that one call of :meth:`prepare` asks for; room for that many comes on top.
        most: How many different samples will be asked for at most, where that is fewer than the set has.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Observed],
        images: ImageSet | UnlabelledImages,
        preprocess: Preprocess,
        *,
        device: torch.device,
        budget: int,
        window: int,
        most: int | None = None,
    ) -> None:
        """Ask for one sample's outputs, to know their size, and make room."""
        self._network, self._images, self._preprocess, self._device = network, images, preprocess, device
        (single,) = self._observed(torch.zeros(1, dtype=torch.int64))
        row_bytes = sum(part.nbytes for part in single if part is not None)
        useful = len(images) if most is None else min(most, len(images))
        self._capacity = min(useful, budget // row_bytes)
        rows = self._capacity + (0 if self._capacity == useful else min(window, useful))
        self.outputs = single.each(lambda part: part.new_empty(rows, *part.shape[1:]))
        self._row_of = torch.full((len(images),), -1)
        self._kept = 0
        self.computed = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes that the kept outputs may take in all."""
        return sum(self._capacity * part[0].nbytes for part in self.outputs if part is not None and len(part))

    def prepare(self, samples: Tensor) -> Tensor:
        """Have the outputs of ``samples`` ready, computing those that are not kept.

        Args:
            samples: int64 [N] on the CPU, each at most once, N at most ``window``.

        Returns:
            int64 [N] on the device, each sample's row in :attr:`outputs`; it holds until the next call.
        """
        rows = self._row_of[samples]
        new = (rows < 0).nonzero().squeeze(1)
        if len(new):
            rows[new] = self._room_for(samples[new])
            for found, places in zip(self._observed(samples[new]), torch.split(rows[new], CHUNK), strict=True):
                self._write(found, places)
            self.computed += len(new)
        return rows.to(self._device, non_blocking=True)

    def at(self, rows: Tensor) -> Observed:
        """Return the outputs in ``rows``, int64 [N] on the device, as :meth:`prepare` gave them."""
        return self.outputs.each(lambda table: table.index_select(0, rows))

    def _room_for(self, samples: Tensor) -> Tensor:
        """Give each new sample a row: one of its own while there are any, then one that the next call takes again."""
        own = min(len(samples), self._capacity - self._kept)
        self._row_of[samples[:own]] = torch.arange(self._kept, self._kept + own)
        rows = torch.cat([self._row_of[samples[:own]], self._capacity + torch.arange(len(samples) - own)])
        self._kept += own
        return rows

    def _observed(self, samples: Tensor) -> Iterator[Observed]:
        """Show the network samples, a chunk at a time; images in a file are fetched ahead, as for any batch."""
        for taken in self._images.iterate(samples, CHUNK, self._device):
            with torch.no_grad():
                found = self._network(self._preprocess.evaluation(taken.images))
            yield found

    @torch.no_grad()
    def _write(self, found: Observed, rows: Tensor) -> None:
        places = rows.to(self._device, non_blocking=True)
        for table, part in zip(self.outputs, found, strict=True):
            if table is not None and part is not None:
                table.index_copy_(0, places, part)
