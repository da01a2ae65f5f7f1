"""What torchrun with a single process costs a training: the same one with it and without it, in turn.

Each training is a command of its own, with a cache of its own. What is compared is the processor time of its epochs, in
the process that trains: on a machine with other work the clock says more of that work. The start is left out::

    python -m benchmarks.torchrun --epochs 30 --repeats 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from pymixunlearn.training.loop import run_epochs

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
MARK = "processor seconds of the epochs:"


def train(arguments: list[str]) -> None:
    """Run ``mixunlearn-cli``, and print the processor time of every loop of epochs."""
    from mixunlearn_cli.main import main

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        found = run_epochs(*args, **kwargs)
        print(MARK, time.process_time() - start, flush=True)
        return found

    sys.argv = ["mixunlearn-cli", *arguments]
    with mock.patch("pymixunlearn.training.supervised.run_epochs", timed):
        main()


def seconds(launcher: tuple[str, ...], epochs: int) -> float:
    """Return the processor time of the epochs of one training."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            *launcher,
            "-m",
            "benchmarks.torchrun",
            "train",
            "--dataset",
            "digits",
            "--device",
            "cpu",
        ]
        command += ["--set", f"epochs={epochs}", "--out", str(Path(folder, "run"))]
        environment = {**os.environ, "PYMIXUNLEARN_CACHE": str(Path(folder, "cache")), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(MARK))
    return float(line.removeprefix(MARK))


def compare(epochs: int, repeats: int) -> None:
    """Print the least and the median of the repeats of both."""
    launchers = {"without torchrun": (), "torchrun, one process": TORCHRUN}
    found: dict[str, list[float]] = {name: [] for name in launchers}
    for number in range(repeats):
        for name in list(launchers)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(seconds(launchers[name], epochs))
    for name, values in found.items():
        print(f"{name}: least {min(values):.2f} s, median {statistics.median(values):.2f} s")
    plain, beside = found.values()
    least, middle = min(beside) / min(plain), statistics.median(beside) / statistics.median(plain)
    print(f"with torchrun over without: least {least:.3f}, median {middle:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[1:])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--epochs", type=int, default=30, help="Passes over the digits in a training.")
        parser.add_argument("--repeats", type=int, default=5, help="Trainings of each kind.")
        options = parser.parse_args()
        compare(options.epochs, options.repeats)
