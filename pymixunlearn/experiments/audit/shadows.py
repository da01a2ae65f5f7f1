"""Shadow models: trained like the model under audit, on other halves of its forgotten and of unseen samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.evaluation import predict_logits
from pymixunlearn.evaluation.audit import ShadowMargins, ShadowPlan, logit_margins
from pymixunlearn.evaluation.audit.margins import Array
from pymixunlearn.experiments.common.parallel_tasks import run_tasks
from pymixunlearn.experiments.common.placement import Placement
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.ray_worker import Place
from pymixunlearn.experiments.common.stages import train_initial, train_retrain, unlearn_cached
from pymixunlearn.methods import Method, Recipe
from pymixunlearn.methods.function import FunctionMethod
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import TrainConfig


@dataclass(frozen=True, eq=False)
class Shadows:
    """The work of an audit; calling it makes one shadow model, or takes it from the cache of trained models.

    Attributes:
        plan: Who sees what.
        architecture: The arguments of ``models.build``.
        initial: How to train the initial models.
        method: What they unlearn by; None for the audit of a model that never unlearned.
        retrain: How to train the models that never saw a candidate; None where no attack needs them.
        device: Where to compute.
        seed: Fixes the models.
        network: A network of the architecture, where ``models.build`` does not know it.
        recipe: How the models are trained, Retrain included, for methods that train likewise.
        with_initial: Whether the margins before unlearning are wanted too.
    """

    plan: ShadowPlan
    architecture: Mapping[str, Any]
    initial: TrainConfig
    method: Method | None
    retrain: TrainConfig | None
    device: torch.device
    seed: int
    network: nn.Module | None = None
    recipe: Recipe | None = None
    with_initial: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """What is done for every shadow model, as phases are called."""
        unlearn = () if self.method is None else ("unlearn",)
        retrain = () if self.retrain is None else ("retrain",)
        return ("initial", *unlearn, *retrain)

    def __call__(self, task: int, report: Callable[[float], None]) -> ShadowMargins:
        """Return the audited samples' margins ``[S]`` under shadow model ``task`` and what is made beside it."""
        split = self.plan.shadow_split(task)
        seed, other_seed = (derive_seed(self.seed, "audit", kind, task) for kind in ("shadow", "retrained"))
        observer = _Stages(self.stages, report)
        shadow = train_initial(
            self.architecture,
            split.training_set,
            split.preprocess,
            self.initial,
            device=self.device,
            seed=seed,
            observer=observer,
            of=split,
            network=self.network,
        ).model
        audited = self.plan.audited()
        initial = margins_of(shadow, audited, split.preprocess, self.device) if self.with_initial else None
        if isinstance(self.method, FunctionMethod):
            # Nothing tells whether a function does today what it did yesterday: no cache.
            shadow = self.method.unlearn(shadow, split, device=self.device, seed=seed).model
            observer.phase_finished("unlearn", self.method.name)
        elif self.method is not None:
            shadow = unlearn_cached(
                self.method, shadow, split, device=self.device, seed=seed, observer=observer, recipe=self.recipe
            ).model
        margins = margins_of(shadow, audited, split.preprocess, self.device)
        if self.retrain is None:
            return ShadowMargins(margins, None, initial)
        # Another seed: the method may retrain, too, and the two models are to differ by chance then.
        retrained = train_retrain(
            shadow, split, self.retrain, device=self.device, seed=other_seed, observer=observer
        ).model
        return ShadowMargins(margins, margins_of(retrained, audited, split.preprocess, self.device), initial)


def make_shadows(
    work: Shadows,
    *,
    jobs: int,
    observer: Observer,
    placement: Placement | None = None,
    ran_on: Callable[[Place], None] = lambda place: None,
) -> ShadowMargins:
    """Make all shadow models, ``jobs`` at a time, and return the margins under them.

    Args:
        work: What makes one.
        jobs: How many at a time.
        observer: Receives the progress.
        placement: Where; None is this machine.
        ran_on: Called with the place of every one that was made by a task of Ray.

    Raises:
        UserError: A training failed, or a process ended before its work was done.
    """
    count = len(work.plan.seen)
    observer.phase_started("shadows", 100 * count)

    def progress(shares: list[float]) -> None:
        finished = sum(share >= 1.0 for share in shares)
        observer.phase_advanced("shadows", int(100 * sum(shares)), f"{finished} of {count} shadow models")

    where: dict[str, Any] = {"placement": placement, "device": str(work.device), "note": observer.note}
    made = run_tasks(work, count, jobs=jobs, progress=progress, ran_on=ran_on, **where)
    observer.phase_finished("shadows", f"{count} shadow models")
    retrained = [one.retrained for one in made if one.retrained is not None]
    initial = [one.initial for one in made if one.initial is not None]
    return ShadowMargins(
        np.stack([one.shadows for one in made]),
        np.stack(retrained) if retrained else None,
        np.stack(initial) if initial else None,
    )


def margins_of(model: nn.Module, images: ImageSet, preprocess: Preprocess, device: torch.device) -> Array:
    """Return the margins of ``images`` under ``model``, ``[len(images)]``."""
    return logit_margins(predict_logits(model.to(device), images, preprocess, device=device), images.targets)


class _Stages(Observer):
    """Observer that turns the phases of one shadow model into the share of it that is done."""

    def __init__(self, stages: tuple[str, ...], report: Callable[[float], None]) -> None:
        self._stages = stages
        self._report = report
        self._total: int | None = None

    def phase_started(self, phase: str, total: int | None, done: int = 0) -> None:
        self._total = total

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        if self._total:
            self._report_share(phase, min(1.0, done / self._total))

    def phase_finished(self, phase: str, detail: str) -> None:
        self._report_share(phase, 1.0)

    def _report_share(self, phase: str, share: float) -> None:
        self._report((self._stages.index(phase) + share) / len(self._stages))
