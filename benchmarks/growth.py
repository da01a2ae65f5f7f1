"""What growth costs: seconds and bytes of every part of a run against images, classes, parameters and processes.

    python -m benchmarks.growth --out benchmarks/results/growth-cpu.csv
    python -m benchmarks.growth_tables benchmarks/results/growth-cpu.csv

Each axis grows by a factor of 16 in five points, all else fixed; one point lies far out and is in no fit. A point that
is in the file is not measured again. Every point is a process of its own, with one thread and an empty cache: a fork of
one that has everything imported. It makes a small run of the same kind first, so that first uses count nowhere.

Seconds are those of the processor, of all threads of the process (user and system): on a machine with other work the
clock says more of that work. :class:`~pymixunlearn.experiments.common.phases.Phases`, by which the package itself
measures its runs, is given the processor's clock for that. Bytes are the peak of a part less what the process had
after the small run; Linux sets the peak back before every part, so that none is an earlier part's.

The images are generated, grey, 28 pixels wide, half as bright noise on a pattern for each class. A tenth of every class
is forgotten. There are a fifth as many test images as training images, and as many validation images as training
images, so that each class has some in both halves. The network is one that the package does not know. Epochs: one.

Predictions, written before the first row (:data:`PREDICTED`):

- *images*: every pass is linear. The attacks build 100 trees on a fixed number of bins, so that a part of their time
  does not depend on the images; the acceptance test trains for a fixed number of steps, and the probe sees 1000 images
  of a side at most. Nothing that is written has a line for each image but the lists of the forgotten ones. Images on
  disk are mapped, and a mapped page that was read counts as the process's until the system takes it back.
- *classes*: the network's last layer is small. The attacks look at one column for each class. What is written has a
  line for each class, and up to 100 classes a matrix of them, whose picture takes most of the time.
- *parameters*: convolutions and the layers behind them grow alike. An evaluation is mostly attacks, which see logits.
  The probe's system of equations has the square of the last hidden layer's width, which grows like the parameters.
- *processes*: each imports the libraries again and has a copy of the data.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import pymixunlearn
from benchmarks.rows import Rows
from pymixunlearn import data, tasks
from pymixunlearn.benchmarking.machine import describe_machine
from pymixunlearn.experiments.common.phases import Phases
from pymixunlearn.methods import PruneReset, Recipe
from pymixunlearn.methods.retrain import RetrainConfig
from pymixunlearn.training import TrainConfig, fit
from pymixunlearn.training.process_pool import ProcessPool


class Network(nn.Module):
    """Two convolutions and two linear layers, ``width`` wide: a network of a user's own, with 10 to 1000 classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, 2, 1)
        self.second = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden = nn.Linear(32 * width, 8 * width)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, classes]`` of images ``[N, 1, 28, 28]``."""
        seen = self.pool(torch.relu(self.second(torch.relu(self.first(images)))))
        found: Tensor = self.head(torch.relu(self.hidden(seen.flatten(1))))
        return found


CPU = torch.device("cpu")
PIXELS = 28
WIDTHS = (16, 23, 32, 46, 65)
"""Of the network; the parameters grow with their square."""
BY_PARAMETERS = {sum(map(torch.numel, Network(width, 10).parameters())): width for width in WIDTHS}
AXES: dict[str, tuple[int, ...]] = {
    "classes": (10, 20, 40, 80, 160),
    "images": (500, 1000, 2000, 4000, 8000),
    "parameters": tuple(BY_PARAMETERS),
    "images on disk": (500, 1000, 2000, 4000, 8000),
    "processes": (1, 2, 4, 8, 16),
}
FAR = {"classes": 1000}
"""A point far out, where something may break."""
IMAGES = {"classes": 3200, "parameters": 1000, "processes": 16000}
"""Training images where they do not grow."""
FAR_IMAGES = 5000
REPEATED = ("classes", "images")
"""Axes whose middle point is measured twice, which says how much the seconds vary."""
COLUMNS = (
    "axis", "size", "repeat", "part", "seconds", "start_bytes", "peak_bytes", "idle_bytes", "file_bytes", "note",
    "device", "threads", "versions",
)  # fmt: skip
PREDICTED: dict[tuple[str, str], tuple[float, float]] = {}
"""The exponents of seconds and of bytes, by axis and part."""
for _axis, _parts in {
    "images": {
        "data": (1, 1), "training": (1, 1), "mixunlearn": (1, 1), "prune-reset": (1, 1), "retrain": (1, 1),
        "evaluation": (0.6, 1), "acceptance": (0.5, 1), "writing": (0.2, 1),
    },
    "images on disk": {"data": (1, 1), "training": (1, 1)},
    "classes": {
        "data": (0, 0), "training": (0, 0), "mixunlearn": (0, 0), "prune-reset": (0, 0), "retrain": (0, 0),
        "evaluation": (1, 1), "acceptance": (0, 0), "writing": (1, 1),
    },
    "parameters": {
        "data": (0, 0), "training": (1, 1), "mixunlearn": (1, 1), "prune-reset": (1, 1), "retrain": (1, 1),
        "evaluation": (0.25, 0.5), "acceptance": (1, 1), "writing": (0.5, 1),
    },
    "processes": {"pool": (1, 1)},
}.items():  # fmt: skip
    PREDICTED |= {(_axis, _part): _exponents for _part, _exponents in _parts.items()}


class Point(NamedTuple):
    """A measurement: ``size`` on an axis, and how often it is there."""

    axis: str
    size: int
    repeat: int = 1

    @property
    def images(self) -> int:
        """Training images."""
        return FAR_IMAGES if self.size == FAR.get(self.axis) else IMAGES.get(self.axis, self.size)

    @property
    def classes(self) -> int:
        """Classes of the images."""
        return self.size if self.axis == "classes" else 10

    @property
    def width(self) -> int:
        """Width of the network."""
        return BY_PARAMETERS[self.size] if self.axis == "parameters" else WIDTHS[0]


SMALL = 200
"""Images of the run before what is measured."""


def points() -> Iterator[Point]:
    """Yield every point: the ends and the middle of all axes first, so that a file that is cut short says something."""
    for some in (slice(0, None, 2), slice(1, None, 2)):
        for axis, sizes in AXES.items():
            yield from (Point(axis, size) for size in sizes[some])
        if some.start == 0:
            yield from (Point(axis, size) for axis, size in FAR.items())
            yield from (Point(axis, AXES[axis][2], 2) for axis in REPEATED)


class RunPhases(Phases):
    """The phases of a run, and as one more what it does after the last of them: hashes, record, report."""

    latest: RunPhases
    rest: ExitStack

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        with super().measured(name):
            yield
        if name == "acceptance":
            RunPhases.latest, self.rest = self, ExitStack()
            self.rest.enter_context(super().measured("writing"))


@contextmanager
def by_the_processor() -> Iterator[None]:
    """Within the block phases are measured by the processor's clock, and what a run writes is one."""
    clock = SimpleNamespace(perf_counter=time.process_time)
    with (
        mock.patch("pymixunlearn.experiments.common.phases.time", clock),
        mock.patch("pymixunlearn.experiments.unlearn.run.Phases", RunPhases),
    ):
        yield


