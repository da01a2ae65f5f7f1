"""Start-up times of commands: medians of alternating runs, beside ``import torch`` in the same run.

::

    python benchmarks/entry.py [ROUNDS]

Ratios hold on a busy machine too, since every round times everything once.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from statistics import median

PYTHON = [sys.executable]
CLI = [sys.executable, "-m", "mixunlearn_cli"]
CASES = {
    "import torch": [*PYTHON, "-c", "import torch"],
    "import pymixunlearn.ops": [*PYTHON, "-c", "import pymixunlearn.ops"],
    "unlearn --help": [*CLI, "unlearn", "--help"],
    "compare --help": [*CLI, "compare", "--help"],
    "unlearn --method neggrad --help": [*CLI, "unlearn", "--method", "neggrad", "--help"],
    "list methods": [*CLI, "list", "methods"],
    "a wrong option": [*CLI, "unlearn", "--methodd", "mixunlearn"],
    "a wrong name": [*CLI, "unlearn", "--method", "mixunlern"],
    "info": [*CLI, "info"],
}


def timed(command: list[str]) -> tuple[float, float]:
    """Return the seconds on the clock and of the processor that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False, env={**os.environ, "COLUMNS": "80"})
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    """Print a line per case."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, command in CASES.items():
            found[name].append(timed(command))
    walls, processor = ({name: median(pair[of] for pair in pairs) for name, pairs in found.items()} for of in (0, 1))
    base = "import torch"
    print(f"medians of {rounds} alternating rounds: seconds, of the processor, and of import torch's")
    for name in CASES:
        share = processor[name] / processor[base]
        print(f"{name:<34} {walls[name]:6.2f} {processor[name]:6.2f} {share:6.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
