"""Growth of unlearning's time and memory with the forgotten and with the remaining samples.

Images are noise: neither time nor memory depends on what they show. Every size runs in a process of its own, because an
allocator keeps what an earlier run gave back.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pymixunlearn import models, tasks
from pymixunlearn.benchmarking.machine import Machine
from pymixunlearn.benchmarking.memory import peak_resident
from pymixunlearn.data import Dataset, ImageSet, Preprocess
from pymixunlearn.data.image_file import hashed, map_images, write_images
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.methods.mixunlearn import MixUnlearn

SIDE = 28
CLASSES = 10
_WARM_UP = 64


@dataclass(frozen=True)
class Size:
    """A problem of a series.

    Attributes:
        grows: "forget" or "retain": which of the two sets grows in the series.
        forget: |D_f|.
        retain: |D_r|.
        streamed: Whether images stay in a file, or are held in memory.
        epochs: Passes over the smaller set.
    """

    grows: str
    forget: int
    retain: int
    streamed: bool
    epochs: int


@dataclass(frozen=True)
class GrowthRow:
    """Time and memory of one size: a row of the file, its columns in order.

    Attributes:
        grows: "forget" or "retain": which of the two sets the row belongs to a series of.
        images: "streamed" from a file, or "in memory".
        forget: |D_f|.
        retain: |D_r|.
        epochs: Passes over the smaller set.
        steps: Of the training.
        seconds: Of the training.
        peak_bytes: The most memory that images, networks and training took; None where the system does not tell.
        device: In words.
        threads: Of the CPU.
        versions: Of everything that took part.
    """

    grows: str
    images: str
    forget: int
    retain: int
    epochs: int
    steps: int
    seconds: float
    peak_bytes: int | None
    device: str
    threads: int
    versions: str


class Line(NamedTuple):
    """A least-squares line, and the share of the variance that it explains (R^2)."""

    slope: float
    intercept: float
    explained: float


def fitted(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit a line through at least two points of different ``x``."""
    slope, intercept = np.polyfit(x, y, 1)
    spread = float(np.var(y))
    rest = float(np.mean((np.asarray(y) - slope * np.asarray(x) - intercept) ** 2))
    return Line(float(slope), float(intercept), 1 - rest / spread if spread else 1.0)


def series(forget: Sequence[int], retain: Sequence[int], *, forget_epochs: int, retain_epochs: int) -> list[Size]:
    """Return the sizes of both series: D_f grows beside the largest D_r, then D_r, kept in either place.

    Args:
        forget: Sizes of D_f; the smallest one is kept while D_r grows.
        retain: Sizes of D_r, none smaller than any of D_f.
        forget_epochs: Epochs while D_f grows.
        retain_epochs: Epochs while D_r grows.
    """
    sizes = [Size("forget", count, max(retain), streamed=False, epochs=forget_epochs) for count in forget]
    for streamed in (True, False):
        sizes += [Size("retain", min(forget), count, streamed, retain_epochs) for count in retain]
    return sizes


def measure_growth(sizes: Sequence[Size], *, device: torch.device, machine: Machine) -> Iterator[GrowthRow]:
    """Unlearn at every size, one after the other; rows come as they are measured.

    Args:
        sizes: From :func:`series`.
        device: Where to compute.
        machine: The device in words, and the threads to use.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noise.safetensors"
        _write_noise(file, max(size.forget + size.retain for size in sizes))
        for size in sizes:
            with context.Pool(1) as pool:
                seconds, steps, peak = pool.apply(_measure, (size, file, str(device), machine.threads))
            yield GrowthRow(
                grows=size.grows,
                images="streamed" if size.streamed else "in memory",
                forget=size.forget,
                retain=size.retain,
                epochs=size.epochs,
                steps=steps,
                seconds=seconds,
                peak_bytes=peak,
                device=machine.device,
                threads=machine.threads,
                versions=machine.versions,
            )


def _write_noise(file: Path, count: int) -> None:
    stream = np.random.default_rng(0)
    rows = (hashed(stream.integers(256, size=(1, SIDE, SIDE), dtype=np.uint8)) for _ in range(count))
    write_images(file, rows, (count, 1, SIDE, SIDE), [""] * count)


def _measure(size: Size, file: Path, device_name: str, threads: int) -> tuple[float, int, int | None]:
    """Return seconds, steps and peak memory; runs in a process of its own."""
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    torch.manual_seed(0)
    model = models.build("cnn", num_classes=CLASSES, in_channels=1, image_size=SIDE)
    method = MixUnlearn(epochs=size.epochs)

    def unlearn() -> float:
        split = tasks.index_split(_noise(size, file), range(size.forget))
        # What a process does only once, loading libraries above all, is not part of what grows.
        MixUnlearn(epochs=1).unlearn(model, tasks.index_split(split.dataset, range(_WARM_UP)), device=device)
        return method.unlearn(model, split, device=device).seconds

    seconds, peak = peak_resident(unlearn, device)
    batch = method.config.to_dict()["batch_size"]
    return seconds, size.epochs * -(-min(size.forget, size.retain) // batch), peak


def _noise(size: Size, file: Path) -> Dataset:
    mapped = map_images(file)
    assert mapped is not None
    count = size.forget + size.retain
    images, targets = mapped.images[:count], torch.randint(CLASSES, (count,))
    names = tuple(map(str, range(CLASSES)))
    train = StreamedImageSet(images, targets, names) if size.streamed else ImageSet(images.clone(), targets, names)
    return Dataset("noise", train, ImageSet(images[:1].clone(), targets[:1], names), Preprocess())
