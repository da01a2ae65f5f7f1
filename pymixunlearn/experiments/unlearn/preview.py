"""Preview of a run, before it does anything: what is forgotten, what is trained, and an estimate of time and memory.

Nothing is written into the run folder or into the cache of trained models. Images are decoded into their cache, as for
a run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pymixunlearn.data import ImageSet
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import RunFolder
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.unlearn.estimate import Phase, ends_early, estimate
from pymixunlearn.experiments.unlearn.plan import Plan
from pymixunlearn.experiments.unlearn.run import default_folder
from pymixunlearn.tasks import Split


@dataclass(frozen=True)
class Forgotten:
    """What a run forgets.

    Attributes:
        classes: Of every class with forgotten samples: its name, how many are forgotten, and of how many.
        files: Paths of the forgotten training images; empty where the images are no files.
        remaining: Number of training samples in D_r.
        before: Number of training samples that the model forgot before; they are in neither set.
        removed: For "test" and "validation", the images that are taken out there: paths, or indices as text.
        copies: For "retain", "test" and "validation", exact copies of forgotten images that stay there: likewise.
    """

    classes: tuple[tuple[str, int, int], ...]
    files: tuple[str, ...]
    remaining: int
    before: int
    removed: dict[str, tuple[str, ...]]
    copies: dict[str, tuple[str, ...]]

    @property
    def count(self) -> int:
        """Number of training samples to forget."""
        return sum(count for _, count, _ in self.classes)

    @classmethod
    def of(cls, split: Split) -> Forgotten:
        """Read it from a split."""
        # As loaded: task "noisy" has given D_f other labels since.
        loaded = split.dataset if split.origin is None else split.origin
        targets = loaded.train.targets
        every = torch.bincount(targets, minlength=split.num_classes).tolist()
        forgotten = torch.bincount(targets[split.forget_indices], minlength=split.num_classes).tolist()
        removed = {"test": loaded.test, "validation": loaded.validation}
        copies = {"retain": split.train, "test": split.test, "validation": split.dataset.validation}
        return cls(
            tuple(
                (name, count, every[label])
                for label, (name, count) in enumerate(zip(loaded.train.classes, forgotten, strict=True))
                if count
            ),
            () if split.train.paths is None else _named(split.train, split.forget_indices),
            len(split.retain_indices),
            0 if split.excluded_indices is None else len(split.excluded_indices),
            {part: _named(removed[part], indices) for part, indices in split.removed.items()},
            {part: _named(copies[part], indices) for part, indices in split.copies.items()},
        )


def _named(images: ImageSet | None, indices: Tensor) -> tuple[str, ...]:
    paths = None if images is None else images.paths
    return tuple(str(index) if paths is None else paths[index] for index in indices.tolist())


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Attributes:
        plan: The run.
        forgotten: What it would forget.
        phases: What it would do, in order, with the time of each.
        retrain_seconds: What Retrain takes, estimated likewise, whether the run has one or not; None where it is not
            known.
        memory: Most main memory of this process so far in bytes, data and libraries included; None where the system
            does not tell.
        device_memory: Most memory of tensors on the GPU in the steps that were taken; None without one.
        folder: Where the run would be written.
        state: Whether the folder is "new", or holds this run "started" or "finished".
    """

    plan: Plan
    forgotten: Forgotten
    phases: tuple[Phase, ...]
    retrain_seconds: float | None
    memory: int | None
    device_memory: int | None
    folder: Path
    state: Literal["new", "started", "finished"]

    @property
    def at_most(self) -> bool:
        """Whether the method may end before its last step, so that the estimate is an upper bound."""
        return ends_early(self.plan)

    @property
    def seconds(self) -> float | None:
        """The estimate for all phases together; None where one is not known."""
        times = [phase.seconds for phase in self.phases]
        return None if None in times else sum(seconds for seconds in times if seconds is not None)


def preview_unlearning(plan: Plan, out: Path | None = None, *, observer: Observer | None = None) -> DryRun:
    """Say what a plan would do, and estimate by a few steps of it how long it takes and how much memory.

    Args:
        plan: The run, from :func:`pymixunlearn.experiments.unlearn.plan.resolve_unlearning`.
        out: The run folder, which is only looked at; by default that of ``run_unlearning``.
        observer: Receives when the measuring begins and ends.

    Raises:
        UserError: The folder holds another run, or the method cannot unlearn this model.
    """
    folder = default_folder(plan) if out is None else out
    found = RunFolder(folder, plan.identity, look_only=True)
    watcher = Observer() if observer is None else observer
    gpu = plan.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(plan.device)
    watcher.phase_started("measuring", None)
    with suited_threads(plan.split.dataset, plan.device):
        phases, retrain_seconds = estimate(plan)
    watcher.phase_finished("measuring", "a few steps of each training")
    device_memory = torch.cuda.max_memory_allocated(plan.device) if gpu else None
    return DryRun(
        plan,
        Forgotten.of(plan.split),
        phases,
        retrain_seconds,
        _peak_memory(),
        device_memory,
        folder,
        "finished" if found.finished else "started" if found.started else "new",
    )


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
