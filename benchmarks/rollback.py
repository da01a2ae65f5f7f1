"""Rollback of MixUnlearn beside the same runs without it, on sound settings and on ones that ruin the model.

    OMP_NUM_THREADS=1 python -m benchmarks.rollback --data-dir DATA --out benchmarks/results/rollback-cpu.csv

DATA holds FashionMNIST/raw. A row that is in the file is not measured again, so the script can be killed and repeated.

Written before the first run, but for the last paragraph. What it must show for the rollback to be on by default, in
label-agnostic runs and in label-aware ones (where the margin is 2 points and the lead of the held-out images over
unseen ones) each by itself:

1. The shipped settings ("sound") are never rolled back.
2. Where the settings ruin the model (tau_real 2, omega 10, samples), the test accuracy on the classes of D_f is at
   least what it is without the rollback.
3. In the sound runs the images that are held out cost at most 1 point of test accuracy, on average over the runs.

Tasks: 40 % of the samples of classes 5 to 9 (seeds 3 and 4), and class 0 (seed 3). Network ``cnn`` on
fashion-mnist@10000, 5 passes for samples, the preset's for the class.

What it showed is in docs/forgetting.md. By it the rollback is on in label-agnostic runs that forget single samples, and
nowhere else unless it is asked for.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from pymixunlearn import MixUnlearn, data, tasks
from pymixunlearn.benchmarking.machine import describe_machine
from pymixunlearn.data import TrainingSet
from pymixunlearn.evaluation import accuracy, predict_logits
from pymixunlearn.evaluation.intervals import of_forgotten_classes
from pymixunlearn.experiments.common.presets import find_preset
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.stages import train_initial
from pymixunlearn.tasks import Split
from pymixunlearn.training import defaults_for

CPU = torch.device("cpu")
CELLS = (("data", 3), ("class", 3), ("data", 4))
RUINOUS = {"tau_real": 2.0, "omega": 10.0}
COLUMNS = (
    "dataset", "task", "seed", "labels", "settings", "rollback", "rolled_back", "step", "good_step", "held_out",
    "margin", "test_own", "test_others", "initial_own", "initial_others", "seconds", "looks_seconds",
    "device", "threads", "versions",
)  # fmt: skip


def runs(task: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the key of every run of a cell."""
    for labels in ("agnostic", "aware"):
        for settings in ("sound", "ruinous") if task == "data" else ("sound",):
            for rollback in (True, False):
                yield {"task": task, "seed": seed, "labels": labels, "settings": settings, "rollback": rollback}


def in_parts(model: torch.nn.Module, split: Split) -> tuple[float, float]:
    """Return the test accuracy on the classes of D_f and on the others."""
    own, targets = of_forgotten_classes(split), split.test.targets.cpu()
    logits = predict_logits(model, split.test, split.preprocess, device=CPU)
    found = accuracy(logits[own], targets[own]), accuracy(logits[~own], targets[~own])
    assert found[0] is not None and found[1] is not None  # there are test images of all classes
    return found[0], found[1]


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file; rows are appended.")
def main(data_dir: Path, out: Path) -> None:
    """Measure every run whose row is missing."""
    torch.set_num_threads(1)
    known = list(csv.DictReader(out.open(encoding="utf-8"))) if out.exists() else []
    dataset = data.load("fashion-mnist@10000", data_dir=data_dir, download=False)
    config = defaults_for("cnn", "initial")
    architecture = {"name": "cnn", "num_classes": 10, "in_channels": 1, "image_size": dataset.image_size}
    for task, seed in CELLS:
        missing = [
            key
            for key in runs(task, seed)
            if not any(all(row[name] == str(value) for name, value in key.items()) for row in known)
        ]
        if not missing:
            continue
        split = tasks.class_split(dataset, [0]) if task == "class" else tasks.data_split(dataset, seed=seed)
        initial = train_initial(
            architecture, TrainingSet(dataset.train), dataset.preprocess, config, device=CPU, seed=seed,
            observer=Observer(),
        ).model  # fmt: skip
        before = in_parts(initial, split)
        for key in missing:
            aware = key["labels"] == "aware"
            preset = find_preset("mixunlearn", dataset.name, task, label_aware=aware)
            settings = {**(preset.settings if preset else {}), "label_aware": aware, "rollback": key["rollback"]}
            settings |= {"epochs": 5} if task == "data" else {}
            settings |= RUINOUS if key["settings"] == "ruinous" else {}
            started = time.process_time()
            result = MixUnlearn(**settings).unlearn(initial, split, device=CPU, seed=seed)
            seconds = time.process_time() - started
            watched, after = result.rollback, in_parts(result.model, split)
            row = {"dataset": dataset.name, **key, "seconds": f"{seconds:.1f}", **asdict(describe_machine(CPU))}
            accuracies = zip(
                ("test_own", "test_others", "initial_own", "initial_others"), (*after, *before), strict=True
            )
            row |= {name: f"{value:.2f}" for name, value in accuracies}
            if watched is not None:
                row |= {"rolled_back": watched.rolled_back, "step": watched.step, "good_step": watched.good_step}
                row |= {"held_out": watched.samples, "margin": f"{watched.margin:.2f}"}
                row |= {"looks_seconds": f"{watched.to_dict()['seconds']:.2f}"}
            new = not out.exists()
            with out.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
            click.echo(", ".join(f"{name} {row.get(name, '-')}" for name in COLUMNS[1:17]))


if __name__ == "__main__":
    main()
