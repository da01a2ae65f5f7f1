"""From image files of any format and size to one uint8 tensor of square images."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

_GREY_MODES = frozenset({"1", "L", "LA"})
_DEEP_MODES = frozenset({"F", "I", "I;16", "I;16B", "I;16L", "I;16N"})  # reduced to 8 bits they would be clipped
_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, which weighs all pixels under a shrunken one

Pixels = NDArray[np.uint8]


@dataclass
class SquareDecoder:
    """Decodes images one at a time; knows the common size only once it has seen all of them.

    An image that is not square loses the outer parts of its longer side. The common side is the commonest one, but not
    above ``limit``; images above the limit shrink to it at once, so that photographs are never all held at full size.

    Attributes:
        limit: The largest side that is of use, or None.
        memory: Bytes of decoded images to hold; beyond them they wait in a file in the folder for temporary ones.
        shapes: Of what was decoded so far: [S, S] grey or [S, S, 3] colour.
    """

    limit: int | None
    memory: int
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Import Pillow once, not once for each image."""
        self._spool = SpooledTemporaryFile(max_size=self.memory)  # noqa: SIM115 (closed with the decoder)
        self._starts: list[int] = []
        self._pil: Any = require("PIL.Image", purpose="the dataset 'imagefolder'", remedy="install Pillow")

    def add(self, content: bytes, where: str) -> None:
        """Decode one image file; ``where`` names it in errors.

        Raises:
            UserError: It is not an image, is damaged, or has more than 8 bits per channel.
        """
        try:
            with self._pil.open(io.BytesIO(content)) as image:
                if image.mode in _DEEP_MODES:
                    raise UserError(f"'{where}' has pixels of mode {image.mode}; expected 8 bits per channel")
                converted = image.convert("L" if image.mode in _GREY_MODES else "RGB")
        except UserError:
            raise
        # Pillow reports damage as OSError, SyntaxError, ValueError or struct.error, oversize by a class of its own.
        except Exception as error:
            raise UserError(f"'{where}' cannot be decoded as an image ({error})") from error
        square = self._square(converted, self.limit)
        self._starts.append(self._spool.tell())
        self.shapes.append(square.shape)
        self._spool.write(np.ascontiguousarray(square).data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S) of the images that :meth:`rows` gives; C is 1 if every image is grey, else 3."""
        side = Counter(shape[0] for shape in self.shapes).most_common(1)[0][0]
        return (3 if any(len(shape) == 3 for shape in self.shapes) else 1, side, side)

    def rows(self, order: list[int]) -> Iterator[Pixels]:
        """Yield the images in ``order``, uint8 [C, S, S]."""
        channels, side, _ = self.shape
        for index in order:
            shape = self.shapes[index]
            self._spool.seek(self._starts[index])
            image = np.frombuffer(self._spool.read(math.prod(shape)), np.uint8).reshape(shape)
            if len(image) != side:
                image = np.asarray(self._pil.fromarray(image).resize((side, side), _BILINEAR))
            # A grey image among coloured ones fills all three channels alike.
            yield np.broadcast_to(image.transpose(2, 0, 1) if image.ndim == 3 else image, (channels, side, side))

    def _square(self, image: Any, limit: int | None) -> Pixels:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        if width != height:
            image = image.crop((left, top, left + side, top + side))
        if limit is not None and side > limit:
            image = image.resize((limit, limit), _BILINEAR)
        return np.asarray(image)
