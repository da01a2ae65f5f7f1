"""Cases to measure: every operator, pairing, size and dtype, and the traffic that none of them can avoid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

#: The operators and their pairings; the row-wise ones know none.
OPERATORS: dict[str, tuple[str, ...]] = {
    "sharpen": ("",),
    "sim_loss": ("",),
    "mix_contrastive_loss": ("zip", "grid"),
    "real_contrastive_loss": ("",),
    "mask_mix": ("zip", "grid"),
    "mixblock_attention": ("zip", "grid"),
}


class Size(NamedTuple):
    """The shapes of a training step.

    Forget (and retain) samples, classes, the side of the three-channel images, and of a feature map its side and the
    channels of queries and keys.
    """

    samples: int
    classes: int
    image: int
    side: int
    dim: int


#: A batch of the small ``cnn`` and of a ResNet-18 at 224 pixels; large is 65 536 pairs of the small images' sizes.
SIZES = {
    "small": Size(samples=32, classes=10, image=32, side=8, dim=16),
    "medium": Size(samples=32, classes=1000, image=224, side=14, dim=128),
    "large": Size(samples=256, classes=1000, image=32, side=8, dim=16),
}
IMAGE_CHANNELS = 3

MODES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Traffic:
    """Bytes that must be read and written, and the operations of matrix products (a multiply-add is two)."""

    bytes: int
    operations: int

    def __add__(self, other: Traffic) -> Traffic:
        """Add up two passes."""
        return Traffic(self.bytes + other.bytes, self.operations + other.operations)


@dataclass(frozen=True)
class Case:
    """One operator at one pairing, size and dtype (names of :data:`OPERATORS`, :data:`SIZES` and :data:`DTYPES`)."""

    op: str
    pairing: str
    size: str
    dtype: str

    @property
    def name(self) -> str:
        """Op, pairing if there is one, size and dtype, joined by dashes."""
        return "-".join(filter(None, (self.op, self.pairing, self.size, self.dtype)))

    @property
    def shape(self) -> Size:
        """The shapes; all sizes called large have the same number of pairs, zip or grid."""
        size = SIZES[self.size]
        return size._replace(samples=size.samples**2) if self.size == "large" and self.pairing != "grid" else size

    @property
    def pairs(self) -> int:
        """P: rows of a loss, mixed images, or mask maps."""
        samples = self.shape.samples
        return samples**2 if self.pairing == "grid" else samples

    def traffic(self, mode: str) -> Traffic:
        """What ``mode`` (of :data:`MODES`) cannot avoid.

        Every input is read once and every output written once, in the case's dtype; targets count as inputs, and a
        backward reads the inputs again. Gradients of the mix are the mask's only.
        """
        forward, backward = _TRAFFIC[self.op](self, DTYPES[self.dtype].itemsize)
        return {"forward": forward, "backward": backward, "both": forward + backward}[mode]

    def memory(self, *, fused: bool) -> int:
        """Bytes that the inputs and the fused operator, or its hungriest rival, need at once, as an upper bound."""
        own = DTYPES[self.dtype].itemsize
        element = max(own, 4)  # sums are kept in float32
        if fused:
            return 2 * self.traffic("both").bytes * element // own
        samples, classes, image, side, dim = self.shape
        if self.op == "mask_mix":
            unit = self.pairs * image**2 * (IMAGE_CHANNELS + 1) * element
        elif self.op == "mixblock_attention":
            unit = self.pairs * (side**4 + 4 * side**2 * dim) * element
        else:
            unit = (1 + (self.op == "real_contrastive_loss")) * self.pairs * classes * element
        return _UNITS_AT_ONCE * unit + self.traffic("forward").bytes


# The plain formulations were seen to peak at 2.5 to 7 such units; the tests hold all providers to this bound.
_UNITS_AT_ONCE = 10


def _rows(case: Case, element: int, reads: int, writes: int = 0) -> Traffic:
    """Traffic of ``reads`` and ``writes`` arrays of one row of classes per sample."""
    return Traffic((reads + writes) * case.shape.samples * case.shape.classes * element, 0)


def _sharpen(case: Case, element: int) -> tuple[Traffic, Traffic]:
    return _rows(case, element, 1, 1), _rows(case, element, 2, 1)


def _sim_loss(case: Case, element: int) -> tuple[Traffic, Traffic]:
    return _rows(case, element, 2), _rows(case, element, 2, 1)


def _real(case: Case, element: int) -> tuple[Traffic, Traffic]:
    return _rows(case, element, 4), _rows(case, element, 4, 2)


def _mix(case: Case, element: int) -> tuple[Traffic, Traffic]:
    logits = Traffic(case.pairs * case.shape.classes * element, 0)
    forward = logits + _rows(case, element, 2)
    return forward, forward + logits


def _mask_mix(case: Case, element: int) -> tuple[Traffic, Traffic]:
    samples, _, image, side, _ = case.shape
    pixels = IMAGE_CHANNELS * image**2
    masks = case.pairs * side**2 * element
    total = (2 * samples + case.pairs) * pixels * element + masks
    # The gradient of the mixes is read where they were written, and that of the masks written beside reading these.
    return Traffic(total, 0), Traffic(total + masks, 0)


def _attention(case: Case, element: int) -> tuple[Traffic, Traffic]:
    samples, _, _, side, dim = case.shape
    places = side**2
    projections = 2 * samples * places * (2 * dim + 1) * element
    masks = case.pairs * places * element
    operations = 4 * case.pairs * places**2 * dim
    # The values are numbers, so scores are the forward's only products; the backward makes them again, and dq and dk.
    return Traffic(projections + masks, operations), Traffic(2 * projections + masks, 3 * operations)


_TRAFFIC = {
    "sharpen": _sharpen,
    "sim_loss": _sim_loss,
    "mix_contrastive_loss": _mix,
    "real_contrastive_loss": _real,
    "mask_mix": _mask_mix,
    "mixblock_attention": _attention,
}


def grid(sizes: Iterable[str], dtypes: Iterable[str]) -> Iterator[Case]:
    """Give every case of these sizes and dtypes, all of one size before the next."""
    dtypes = tuple(dtypes)
    for size in sizes:
        for op, pairings in OPERATORS.items():
            for pairing in pairings:
                for dtype in dtypes:
                    yield Case(op, pairing, size, dtype)
