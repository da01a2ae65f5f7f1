"""Clusters of Ray on this machine, and a machine of one that is lost in the middle of the work."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pymixunlearn.experiments import (
    AuditInputs,
    CompareInputs,
    ComparisonOutcome,
    Observer,
    UnlearnInputs,
    resolve_audit,
    resolve_comparison,
    resolve_unlearning,
    run_audit,
    run_comparison,
    run_unlearning,
)
from pymixunlearn.experiments.common.placement import require_ray

METHODS = ("neggrad", "laf", "mixunlearn-aware")
QUIET = {"include_dashboard": False, "object_store_memory": 2**28}


@contextmanager
def two_machines() -> Iterator[Any]:
    """Give a cluster of two machines with a CPU each, beside the one without that the caller is connected to."""
    require_ray()
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})
    before = os.environ.get("RAY_ADDRESS")
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **QUIET)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        if before is None:
            os.environ.pop("RAY_ADDRESS", None)
        else:
            os.environ["RAY_ADDRESS"] = before
        cluster.shutdown()


class Killer(Observer):
    """Observer that kills a machine of a cluster as soon as both are at work.

    Attributes:
        killed: Whether it has.
        notes: What it was told.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.killed = False
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        import ray

        if not self.killed and ray.is_initialized() and not ray.available_resources().get("CPU", 0):
            self.killed = True
            self._cluster.remove_node(sorted(self._cluster.worker_nodes, key=str)[0], allow_graceful=False)


OWN = ("seconds", "times", "chain", "versions", "ran_on", "command_line", "phases", "peak_memory")
"""What differs between two equal runs: the time, the random key of a chain, and where it was."""


def result(value: Any) -> Any:
    """Return a record without what differs between two equal runs."""
    if isinstance(value, dict):
        kept = {key: result(one) for key, one in value.items() if key not in OWN}
        if isinstance(kept.get("hashes"), dict):
            kept["hashes"].pop("model.safetensors", None)  # its header holds the chain
        return kept
    return [result(one) for one in value] if isinstance(value, list) else value


def use_cache(folder: Path) -> None:
    """Have this process use another cache."""
    os.environ["PYMIXUNLEARN_CACHE"] = str(folder)


def audited(
    run: Path, out: Path, *, shadow_models: int, epochs: int | None, observer: Observer | None = None, **fields: Any
) -> dict[str, Any]:
    """Audit a run and return the record."""
    fields = {"shadow_models": shadow_models, "epochs": epochs, "device": "cpu", **fields}
    return run_audit(resolve_audit(AuditInputs(run, **fields)), out, observer=observer).record


def compared(
    out: Path, settings: dict[str, Any] | None, *, observer: Observer | None = None, **fields: Any
) -> ComparisonOutcome:
    """Compare three methods on the digits."""
    inputs = CompareInputs(METHODS, (0,), device="cpu", settings=settings or {}, **fields)
    return run_comparison(resolve_comparison(inputs), out, threads=1, observer=observer)


def main() -> None:
    """Lose a machine in the middle of a full audit and of a full comparison, and say whether that changed anything."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("command", choices=("audit", "compare"))
    parser.add_argument("--shadow-models", type=int, default=16)
    parser.add_argument("--epochs", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        use_cache(root / "here")
        if asked.command == "audit":
            few = (
                {} if asked.epochs is None else {f"{kind}epochs": asked.epochs for kind in ("", "initial.", "retrain.")}
            )
            plan = resolve_unlearning(UnlearnInputs("neggrad", device="cpu", settings=few))
            run = run_unlearning(plan, root / "run").folder
            do: Any = partial(audited, run, shadow_models=asked.shadow_models, epochs=asked.epochs)
        else:
            names = ("initial", "retrain", *METHODS)
            epochs = asked.epochs
            do = partial(compared, settings=None if epochs is None else {f"{name}.epochs": epochs for name in names})
        started = time.perf_counter()
        here = do(out=root / "local")
        print(f"local: {time.perf_counter() - started:.1f} s")
        use_cache(root / "there")
        with two_machines() as cluster:
            killer = Killer(cluster)
            started = time.perf_counter()
            there = do(out=root / "ray", on="ray", observer=killer)
            print(f"on two machines, one of them lost: {time.perf_counter() - started:.1f} s")
        for note in killer.notes:
            if "was lost" in note:
                print(note)
        records = [one if isinstance(one, dict) else one.record for one in (here, there)]
        assert killer.killed, "no machine was lost"
        print("equal" if result(records[0]) == result(records[1]) else "different")


if __name__ == "__main__":
    main()
