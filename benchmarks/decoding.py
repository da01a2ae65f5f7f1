"""Images decoded in a second: this package's image folders beside torch's DataLoader over torchvision's ImageFolder.

Both read the same generated JPEGs and give square uint8 images of one size, in one run, in turn, with as many processes
(DataLoader) as threads (this package). The package also writes what it decodes to its cache, which is within its time;
a second load, which decodes nothing, is timed too::

    python -m benchmarks.decoding --images 3000 --workers 2 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CLASSES = 10


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write photograph-like JPEGs: smooth shapes with some noise, in ten classes, and one test image of each."""
    random = np.random.default_rng(0)
    for index in range(count + CLASSES):
        part = "train" if index < count else "test"
        place = folder / part / f"class{index % CLASSES}" / f"{index:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = pixels + random.integers(-12, 13, pixels.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place, quality=90)


def with_this_package(folder: Path, size: int) -> tuple[float, float]:
    """Return the seconds of a first load, and of a second one."""
    from pymixunlearn import data

    with tempfile.TemporaryDirectory() as cache:
        os.environ["PYMIXUNLEARN_CACHE"] = cache
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            dataset = data.load(str(folder), image_size=size, stream=True)
            seconds.append(time.perf_counter() - started)
        assert dataset.train.gather(torch.arange(2)).shape[1:] == (3, size, size)
    return seconds[0], seconds[1]


def with_data_loader(folder: Path, size: int, workers: int) -> float:
    """Return the seconds of one pass over both parts."""
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size), transforms.PILToTensor()])
    started = time.perf_counter()
    parts = ConcatDataset([datasets.ImageFolder(folder / part, transform) for part in ("train", "test")])
    count = sum(len(images) for images, _ in DataLoader(parts, 64, num_workers=workers))
    assert count == len(parts)
    return time.perf_counter() - started


def main() -> None:
    """Time both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    # The package takes as many threads as there are cores that it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.workers])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        write_images(folder, options.images, (options.width, options.height))
        total = options.images + CLASSES
        ours, again, theirs = [], [], []
        for _ in range(options.repeats):
            first, second = with_this_package(folder, options.size)
            ours.append(first)
            again.append(second)
            theirs.append(with_data_loader(folder, options.size, options.workers))
    print(f"{total} JPEGs of {options.width} x {options.height} to {options.size}, {options.workers} workers")
    for name, seconds in (
        ("this package, first load", ours),
        ("DataLoader over ImageFolder", theirs),
        ("this package, second load", again),
    ):
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
        print(f"{name:<28} {total / median:8.0f} images/s   median {median:.2f} s ({spread})")


if __name__ == "__main__":
    main()
