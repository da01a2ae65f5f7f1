"""Near copies that `request add --check-copies` finds: planted ones, by kind of change and threshold, and false alarms.

Of the images of an archive or a data set some are drawn as samples to forget, and of each a copy is made in every way:
resized and back, encoded again as JPEG, cropped, flipped. Recall is the share of copies within a threshold of their
original. False alarms are pairs of a sample and another image of the source within it; exact copies in the source are
left out::

    python -m benchmarks.copies cifar10=test.tar.gz tiny-imagenet=val.tar.gz mnist fashion-mnist --data-dir DIR \\
        --images 2000 --samples 300 --out benchmarks/results/copies.csv
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pymixunlearn.data import ImageSet, load
from pymixunlearn.experiments.request.copies import HASH_SIDE, hashes

THRESHOLDS = (8, 16, 24, 32, 40, 48, 56, 64, 72, 80)


def encoded(image: Image.Image, quality: int) -> Image.Image:
    """Return an image after JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Return the middle of an image, ``share`` of each side, enlarged to its size."""
    width, height = image.size
    left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
    return image.crop((left, top, width - left, height - top)).resize(image.size, Image.Resampling.BICUBIC)


def resized(image: Image.Image, share: float) -> Image.Image:
    """Return an image made smaller and enlarged again."""
    width, height = image.size
    small = image.resize((round(width * share), round(height * share)), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized to 75 %": lambda image: resized(image, 0.75),
    "resized to 50 %": lambda image: resized(image, 0.5),
    "JPEG, quality 75": lambda image: encoded(image, 75),
    "JPEG, quality 30": lambda image: encoded(image, 30),
    "flipped": ImageOps.mirror,
    "flipped, JPEG 75": lambda image: encoded(ImageOps.mirror(image), 75),
    "brighter by 20 %": lambda image: image.point(lambda value: min(255, round(value * 1.2))),
    "cropped to 95 %": lambda image: cropped(image, 0.95),
    "cropped to 90 %": lambda image: cropped(image, 0.9),
    "cropped to 80 %": lambda image: cropped(image, 0.8),
}


def read_dataset(name: str, folder: Path | None, count: int, seed: int) -> list[tuple[Image.Image, str]]:
    """Return training images of a data set with a name, and their classes, drawn at random, no two of them equal."""
    images = load(name, data_dir=folder).train
    chosen = random.Random(seed).sample(range(len(images)), min(count, len(images)))
    labels = images.targets[torch.tensor(chosen)].tolist()
    found: dict[bytes, tuple[Image.Image, str]] = {}
    for pixels, label in zip(images.gather(torch.tensor(chosen)).permute(0, 2, 3, 1).numpy(), labels, strict=True):
        image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
        found.setdefault(image.tobytes(), (image, images.classes[label]))
    return list(found.values())


def read_images(archive: Path, count: int, seed: int) -> list[tuple[Image.Image, str]]:
    """Return images of an archive, and the folders that they are in, drawn at random, no two of them equal."""
    with tarfile.open(archive) as files:
        members = [member for member in files.getmembers() if member.isfile()]
        random.Random(seed).shuffle(members)
        content: dict[str, bytes] = {}
        for member in sorted(members[:count], key=lambda one: one.offset):  # gzip cannot go back
            stream = files.extractfile(member)
            assert stream is not None
            content[member.name] = stream.read()
    found: dict[bytes, tuple[Image.Image, str]] = {}
    for member in members[:count]:
        image = Image.open(io.BytesIO(content[member.name])).convert("RGB")
        found.setdefault(image.tobytes(), (image, Path(member.name).parent.name))
    return list(found.values())


def hashed(images: list[Image.Image], *, flip: bool = False) -> np.ndarray:
    """Return the hashes of images."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()
    return hashes(ImageSet(pixels, torch.zeros(len(images), dtype=torch.int64), ("image",)), flip=flip)


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return in how many bits each hash of one set differs from each of another."""
    return np.stack([np.count_nonzero(right != one, axis=1) for one in left])


def rows(name: str, images: list[Image.Image], samples: int) -> Iterator[dict[str, object]]:
    """Measure the images of one source."""
    chosen = images[:samples]
    plain, mirrored = hashed(chosen), hashed(chosen, flip=True)
    others = hashed(images)
    apart = np.minimum(distances(plain, others), distances(mirrored, others))
    apart[np.arange(samples), np.arange(samples)] = HASH_SIDE**2
    about = {"data": name, "images": len(images), "samples": samples}
    for threshold in THRESHOLDS:
        alarms = apart <= threshold
        yield {
            **about,
            "change": "none: other images",
            "threshold": threshold,
            "recall": "",
            "false_pairs": int(alarms.sum()),
            "samples_with_a_false_pair": int(alarms.any(axis=1).sum()),
        }
    for change, make in CHANGES.items():
        copies = hashed([make(image) for image in chosen])
        own = np.minimum((copies != plain).sum(axis=1), (copies != mirrored).sum(axis=1))
        for threshold in THRESHOLDS:
            recall = f"{100 * float((own <= threshold).mean()):.1f}"
            yield {**about, "change": change, "threshold": threshold, "recall": recall}


def main() -> None:
    """Measure every archive and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="NAME[=FILE.tar.gz]")
    parser.add_argument("--data-dir", type=Path, help="where data sets with a name alone are")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = []
    for source in options.sources:
        name, _, file = source.partition("=")
        how = (options.images, options.seed)
        drawn = read_images(Path(file), *how) if file else read_dataset(name, options.data_dir, *how)
        found += rows(name, [image for image, _ in drawn], options.samples)
    columns = ("data", "images", "samples", "change", "threshold", "recall", "false_pairs", "samples_with_a_false_pair")
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
