"""Clusters of Ray on this machine, and a machine of one that is lost in the middle of the work."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymixunlearn.experiments import Observer
from pymixunlearn.experiments.common.placement import require_ray

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