def make_images(count: int, classes: int, stream: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return images ``[count, 1, 28, 28]`` uint8 and their labels, every class in turn."""
    patterns = np.random.default_rng(1).integers(0, 128, (classes, 1, PIXELS, PIXELS), np.uint8)
    labels = np.arange(count) % classes
    images = stream.integers(0, 128, (count, 1, PIXELS, PIXELS), np.uint8)
    images += patterns[labels]
    return torch.from_numpy(images), torch.from_numpy(labels)


def make_parts(point: Point) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images and labels of the three parts of a data set."""
    stream = np.random.default_rng(0)
    counts = {"train": point.images, "test": point.images // 5, "validation": point.images}
    return {name: make_images(count, point.classes, stream) for name, count in counts.items()}


def in_memory(point: Point) -> data.Dataset:
    """Return the data set of a point."""
    names = tuple(map(str, range(point.classes)))
    parts = {name: data.ImageSet(*part, classes=names) for name, part in make_parts(point).items()}
    return data.Dataset("generated", preprocess=data.Preprocess(size=PIXELS), **parts)


def write_folder(point: Point, folder: Path) -> None:
    """Write the data set of a point as an image folder."""
    for part, (images, labels) in make_parts(point).items():
        for label in range(point.classes):
            (folder / part / str(label)).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(images[:, 0].numpy(), labels.tolist(), strict=True)):
            Image.fromarray(image).save(folder / part / str(label) / f"{index:06d}.png", compress_level=1)


def tenth(dataset: data.Dataset) -> tasks.Split:
    """Return the split that forgets a tenth of every class."""
    rounds = torch.arange(len(dataset.train)) // dataset.num_classes
    return tasks.index_split(dataset, (rounds % 10 == 0).nonzero().squeeze(1))


def train_once(phases: Phases, point: Point, dataset: data.Dataset) -> nn.Module:
    """Train the network for an epoch, as the part "training"."""
    torch.manual_seed(0)
    network = Network(point.width, point.classes)
    with phases.measured("training"):
        images = data.TrainingSet(dataset.train)
        fit(network, images, dataset.preprocess, TrainConfig(epochs=1), device=CPU, seed=0, name="initial")
    return network


def whole_run(point: Point, folder: Path) -> dict[str, Any]:
    """Measure a run on data in memory: the parts by name, as of ``phases`` in metrics.json, and files."""
    phases = Phases(CPU)
    dataset = in_memory(point)
    with phases.measured("data"):
        dataset.fingerprint()
        split = tenth(dataset)
        split.manifest()
        assert split.validation_halves is not None
    network = train_once(phases, point, dataset)
    settings = {"epochs": 1, "retrain.epochs": 1}
    run = pymixunlearn.unlearn(network, dataset, split, "mixunlearn", folder, settings=settings, device="cpu")
    RunPhases.latest.rest.close()
    own = RunPhases.latest.to_dict()
    with phases.measured("prune-reset"):
        recipe = Recipe(TrainConfig(epochs=1), RetrainConfig(epochs=1))
        PruneReset(share=0.95, epochs=1).unlearn(network, split, device=CPU, seed=0, recipe=recipe)
    found = {**phases.to_dict(), "mixunlearn": own.pop("unlearned"), **own}
    found["acceptance"]["note"] = run.record["acceptance"]["unlearned"]["decision"]
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".json", ".csv", ".pt", ".safetensors"):
            found[f"file {path.relative_to(folder).as_posix()}"] = {"file_bytes": path.stat().st_size}
    return found


