"""The runs that a combination of settings is: one for each seed, here or as tasks of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import AnswerIsNo
from pymixunlearn.experiments.common.identity import identity_hash
from pymixunlearn.experiments.common.progress import Observer, Summary
from pymixunlearn.experiments.common.ray_pool import RayPool
from pymixunlearn.experiments.common.run_folder import RunFolder
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.tune.plan import TuningPlan
from pymixunlearn.experiments.tune.search import Search
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.experiments.unlearn.remote import RemoteRun, prepare_remote, receive_run, run_remotely
from pymixunlearn.training.process_pool import Work, WorkerEnded

Outcome = tuple[dict[str, Any], float | None, str | None]
"""Settings, and their mean gap or the reason why there is none."""


def described(settings: Mapping[str, Any]) -> str:
    """Return a combination for a reader."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def run_of(plan: TuningPlan, settings: Mapping[str, Any], seed: int, folder: Path) -> tuple[Plan, Path]:
    """Return the run of a combination with one seed, and its folder.

    Raises:
        UserError: The settings fit no run.
    """
    run = resolve_unlearning(plan.unlearn_inputs(settings, seed), split=plan.splits[seed])
    # Named by what it is, not by when it was tried: an interrupted run is found again.
    return run, folder / f"{identity_hash(run.identity)}-seed{seed}"


def gap_of(record: Mapping[str, Any], seed: int) -> float:
    """Return a finished run's mean gap.

    Raises:
        UserError: The task leaves nothing to compare.
    """
    gap: float | None = record["gap"]["unlearned"]["mean"]
    if gap is None:
        raise UserError(f"the validation part leaves nothing to compare with Retrain for seed {seed}")
    return gap


def trials_on_ray(
    plan: TuningPlan, search: Search, folder: Path, watcher: Observer, command_line: str
) -> Iterator[Outcome]:
    """Try combinations as tasks of Ray: as many at once as do not depend on one another.

    Raises:
        UserError: A task's workers were lost again and again, or there is no room for one.
    """
    if len(search.tried) >= plan.trials or search.exhausted:
        return
    batch = _Batch(plan, folder, watcher, command_line)
    device = str(plan.example.device)
    with suited_threads(plan.example.split.dataset, plan.example.device):
        threads = torch.get_num_threads()  # as here, for other threads round differently
    work: Work[RemoteRun, tuple[dict[str, bytes], UserError | None]] = partial(_work, command_line)
    where: dict[str, Any] = {"threads": threads, "device": device, "fresh": True, "on_lost": batch.on_lost}
    with RayPool(work, plan.inputs.placement, None, **where) as pool:
        while (done := len(search.tried)) < plan.trials and not search.exhausted:
            yield from batch.known(search, plan.trials, done)
            for index, end in pool.run(batch.tasks(), batch.on_event):
                try:
                    files, error = end.result()
                except WorkerEnded as ended:
                    raise UserError(f"{batch.name(index)}: {ended}; what is finished is saved") from None
                yield from batch.ended(index, files, error)


class _Batch:
    """Combinations that are under way at the same time."""

    def __init__(self, plan: TuningPlan, folder: Path, watcher: Observer, command_line: str) -> None:
        self._plan, self._folder, self._watcher, self._command_line = plan, folder, watcher, command_line
        self._settings: list[dict[str, Any]] = []
        self._gaps: list[dict[int, float | UserError]] = []
        self._runs: list[tuple[int, int, RemoteRun, Plan, Path]] = []
        self._at: dict[int, str] = {}
        self._done = 0

    def known(self, search: Search, trials: int, done: int) -> Iterator[Outcome]:
        """Begin anew with what the search asks for; yield what needs no task, since its runs are there or cannot be."""
        self._settings, self._gaps, self._runs, self._at, self._done = [], [], [], {}, done
        while len(search.tried) + search.under_way < trials and not search.exhausted:
            settings = search.ask_ahead()
            if settings is None:
                break
            number = len(self._settings)
            self._settings.append(settings)
            self._gaps.append({})
            for seed in self._plan.splits:
                self._prepare(number, seed)
            yield from self._complete(number)

    def tasks(self) -> Iterator[RemoteRun]:
        """Yield the runs that are to be carried out."""
        return (remote for _, _, remote, _, _ in self._runs)

    def name(self, index: int) -> str:
        """Return a task for a reader."""
        number, seed, *_ = self._runs[index]
        return described(self._settings[number]) + (f", seed {seed}" if len(self._plan.splits) > 1 else "")

    def on_event(self, index: int, event: tuple[str, bool]) -> None:
        """Show what a task has sent."""
        text, lasting = event
        if lasting:
            self._watcher.note(text)
            return
        self._at[index] = text
        self._advance()

    def on_lost(self, index: int, reason: str) -> None:
        """Say that a worker was lost."""
        self._watcher.note(f"{self.name(index)}: its worker was lost ({reason}); it is given to another.")

    def ended(self, index: int, files: Mapping[str, bytes], error: UserError | None) -> Iterator[Outcome]:
        """Take a task's outcome; yield that of its combination if it was the last of it."""
        number, seed, _, run, out = self._runs[index]
        self._at.pop(index, None)
        if isinstance(error, AnswerIsNo):  # of the initial model, which is every combination's
            raise error
        try:
            if error is not None:
                raise error
            self._gaps[number][seed] = gap_of(receive_run(run, out, files).record, seed)
        except UserError as failure:
            self._gaps[number][seed] = failure
        yield from self._complete(number)

    def _prepare(self, number: int, seed: int) -> None:
        try:
            run, out = run_of(self._plan, self._settings[number], seed, self._folder)
            kept = RunFolder(out, run.identity)
            if kept.finished:
                self._gaps[number][seed] = gap_of(kept.read_json("metrics.json"), seed)
            else:
                self._runs.append((number, seed, prepare_remote(run), run, out))
        except UserError as failure:
            self._gaps[number][seed] = failure

    def _complete(self, number: int) -> Iterator[Outcome]:
        gaps = self._gaps[number]
        if len(gaps) < len(self._plan.splits):
            return
        self._done += 1
        found = [gaps[seed] for seed in self._plan.splits]
        failed = next((gap for gap in found if isinstance(gap, UserError)), None)
        if failed is not None:
            yield self._settings[number], None, str(failed)
        else:
            yield self._settings[number], fmean(gap for gap in found if not isinstance(gap, UserError)), None

    def _advance(self) -> None:
        places = "; ".join(f"{self.name(index)}: {text}" for index, text in self._at.items())
        self._watcher.phase_advanced("tune", self._done, places)


def _work(
    command_line: str, run: RemoteRun, send: Callable[[tuple[str, bool]], None]
) -> tuple[dict[str, bytes], UserError | None]:
    """Carry out one run on another machine."""
    observer = Summary(lambda text: send((text, False)), lambda text: send((text, True)))
    try:
        return run_remotely(run, command_line, observer), None
    except UserError as error:
        return {}, error
