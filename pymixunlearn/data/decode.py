"""Decoder from image files of any size to one uint8 tensor of square images."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Pillow's decoders that may run, whatever a file's name says; others start programs (EPS runs Ghostscript)."""

PIXEL_LIMIT = 2**27
"""Pixels of the largest image that is decoded: 11585 x 11585."""

_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_DEEP_MODES = frozenset({"F", "I", "I;16", "I;16B", "I;16L", "I;16N"})  # reduced to 8 bits they would be clipped
_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, which weighs all pixels under a shrunken one
_ORIENTATION = 0x0112
_UPRIGHT = 1

Pixels = NDArray[np.uint8]


@dataclass
class SquareDecoder:
    """Decoder of images one at a time, whose common size is known once all of them were seen.

    An image that is not square loses the outer parts of its longer side. The common side is the commonest one, but not
    above ``limit``; images above the limit shrink to it at once, so that photographs are never all held at full size.

    Attributes:
        limit: The largest side that is of use, or None.
        memory: Bytes of decoded images to hold; beyond them they wait in a file in the folder for temporary ones.
        shapes: Shape of each image so far: [S, S] grey or [S, S, 3] colour.
    """

    limit: int | None
    memory: int
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Import Pillow once, not once for each image."""
        self._spool = SpooledTemporaryFile(max_size=self.memory)  # noqa: SIM115 (closed with the decoder)
        self._starts: list[int] = []
        needed = {"purpose": "the dataset 'imagefolder'", "remedy": "install Pillow"}
        self._pil: Any = require("PIL.Image", **needed)
        self._ops: Any = require("PIL.ImageOps", **needed)

    def add(self, content: bytes) -> None:
        """Decode one image file, upright as its EXIF orientation says.

        Raises:
            UserError: It is of none of :data:`FORMATS`, is damaged, has more than 8 bits per channel, or more pixels
                than :data:`PIXEL_LIMIT`. The message has no subject: the caller knows the file's name.
        """
        try:
            with warnings.catch_warnings():
                # Pillow warns of odd metadata and of images above a limit of its own; the limit here is an error.
                warnings.simplefilter("ignore")
                image = self._decoded(content)
        except UserError:
            raise
        # Pillow reports damage as OSError, SyntaxError, ValueError or struct.error, oversize by a class of its own.
        except Exception as error:
            unknown = isinstance(error, self._pil.UnidentifiedImageError)
            reason = f"it is none of {', '.join(FORMATS)}" if unknown else str(error)
            raise UserError(f"cannot be decoded as an image ({reason})") from error
        square = self._square(image, self.limit)
        self._starts.append(self._spool.seek(0, io.SEEK_END))
        self.shapes.append(square.shape)
        self._spool.write(np.ascontiguousarray(square).data)

    def repeat(self, index: int) -> None:
        """Add the image at ``index`` once more, as an archive's hard link asks."""
        self._starts.append(self._starts[index])
        self.shapes.append(self.shapes[index])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S) of the images that :meth:`images` gives; C is 1 if every image is grey, else 3."""
        side = Counter(shape[0] for shape in self.shapes).most_common(1)[0][0]
        return (3 if any(len(shape) == 3 for shape in self.shapes) else 1, side, side)

    def images(self, indices: list[int]) -> Iterator[Pixels]:
        """Yield the images at ``indices``, uint8 [C, S, S]."""
        channels, side, _ = self.shape
        for index in indices:
            shape = self.shapes[index]
            self._spool.seek(self._starts[index])
            image = np.frombuffer(self._spool.read(math.prod(shape)), np.uint8).reshape(shape)
            if len(image) != side:
                image = np.asarray(self._pil.fromarray(image).resize((side, side), _BILINEAR))
            # A grey image among coloured ones fills all three channels alike.
            yield np.broadcast_to(image.transpose(2, 0, 1) if image.ndim == 3 else image, (channels, side, side))

    def _decoded(self, content: bytes) -> Any:
        """Decode to mode L or RGB."""
        with self._pil.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXEL_LIMIT:
                raise UserError(f"has {width} x {height} pixels; expected at most {PIXEL_LIMIT}")
            if image.mode in _DEEP_MODES:
                raise UserError(f"has pixels of mode {image.mode}; expected 8 bits per channel")
            image.load()
            try:
                orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
            except Exception:  # damaged metadata, of which Pillow raises anything; the pixels are sound
                orientation = _UPRIGHT
            upright = image if orientation == _UPRIGHT else self._ops.exif_transpose(image)
            return upright.convert("L" if image.mode in _GREY_MODES else "RGB")

    def _square(self, image: Any, limit: int | None) -> Pixels:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        if width != height:
            image = image.crop((left, top, left + side, top + side))
        if limit is not None and side > limit:
            image = image.resize((limit, limit), _BILINEAR)
        return np.asarray(image)
