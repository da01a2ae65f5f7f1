"""Cache of the teacher's outputs: computed once per sample.

A sample that reaches the frozen teacher without random augmentation always gives the same outputs. How many samples a
run will ever use is not known beforehand (an epoch goes through a random part of the larger set), so outputs are
computed when they are first needed, for some steps ahead, and never for a sample that is not used.
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


class TeacherOutput(NamedTuple):
    """Outputs for N samples: logits [N, classes] and a feature map [N, C', h, w], None where not wanted."""

    logits: Tensor
    features: Tensor | None

    def each(self, function: Callable[[Tensor], Tensor]) -> TeacherOutput:
        """Return ``function`` of every tensor."""
        return TeacherOutput(function(self.logits), None if self.features is None else function(self.features))


class TeacherCache:
    """Outputs of a frozen network for the samples of one set.

    Args:
        network: Maps network inputs [N, C, H, W] on ``device`` to its outputs. Those of a sample must not depend on the
            others in the batch (evaluation mode).
        images: The set.
        preprocess: Makes the inputs, without augmentation.
        device: Where the network and the cache are.
        budget: Bytes of outputs that stay cached. Samples beyond it are computed every time they are used.
        window: The most samples that one call of :meth:`load` needs; room for that many comes on top.
        most: How many different samples will be used at most, where that is fewer than the set has.
    """

    def __init__(
        self,
        network: Callable[[Tensor], TeacherOutput],
        images: ImageSet | UnlabelledImages,
        preprocess: Preprocess,
        *,
        device: torch.device,
        budget: int,
        window: int,
        most: int | None = None,
    ) -> None:
        """Compute one sample's outputs, to know their size, and make room."""
        self._network, self._images, self._preprocess, self._device = network, images, preprocess, device
        (single,) = self._compute(torch.zeros(1, dtype=torch.int64))
        row_bytes = sum(part.nbytes for part in single if part is not None)
        useful = len(images) if most is None else min(most, len(images))
        self._capacity = min(useful, budget // row_bytes)
        rows = self._capacity + (0 if self._capacity == useful else min(window, useful))
        self.outputs = single.each(lambda part: part.new_empty(rows, *part.shape[1:]))
        self._index_of = torch.full((len(images),), -1)
        self._cached = 0
        self.computed = 0

    @property
    def cached_bytes(self) -> int:
        """Bytes that the outputs that stay cached may take in all."""
        return sum(self._capacity * part[0].nbytes for part in self.outputs if part is not None and len(part))

    def load(self, samples: Tensor) -> Tensor:
        """Have the outputs of ``samples`` in the cache, computing those that are not.

        Args:
            samples: int64 [N] on the CPU, each at most once, N at most ``window``.

        Returns:
            int64 [N] on the device, the samples' indices into :attr:`outputs`; they hold until the next call.
        """
        indices = self._index_of[samples]
        new = (indices < 0).nonzero().squeeze(1)
        if len(new):
            indices[new] = self._room_for(samples[new])
            for found, chunk in zip(self._compute(samples[new]), torch.split(indices[new], CHUNK), strict=True):
                self._write(found, chunk)
            self.computed += len(new)
        return indices.to(self._device, non_blocking=True)

    def read(self, indices: Tensor) -> TeacherOutput:
        """Return the outputs at ``indices``, int64 [N] on the device, as :meth:`load` returned them."""
        return self.outputs.each(lambda table: table.index_select(0, indices))

    def _room_for(self, samples: Tensor) -> Tensor:
        """Give each new sample an index: its own while there are any left, then one that the next call takes again."""
        own = min(len(samples), self._capacity - self._cached)
        self._index_of[samples[:own]] = torch.arange(self._cached, self._cached + own)
        indices = torch.cat([self._index_of[samples[:own]], self._capacity + torch.arange(len(samples) - own)])
        self._cached += own
        return indices

    def _compute(self, samples: Tensor) -> Iterator[TeacherOutput]:
        """Yield the outputs of ``samples``, a chunk at a time; images in a file are fetched ahead, as for any batch."""
        for batch in self._images.iterate(samples, CHUNK, self._device):
            with torch.no_grad():
                found = self._network(self._preprocess.evaluation(batch.images))
            yield found

    @torch.no_grad()
    def _write(self, found: TeacherOutput, indices: Tensor) -> None:
        indices = indices.to(self._device, non_blocking=True)
        for table, part in zip(self.outputs, found, strict=True):
            if table is not None and part is not None:
                table.index_copy_(0, indices, part)
