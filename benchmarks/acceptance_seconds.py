"""Seconds of the acceptance test of one model beside those of one epoch of training.

    OMP_NUM_THREADS=1 python -m benchmarks.acceptance_seconds --data-dir DATA --out FILE.csv

On the data and draws of :mod:`benchmarks.acceptance`, draw 0. Seconds are those of the processor, the smallest of
three. The model that is tested is not trained, which changes no time: both parts pass, so that both are made.
"decision" is the test as searches and ``--stop accepted`` make it, "whole" with all that is told beside the decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.acceptance import BEDS, CPU, TASKS, load, split_of
from benchmarks.rows import Rows
from pymixunlearn import models
from pymixunlearn.benchmarking.machine import describe_machine
from pymixunlearn.evaluation import acceptance
from pymixunlearn.training import defaults_for, train

COLUMNS = ("model", "dataset", "task", "what", "seconds", "epochs_of_training", "device", "threads", "versions")


def smallest(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the processor's seconds of the quickest of some repeats."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file; rows are appended.")
def main(data_dir: Path, out: Path) -> None:
    """Measure every network and task."""
    torch.set_num_threads(1)
    results = Rows(out, COLUMNS)
    for bed in BEDS:
        dataset = load(bed, data_dir)
        shape = {"in_channels": dataset.in_channels, "image_size": dataset.image_size}
        model, trained = (models.build(bed.model, num_classes=dataset.num_classes, **shape) for _ in range(2))
        config = replace(defaults_for(bed.model, "initial"), epochs=1)
        epoch = smallest(partial(train, trained, dataset.train, dataset.preprocess, config, device=CPU))
        for task in TASKS:
            split = split_of(dataset, task, 0)
            for what, only in (("decision", True), ("whole", False)):
                seconds = smallest(partial(acceptance, model, split, device=CPU, decision_only=only))
                row = {"model": bed.model, "dataset": bed.dataset, "task": task, "what": what}
                row |= {"seconds": f"{seconds:.2f}", "epochs_of_training": f"{seconds / epoch:.2f}"}
                results.add(row | asdict(describe_machine(CPU)))
                click.echo(f"{bed.model} {task} {what}: {seconds:.2f} s, {seconds / epoch:.2f} epochs")


if __name__ == "__main__":
    main()
