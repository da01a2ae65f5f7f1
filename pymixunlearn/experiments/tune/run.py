"""Run of a search: combination by combination, each a run per seed, until the requested number is tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import AnswerIsNo
from pymixunlearn.experiments.common.progress import Observer, Summary
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import RecordFolder
from pymixunlearn.experiments.tune.plan import TuningPlan, default_tuning_folder, settings_yaml
from pymixunlearn.experiments.tune.search import Search, Tried
from pymixunlearn.experiments.tune.trials import Outcome, described, gap_of, run_of, trials_on_ray
from pymixunlearn.experiments.unlearn.run import run_unlearning

RECORD, BEST, STUDY, TRIALS = "tune.json", "best.yaml", "study.log", "trials"


@dataclass(frozen=True)
class TuningOutcome:
    """Result of a search: its folder, the content of its ``tune.json``, and all combinations, the best first.

    Those without a value failed, and come last.
    """

    folder: Path
    record: dict[str, Any]
    ranked: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """The combination closest to Retrain, None where all failed."""
        return self.ranked[0] if self.ranked and self.ranked[0].value is not None else None


def run_tuning(
    plan: TuningPlan, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> TuningOutcome:
    """Try combinations, and write ``tune.json`` and ``best.yaml`` after each.

    What counts is the mean gap to Retrain on the validation part, averaged over the seeds. A combination that fails is
    recorded with the reason.

    Args:
        plan: What to do, from :func:`pymixunlearn.experiments.tune.plan.resolve_tuning`.
        out: The folder; :func:`default_tuning_folder` if None. A search that is there already goes on.
        observer: Receives the progress as the phase "tune", and a note for every combination.
        command_line: The command that repeats the search, for the record.

    Raises:
        UserError: The folder holds something else or cannot be written, or another process is at work in it.
    """
    watcher = Observer() if observer is None else observer
    folder = RecordFolder(default_tuning_folder(plan) if out is None else out, RECORD, "search")
    with folder.held():
        record = {**plan.identity, "sampler": plan.inputs.sampler, "command_line": command_line}
        record["versions"] = versions()
        if not folder.read(plan.identity):
            folder.write({**record, "trials": []}, {})
        search = Search(folder.path / STUDY, plan.grid, plan.inputs.sampler, plan.inputs.seeds[0])
        begun = len(search.tried)
        watcher.phase_started("tune", plan.trials, min(begun, plan.trials))
        placement = plan.inputs.placement
        trials = trials_on_ray if placement.is_ray else _trials_here
        for settings, gap, reason in trials(plan, search, folder.path / TRIALS, watcher, command_line):
            search.tell(settings, gap, reason)
            _write(plan, folder, record, search.tried)
            result = f"failed: {reason}" if gap is None else f"mean gap {gap:.2f}"
            watcher.note(f"{described(settings)}: {result}.")
            watcher.phase_advanced("tune", len(search.tried), described(settings))
        done = len(search.tried)
        watcher.phase_finished("tune", f"{done - begun} combinations tried, {done} in all")
        return _write(plan, folder, record, search.tried)


def _trials_here(
    plan: TuningPlan, search: Search, folder: Path, watcher: Observer, command_line: str
) -> Iterator[Outcome]:
    """Try one combination after the other in this process."""
    while (done := len(search.tried)) < plan.trials and not search.exhausted:
        settings = search.ask()
        place = Summary(partial(_advance, watcher, done, described(settings)), watcher.note)
        gaps = []
        try:
            for seed in plan.splits:
                run, out = run_of(plan, settings, seed, folder)
                finished = run_unlearning(run, out, observer=place, command_line=command_line, guard=False)
                gaps.append(gap_of(finished.record, seed))
        except AnswerIsNo:  # of the initial model, which is every combination's
            raise
        except UserError as error:
            yield settings, None, str(error)
        else:
            yield settings, fmean(gaps), None


def _advance(watcher: Observer, done: int, settings: str, place: str) -> None:
    watcher.phase_advanced("tune", done, f"{settings}: {place}")


def _write(plan: TuningPlan, folder: RecordFolder, record: dict[str, Any], tried: list[Tried]) -> TuningOutcome:
    """Write what is known so far."""
    ranked = sorted(tried, key=lambda one: (one.value is None, one.value or 0.0))
    record["trials"] = [{"settings": one.settings, "gap": one.value, "reason": one.reason} for one in tried]
    outcome = TuningOutcome(folder.path, record, tuple(ranked))
    texts = {}
    if outcome.best is not None and outcome.best.value is not None:
        worked = sum(one.value is not None for one in tried)
        share, seeds = f"{100 * plan.inputs.validation:g} %", ", ".join(map(str, plan.inputs.seeds))
        comment = [
            f"{plan.inputs.method} on {plan.dataset}, task {plan.task}: the best of {worked} combinations.",
            f"Mean gap to Retrain {outcome.best.value:.3f} on {share} of the training data, held out; seeds {seeds}.",
            str(record["command_line"]),
        ]
        texts[BEST] = settings_yaml(plan, outcome.best.settings, comment)
        record["best"] = {"settings": outcome.best.settings, "gap": outcome.best.value}
    folder.write(record, texts)
    return outcome
