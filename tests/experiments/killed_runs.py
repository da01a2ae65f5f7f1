"""Program that kills a small run before each of its file operations, one after the other, and looks at what is left.

    python killed_runs.py FOLDER train|unlearn STEP [FIRST]

With a STEP above 1 only every such operation is tried, from the FIRST on. Every attempt is a forked process with
folders of its own. Prints what went wrong, and last how many operations there are.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pymixunlearn import data, files
from pymixunlearn.experiments import UnlearnInputs, resolve_training, resolve_unlearning, run_training, run_unlearning
from pymixunlearn.experiments.common import forget_history
from pymixunlearn.experiments.common.given import GivenData, GivenSplit
from pymixunlearn.experiments.common.inputs import TrainInputs, VerifyInputs
from pymixunlearn.experiments.unlearn.figures import Figures
from pymixunlearn.experiments.verify import run_verification

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MADE_BY_RUN = ("times", "seconds", "phases", "peak_memory", "versions")
STATES = {"run.json", "metrics.json", ".lock"}
"""What may lie in the unfinished part of a folder that counts as finished: nothing of the model."""


def images() -> data.Dataset:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 2
    noise = torch.rand(2, 40, 1, 8, 8, generator=generator) * 100
    train, test = (noise + 100 * targets[:, None, None, None]).to(torch.uint8)
    return data.from_tensors(train, targets, test, targets, classes=("a", "b"))


def small_run(command: str) -> Callable[[Path], dict[str, Any]]:
    """Return what does the run in a folder: with trainings, snapshots, both caches and everything that is published."""
    dataset = images()
    given = GivenData(dataset=dataset.name, loaded=dataset)
    if command == "train":
        training = resolve_training(TrainInputs(data=given, device="cpu", settings={"epochs": 2}))
        return lambda out: run_training(training, out).record

    def drawn(self: Figures, folder: Path, **options: Any) -> None:  # matplotlib takes seconds
        for name in ("losses", "classes"):
            files.write_atomically(folder / f"{name}.svg", b"<svg/>")

    Figures.save = drawn  # type: ignore[method-assign]
    # A key of its own would give every run another chain of requests, and so another record.
    forget_history.new_key = lambda: bytes(32)  # type: ignore[attr-defined]
    settings = {"epochs": 2, "initial.epochs": 2, "retrain.epochs": 2}
    unlearning = resolve_unlearning(
        UnlearnInputs(method="neggrad", data=given, split=GivenSplit(chosen=(1, 2)), device="cpu", settings=settings)
    )
    return lambda out: run_unlearning(unlearning, out).record


class Operations:
    """Counts the operations of this process on files below a folder; ends it before a certain one."""

    def __init__(self, folder: Path, deadly: int) -> None:
        self.folder, self.deadly, self.count = str(folder), deadly, 0
        sys.addaudithook(self.hear)
        self.sync = os.fsync
        os.fsync = self.synced  # type: ignore[assignment]
        Path.write_bytes = lambda path, content: self.written(path, bytes(content))  # type: ignore

    def next(self) -> None:
        self.count += 1
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            counts = bool(arguments[2] & WRITES)
        else:
            counts = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        # Names below an open folder are relative: those of shutil.rmtree.
        if counts and (str(arguments[0]).startswith(self.folder) or not os.path.isabs(str(arguments[0]))):
            self.next()

    def synced(self, number: int) -> None:
        self.next()
        self.sync(number)

    def written(self, path: Path, content: bytes) -> int:
        half = len(content) // 2
        with path.open("wb") as file:
            file.write(content[:half])
            file.flush()
            self.next()
            return half + file.write(content[half:])


def attempt(run: Callable[[Path], dict[str, Any]], folder: Path, deadly: int = 0) -> tuple[int, dict[str, Any], int]:
    """Run in a forked process; returns its status, the run's record and how many operations it made."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        os.environ["PYMIXUNLEARN_CACHE"] = str(folder / "cache")
        operations = Operations(folder, deadly)
        record = run(folder / "run")
        with os.fdopen(writing, "w") as pipe:
            json.dump({"record": record, "operations": operations.count}, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = json.loads(pipe.read() or '{"record": {}, "operations": 0}')
    return os.waitpid(process, 0)[1], without_times(told["record"]), told["operations"]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in MADE_BY_RUN}


def listed(folder: Path) -> set[str]:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.endswith(".lock")}


def faults(run: Callable[[Path], dict[str, Any]], folder: Path, deadly: int, expected: dict[str, Any]) -> list[str]:
    """Kill a run and give the command again; return what is not as it should be."""
    found = []
    status, _, _ = attempt(run, folder, deadly)
    if status != signal.SIGKILL:
        found.append(f"was to be killed, ended with {status}")
    out = folder / "run"
    if (out / "metrics.json").exists():
        if without_times(json.loads((out / "metrics.json").read_text())) != expected["record"]:
            found.append("the folder counts as finished with other metrics")
        left = {path.name for path in out.glob(".partial/*")} - STATES
        if left:
            found.append(f"the folder counts as finished and holds {left}")
    status, record, _ = attempt(run, folder)
    if status != 0:
        found.append(f"the second attempt ended with {status}")
    if record != expected["record"]:
        found.append("the second attempt gave another record")
    if listed(folder) != expected["files"]:
        found.append(f"other files are there: {listed(folder) ^ expected['files']}")
    if "report.json" in expected["names"]:
        wrong = [check.subject for check in run_verification(VerifyInputs(out, hashes_only=True)) if not check.holds]
        found += [f"verify: {subject}" for subject in wrong]
    return found


def main(folder: Path, command: str, step: int, first: int = 1) -> None:
    torch.set_num_threads(1)
    run = small_run(command)
    os.environ["PYMIXUNLEARN_CACHE"] = str(folder / "warm" / "cache")
    run(folder / "warm" / "run")  # for what is imported late: in every attempt it would take a second
    whole = folder / "whole"
    status, record, count = attempt(run, whole)
    assert status == 0, "the run fails without being killed"
    expected = {"record": record, "files": listed(whole), "names": os.listdir(whole / "run")}
    for deadly in range(first, count + 1, step):
        place = folder / str(deadly)
        for fault in faults(run, place, deadly, expected):
            print(f"operation {deadly} of {count}: {fault}", flush=True)
        shutil.rmtree(place)
    print(count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
