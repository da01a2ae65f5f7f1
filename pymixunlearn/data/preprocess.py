"""Preprocessing from stored images to network inputs, whole batches at a time, on their device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.data.geometry import INTERPOLATIONS, Geometry
from pymixunlearn.errors import UserError, unknown_name

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A random resized crop covers this share of the image's area, with this range of width / height.
_CROP_AREA = (0.08, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing from stored images ``[N, C, H, W]`` to float32 network inputs.

    uint8 images are scaled to [0, 1], then resized, then normalised; float32 images skip the scaling.

    Attributes:
        size: Side of the square network input; None leaves the stored size.
        mean: Subtracted per channel, one value for each; a grey image is repeated for several. Given together with
            ``std`` or not at all.
        std: Divides per channel, all positive.
        random_crop: In training, a random box of each image (8 to 100 % of its area, width / height from 3/4 to 4/3)
            is enlarged to the network's input size.
        flip: In training, each image is mirrored left to right with probability one half.
        resize: With ``interpolation``, the length that an image's shorter side is brought to before the middle square
            of side ``size`` is cut out; None takes ``size``.
        interpolation: "bilinear", "bicubic", "nearest" or "lanczos": resize as torchvision, timm and transformers do
            with Pillow, to the same 8-bit pixels. None resizes the stored square bilinearly in floating point.
        squash: With ``interpolation``, bring both sides to ``resize``, whatever the image's shape.

    Raises:
        UserError: A size below 1, a ``resize`` below it, an unknown ``interpolation`` or one without ``size``, ``mean``
            without ``std`` or the reverse, different lengths, a ``std`` that is not positive.

    Example:
        >>> import torch
        >>> from pymixunlearn import data
        >>> preprocess = data.Preprocess(size=16, mean=(0.5,), std=(0.25,))
        >>> inputs = preprocess.evaluation(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8))
        >>> inputs.shape, inputs.max().item()
        (torch.Size([2, 1, 16, 16]), 2.0)
    """

    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    random_crop: bool = False
    flip: bool = False
    resize: int | None = None
    interpolation: str | None = None
    squash: bool = False

    def __post_init__(self) -> None:
        """Check the values and how they fit together."""
        # Lists, as JSON and YAML give them, become tuples: the fields are keys of a cache below.
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(float(value) for value in values))
        if self.size is not None and self.size < 1:
            raise UserError(f"size must be at least 1, got {self.size}")
        if self.interpolation is None and (self.resize is not None or self.squash):
            raise UserError("resize and squash are given without interpolation; expected it too, for example bilinear")
        if self.interpolation is not None:
            if self.interpolation not in INTERPOLATIONS:
                raise unknown_name("interpolation", str(self.interpolation), INTERPOLATIONS)
            if self.size is None or (self.resize or self.size) < self.size:
                raise UserError(
                    f"interpolation needs size, and a resize of at least that, got size={self.size} and "
                    f"resize={self.resize}"
                )
        if (self.mean is None) != (self.std is None):
            raise UserError(f"mean and std must be given together, got mean={self.mean} and std={self.std}")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise UserError(f"mean and std must have one value per channel each, got {self.mean} and {self.std}")
            if min(self.std) <= 0:
                raise UserError(f"std must be positive, got {self.std}")

    @property
    def geometry(self) -> Geometry | None:
        """The resizing that image files get when they are decoded, None where the stored squares are resized."""
        if self.interpolation is None or self.size is None:
            return None
        return Geometry(self.size, self.resize or self.size, self.interpolation, self.squash)

    @property
    def augments(self) -> bool:
        """Whether :meth:`training` differs from :meth:`evaluation`."""
        return self.random_crop or self.flip

    def evaluation(self, images: Tensor) -> Tensor:
        """Return the network's input for stored images, the same every time.

        Args:
            images: ``[N, C, H, W]`` uint8 or float32. The result may share memory with float32 images that need no
                change; it is not to be written to.

        Returns:
            float32 ``[N, C, size, size]`` (``[N, C, H, W]`` if ``size`` is None), on the images' device.

        Raises:
            UserError: As many channels as ``mean`` has values were expected.
        """
        return self._normalise(_resize(self._unit_range(images), self._input_size(images)))

    def training(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Like :meth:`evaluation`, with the random augmentation of every image.

        Args:
            images: ``[N, C, H, W]`` uint8 or float32.
            generator: The only source of randomness. On the images' device nothing is copied between devices; a
                generator on the CPU works with images anywhere.
        """
        return self.augmented(images, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Return the random numbers for ``count`` images, ``[K, count]`` uniform in [0, 1); None if none are needed.

        Drawn apart from :meth:`augmented` so that a CUDA graph can hold the augmentation and not the drawing.
        """
        rows = self.flip + (2 * _CROP_ATTEMPTS + 2) * self.random_crop
        return torch.rand(rows, count, generator=generator, device=generator.device) if rows else None

    def augmented(self, images: Tensor, uniform: Tensor | None) -> Tensor:
        """Like :meth:`training`, with the random numbers of :meth:`draw` in place of a generator.

        Args:
            images: ``[N, C, H, W]`` uint8 or float32.
            uniform: ``[K, N]`` of :meth:`draw`, on any device; None augments nothing.
        """
        if uniform is None:
            return self.evaluation(images)
        height, width = self._input_size(images)
        inputs = self._unit_range(images)
        uniform = uniform.to(inputs.device)
        mirrored = None
        if self.flip:
            mirrored, uniform = uniform[0] < 0.5, uniform[1:]
        if self.random_crop:
            # Shrinking needs an antialiasing filter, which sampling has not; after it, a crop only ever enlarges.
            if inputs.shape[-2] > height or inputs.shape[-1] > width:
                inputs = _resize(inputs, (height, width))
            inputs = _random_resized_crop(inputs, (height, width), uniform, mirrored)
        else:
            inputs = _resize(inputs, (height, width))
            if mirrored is not None:
                inputs = torch.where(mirrored.view(-1, 1, 1, 1), inputs.flip(-1), inputs)
        return self._normalise(inputs)

    def for_channels(self, channels: int) -> Preprocess:
        """Return the same for images of so many channels: one mean and std for all where there are no more."""
        if self.mean is None or self.std is None or len(self.mean) != 1:
            return self
        return replace(self, mean=self.mean * channels, std=self.std * channels)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values; :meth:`from_dict` reads them back."""
        content = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.interpolation is None:  # as 0.1.0 wrote it
            for key in ("resize", "interpolation", "squash"):
                del content[key]
        return content

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Build from :meth:`to_dict`'s result; a field that does not exist is a UserError."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("preprocessing field", name, known)
        return cls(**values)

    def _input_size(self, images: Tensor) -> tuple[int, int]:
        """Height and width of the network input."""
        return (self.size, self.size) if self.size is not None else (images.shape[-2], images.shape[-1])

    def _unit_range(self, images: Tensor) -> Tensor:
        """Return images as float32, uint8 ones in [0, 1], resized where the geometry is a library's."""
        geometry = self.geometry
        return _unit_range(images) if geometry is None else geometry.apply_to(images)

    def _normalise(self, inputs: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return inputs
        if inputs.shape[1] == 1:  # a grey image for a network that takes colour
            inputs = inputs.expand(-1, len(self.mean), -1, -1)
        if inputs.shape[1] != len(self.mean):
            raise UserError(f"images must have {len(self.mean)} channels (as mean has values), got {inputs.shape[1]}")
        mean, std = _channel_constants(self.mean, self.std, inputs.device)
        return (inputs - mean).div_(std)


def natural_images(size: int | None = None) -> Preprocess:
    """Return the preset for colour photographs: random resized crop, flip, ImageNet's mean and std.

    With ``size=224`` it is the paper's for CIFAR-10 and SVHN; with None it works at the stored size.

    Example:
        >>> from pymixunlearn import data
        >>> data.natural_images(224).augments
        True
    """
    return Preprocess(size, IMAGENET_MEAN, IMAGENET_STD, random_crop=True, flip=True)


@lru_cache(maxsize=32)
def _channel_constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std as [1, C, 1, 1]; cached, since copying them to an accelerator in every step would stall it."""
    # Made as ordinary tensors even if the first call comes under inference_mode, since later ones may need gradients.
    with torch.inference_mode(False):
        return (
            torch.tensor(mean, device=device).view(1, -1, 1, 1),
            torch.tensor(std, device=device).view(1, -1, 1, 1),
        )


def _unit_range(images: Tensor) -> Tensor:
    """The uint8 range 0..255 as float32 in [0, 1]; float32 unchanged."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def _resize(inputs: Tensor, size: tuple[int, int]) -> Tensor:
    if inputs.shape[-2:] == size:
        return inputs
    return F.interpolate(inputs, size=size, mode="bilinear", antialias=True, align_corners=False)


def _crop_boxes(height: int, width: int, uniform: Tensor) -> Tensor:
    """Make boxes [4, N] = (left, top, width, height) in pixels, not rounded to whole ones, of uniform numbers.

    A box that does not fit is drawn again, up to ten times; the last resort is the largest centred box of an allowed
    shape. All attempts are drawn at once, so that every call takes the same amount of randomness.
    """
    area = height * width * (_CROP_AREA[0] + (_CROP_AREA[1] - _CROP_AREA[0]) * uniform[:_CROP_ATTEMPTS])
    low, high = math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1])
    ratio = torch.exp(low + (high - low) * uniform[_CROP_ATTEMPTS : 2 * _CROP_ATTEMPTS])
    last_ratio = min(max(width / height, _CROP_RATIO[0]), _CROP_RATIO[1])
    last_width, last_height = min(width, height * last_ratio), min(height, width / last_ratio)

    widths = F.pad((area * ratio).sqrt(), (0, 0, 0, 1), value=last_width)  # [attempts + 1, N]
    heights = F.pad((area / ratio).sqrt(), (0, 0, 0, 1), value=last_height)
    fits = (widths <= width) & (heights <= height)
    fits[-1] = True
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    box_width, box_height = widths.gather(0, first)[0], heights.gather(0, first)[0]

    across, down = uniform[-2], uniform[-1]
    centred = first[0] == _CROP_ATTEMPTS
    across, down = (torch.where(centred, 0.5, position) for position in (across, down))
    return torch.stack([across * (width - box_width), down * (height - box_height), box_width, box_height])


def _random_resized_crop(inputs: Tensor, size: tuple[int, int], uniform: Tensor, mirrored: Tensor | None) -> Tensor:
    """Sample a random box of every image at ``size``, mirrored where ``mirrored``; inputs must not exceed ``size``."""
    count, _, height, width = inputs.shape
    left, top, box_width, box_height = _crop_boxes(height, width, uniform).unsqueeze(-1)
    columns = left + box_width * _pixel_centres(size[1], inputs.device)  # [N, size], in pixels of the stored image
    rows = top + box_height * _pixel_centres(size[0], inputs.device)
    if mirrored is not None:
        columns = torch.where(mirrored.unsqueeze(-1), columns.flip(-1), columns)
    # A crop never rotates, so the grid is an outer product: many times cheaper than the product of affine_grid.
    grid = inputs.new_empty(count, *size, 2)
    grid[..., 0] = (columns * (2 / width) - 1).unsqueeze(1)
    grid[..., 1] = (rows * (2 / height) - 1).unsqueeze(2)
    return F.grid_sample(inputs, grid, mode="bilinear", padding_mode="border", align_corners=False)


@lru_cache(maxsize=32)
def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Where the centres of ``size`` pixels lie in an edge of length 1."""
    with torch.inference_mode(False):
        return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
