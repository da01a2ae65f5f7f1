"""Decoding of image files of any size to square uint8 images."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymixunlearn.data.geometry import Geometry
from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
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


Limit = int | Geometry | None
"""Largest side that is of use, or the resizing that makes every image the network's input; None keeps all pixels."""


def decode_square(content: bytes, limit: Limit) -> Pixels:
    """Decode one image file, upright as its EXIF orientation says, and cut it to its middle square.

    It may run in several threads at once, under :func:`quiet_decoding`: Pillow decodes and resizes outside Python's
    lock.

    Args:
        content: The file.
        limit: The largest side that is of use, or None; a larger image shrinks to it, so that photographs are never
            held at full size. A :class:`~pymixunlearn.data.geometry.Geometry` is applied, unless the image is so
            small that it waits.

    Returns:
        uint8 [1, S, S] for a grey image, [3, S, S] for a coloured one.

    Raises:
        UserError: It is of none of :data:`FORMATS`, is damaged, has more than 8 bits per channel, or more pixels than
            :data:`PIXEL_LIMIT`. The message has no subject: the caller knows the file's name.
    """
    pil = _pillow("PIL.Image")
    try:
        image = _decoded(pil, content)
    except UserError:
        raise
    # Pillow reports damage as OSError, SyntaxError, ValueError or struct.error, oversize by a class of its own.
    except Exception as error:
        unknown = isinstance(error, pil.UnidentifiedImageError)
        reason = f"it is none of {', '.join(FORMATS)}" if unknown else str(error)
        raise UserError(f"cannot be decoded as an image ({reason})") from error
    return _square(image, limit)


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Silence Pillow's warnings of odd metadata and of images above a limit of its own; the limit here is an error.

    Filters of warnings are the whole process's, so this is for the thread that starts the others.
    """
    with warnings.catch_warnings():
        for module in (r"PIL(\..*)?", __name__.replace(".", r"\.")):
            warnings.filterwarnings("ignore", module=module)
        yield


def common_shape(shapes: Iterable[tuple[int, ...]], limit: Limit = None) -> tuple[int, int, int]:
    """Return (C, S, S) for images of ``shapes`` as :func:`decode_square` gives them.

    S is the commonest side, or that of ``limit`` where a geometry left images of several sizes; C is 1 if every image
    is grey, else 3.
    """
    counts = Counter(shapes)
    sides: Counter[int] = Counter()
    for shape, count in counts.items():  # in the order of their first image, which decides between equals
        sides[shape[1]] += count
    side = limit.size if isinstance(limit, Geometry) and len(sides) > 1 else sides.most_common(1)[0][0]
    return (max(shape[0] for shape in counts), side, side)


def fitted(image: Pixels, shape: tuple[int, int, int], limit: Limit = None) -> Pixels:
    """Return an image of :func:`decode_square` as uint8 [C, S, S]; a grey one fills all three channels alike."""
    if image.shape == shape:
        return image
    side = shape[1]
    if image.shape[1] != side:
        rows = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        small = _pillow("PIL.Image").fromarray(rows)
        if isinstance(limit, Geometry):
            image = _planes(limit.apply(small))
        else:
            image = _planes(np.asarray(small.resize((side, side), _BILINEAR)))
    return np.broadcast_to(image, shape)


def _pillow(module: str) -> Any:
    return require(module, purpose="decoding images", remedy="install Pillow")


def square_of(image: Any, limit: Limit) -> Pixels:
    """Return the middle square of an image of Pillow, as :func:`decode_square` does that of a file.

    Raises:
        UserError: It has more than 8 bits per channel.
    """
    return _square(_plain(image), limit)


def _decoded(pil: Any, content: bytes) -> Any:
    """Decode to mode L or RGB."""
    image = pil.open(io.BytesIO(content), formats=FORMATS)
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise UserError(f"has {width} x {height} pixels; expected at most {PIXEL_LIMIT}")
    return _plain(image)


def _plain(image: Any) -> Any:
    """Return an image upright, in mode L or RGB."""
    if image.mode in _DEEP_MODES:
        raise UserError(f"has pixels of mode {image.mode}; expected 8 bits per channel")
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # damaged metadata, of which Pillow raises anything; the pixels are sound
        orientation = _UPRIGHT
    upright = image if orientation == _UPRIGHT else _pillow("PIL.ImageOps").exif_transpose(image)
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    return upright if upright.mode == mode else upright.convert(mode)  # Pillow would copy it


def _square(image: Any, limit: Limit) -> Pixels:
    width, height = image.size
    if isinstance(limit, Geometry):
        return _planes(np.asarray(image) if limit.waits(width, height) else limit.apply(image))
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if width != height:
        image = image.crop((left, top, left + side, top + side))
    if limit is not None and side > limit:
        image = image.resize((limit, limit), _BILINEAR)
    return _planes(np.asarray(image))


def _planes(image: Pixels) -> Pixels:
    """Return an image [S, S] or [S, S, 3], as Pillow has it, as [1, S, S] or [3, S, S], each channel in one piece."""
    return image[None] if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))