def from_disk(point: Point, folder: Path) -> dict[str, Any]:
    """Measure the loading of an image folder that is streamed, and an epoch on it."""
    write_folder(point, folder)
    phases = Phases(CPU)
    with phases.measured("data"):
        dataset = data.load(str(folder), stream=True)
        dataset.fingerprint()
    train_once(phases, point, dataset)
    return phases.to_dict()


class Worker:
    """What a process of the pool does: an epoch on some of the data that it was sent, as a shadow model would."""

    def __init__(self, dataset: data.Dataset) -> None:
        """Take the data, which go to every process."""
        self.dataset = dataset

    def __call__(self, task: int, send: Any) -> int:
        """Train and return this process's number."""
        few = data.TrainingSet(self.dataset.train.subset(torch.arange(1000)))
        fit(Network(WIDTHS[0], 10), few, self.dataset.preprocess, TrainConfig(epochs=1), device=CPU, seed=task)
        return os.getpid()


def pool(point: Point) -> dict[str, Any]:
    """Measure a pool with a task for each process: their seconds in all, and their memory while all of them wait.

    "pool" is the proportional set size, in which a page that several processes share counts once in all; "pool,
    resident" the sum of the resident sets.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with ProcessPool(Worker(in_memory(point)), point.size, threads=1) as workers:
        numbers = {done.result() for _, done in workers.run(range(point.size))}
        assert len(numbers) == point.size
        proportional, resident = 0, 0
        for number in numbers:
            lines = (line.split() for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()[1:])
            sizes = {cells[0]: int(cells[1]) * 1024 for cells in lines}
            proportional, resident = proportional + sizes["Pss:"], resident + sizes["Rss:"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "pool": {"seconds": seconds, "start_bytes": 0, "peak_bytes": proportional},
        "pool, resident": {"start_bytes": 0, "peak_bytes": resident},
    }


def measure_here(point: Point) -> dict[str, Any]:
    """Measure a point in this process, with a cache of its own."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["PYMIXUNLEARN_CACHE"] = str(Path(place, "cache"))
        if point.axis == "processes":
            return pool(point)
        measured = from_disk if point.axis == "images on disk" else whole_run
        measured(Point("images", SMALL), Path(place, "small"))
        idle = Phases(CPU)
        with idle.measured("idle"):
            made = Path(place, "made")
        found = measured(point, made)
    bytes_of = {"idle_bytes": idle.to_dict()["idle"]["start_bytes"]}
    return {name: {**part, **(bytes_of if "peak_bytes" in part else {})} for name, part in found.items()}


def measure_apart(point: Point) -> dict[str, Any]:
    """Measure a point in a process of its own, a fork of this one; a pool starts processes itself."""
    if point.axis == "processes":
        return measure_here(point)
    with multiprocessing.get_context("fork").Pool(1) as apart:
        return apart.apply(measure_here, (point,))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file; rows are appended.")
@click.option("--axis", type=click.Choice([*AXES]), multiple=True, help="Only these axes.")
def main(out: Path, axis: tuple[str, ...]) -> None:
    """Measure every point that the file lacks."""
    results = Rows(out, COLUMNS)
    torch.set_num_threads(1)
    machine = asdict(describe_machine(CPU))
    missing = [point for point in points() if not results.find(**point._asdict()) and point.axis in (axis or AXES)]
    with by_the_processor():
        if missing:
            measure_here(Point("images", SMALL))  # what it imports, its forks have
        for point in missing:
            for part, found in measure_apart(point).items():
                row = {**point._asdict(), "part": part, **found, **machine}
                row = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
                results.add({name: row.get(name) for name in COLUMNS})
                click.echo({name: row.get(name) for name in COLUMNS[:10]})


if __name__ == "__main__":
    main()
