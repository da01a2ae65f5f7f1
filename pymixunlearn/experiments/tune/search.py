"""Which settings to try next, decided by Optuna and remembered in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.tune.grids import Grid, combinations, size
from pymixunlearn.files import write_atomically
from pymixunlearn.seeding import derive_seed

SAMPLERS = ("tpe", "random", "grid")
_REASON = "reason"
_MAX_REPEATS = 50
_STARTUP = 10
"""Trials after which the sampler "tpe" looks at values; until then it draws at random."""


@dataclass(frozen=True)
class Tried:
    """A combination that was tried: its settings, and the value to be small, or why there is none."""

    settings: dict[str, Any]
    value: float | None
    reason: str | None = None


class Search:
    """A search of a grid for the smallest value, which goes on from its file.

    No combination is tried twice. What comes next depends on the seed and on what was tried before, not on how often
    the search was interrupted.

    Args:
        file: Optuna's log of what was tried; it need not exist, and no other process may use it.
        grid: The settings and the values to choose from.
        sampler: One of :data:`SAMPLERS`.
        seed: Fixes the choices.

    Raises:
        UserError: Optuna is not installed, or the file is damaged before its last line.
    """

    def __init__(self, file: Path, grid: Grid, sampler: str, seed: int) -> None:
        self._optuna = optuna = require_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._grid, self._sampler, self._seed = grid, sampler, seed
        self._space = {name: optuna.distributions.CategoricalDistribution(values) for name, values in grid.items()}
        _recover(file)
        backend = optuna.storages.journal.JournalFileBackend(str(file))
        self._study = optuna.create_study(
            study_name="tune",
            storage=optuna.storages.JournalStorage(backend),
            direction="minimize",
            load_if_exists=True,
        )
        # Trials of every combination that is under way: its own, and those that drew it once more.
        self._pending: dict[str, list[Any]] = {}
        self._repeat = 0
        self._interrupted: list[dict[str, Any]] = []
        states = optuna.trial.TrialState
        for trial in self._study.get_trials(states=(states.RUNNING,)):
            # Its process is gone: what it was at comes next.
            self._study.tell(trial.number, state=states.FAIL)
            if set(trial.params) == set(grid):
                self._interrupted.append(dict(trial.params))

    @property
    def tried(self) -> list[Tried]:
        """What was tried, in order."""
        found: dict[str, Tried] = {}
        for trial in self._study.get_trials():
            reason = trial.user_attrs.get(_REASON)
            if trial.value is not None or reason is not None:  # the others were interrupted
                found.setdefault(_key(trial.params), Tried(dict(trial.params), trial.value, reason))
        return list(found.values())

    @property
    def exhausted(self) -> bool:
        """Whether all combinations were tried, or are under way."""
        return len(self.tried) + len(self._pending) >= size(self._grid)

    @property
    def under_way(self) -> int:
        """How many combinations were asked for and have no result yet."""
        return len(self._pending)

    @property
    def ready(self) -> bool:
        """Whether what comes next does not depend on the results of what is under way."""
        if not self._pending or self._sampler != "tpe":
            return True
        complete = self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.COMPLETE,))
        return len(complete) + sum(map(len, self._pending.values())) < _STARTUP

    def ask(self) -> dict[str, Any]:
        """Return the settings to try next; the grid must not be exhausted, and no other combination be under way."""
        settings = self.ask_ahead()
        assert settings is not None  # without others under way it depends on nothing
        return settings

    def ask_ahead(self) -> dict[str, Any] | None:
        """Return the settings to try beside those under way, None where their results have to be known first.

        So the combinations are those of a search that tries one after the other.
        """
        if not self.ready:
            return None
        known = {_key(one.settings): one.value for one in self.tried}
        number = len(known) + len(self._pending)
        while self._interrupted:
            settings = self._interrupted.pop(0)
            if _key(settings) not in known and _key(settings) not in self._pending:
                return self._take(settings)
        for repeat in range(self._repeat, _MAX_REPEATS):
            if self._sampler == "grid":
                break
            self._study.sampler = self._make_sampler(number, repeat)
            trial = self._study.ask(self._space)
            settings, key = dict(trial.params), _key(trial.params)
            if key in self._pending:
                self._pending[key].append(trial)  # to be told its value with it
                if not self.ready:
                    self._repeat = repeat + 1
                    return None
            elif key in known:
                # Reported again, so that a sampler that learns knows how good the combination is that it insists on.
                self._finish(trial, known[key])
            else:
                return self._begin(trial)
        # On a grid that is tried almost to its end, drawing at random would take long to find what is left.
        taken = {*known, *self._pending}
        return self._take(next(settings for settings in combinations(self._grid) if _key(settings) not in taken))

    def tell(self, settings: Mapping[str, Any], value: float | None, reason: str | None = None) -> None:
        """Record the result of settings that were asked for: a value, or the reason why there is none."""
        first, *repeated = self._pending.pop(_key(settings))
        if value is None:
            first.set_user_attr(_REASON, reason or "unknown")
        for trial in (first, *repeated):
            self._finish(trial, value)

    def _take(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin to try these settings."""
        self._study.enqueue_trial(settings)
        trial = self._study.ask(self._space)
        while dict(trial.params) != settings:  # one that was enqueued just before the program was killed
            self._finish(trial, None)
            trial = self._study.ask(self._space)
        return self._begin(trial)

    def _begin(self, trial: Any) -> dict[str, Any]:
        self._pending[_key(trial.params)] = [trial]
        self._repeat = 0
        return dict(trial.params)

    def _finish(self, trial: Any, value: float | None) -> None:
        states = self._optuna.trial.TrialState
        self._study.tell(trial, value, state=states.FAIL if value is None else states.COMPLETE)

    def _make_sampler(self, number: int, repeat: int) -> Any:
        """A sampler of this trial alone: one that had to be kept would begin anew after every interruption."""
        seed = derive_seed(self._seed, "tune", number, repeat) % 2**32
        samplers = self._optuna.samplers
        return (
            samplers.RandomSampler(seed)
            if self._sampler == "random"
            else samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP)
        )


def _recover(file: Path) -> None:
    """Take over the log of a process that was killed: drop its lock, and a last line that is not whole.

    Raises:
        UserError: A line that is followed by others cannot be read.
    """
    for lock in file.parent.glob(f"{file.name}.lock*"):
        lock.unlink(missing_ok=True)
    if not file.exists():
        return
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    sound = 0
    for number, line in enumerate(lines, start=1):
        if not (line.endswith(b"\n") and _reads(line)):
            # After a power cut a file may end in zero bytes that were never written.
            if number < len(lines) and b"".join(lines[number:]).strip(b"\0\n"):
                raise UserError(f"line {number} of '{file}' cannot be read; delete the file to begin the search anew")
            break
        sound += len(line)
    if sound < len(content):
        write_atomically(file, content[:sound])


def _reads(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def require_optuna() -> Any:
    """Import Optuna.

    Raises:
        UserError: It is not installed.
    """
    remedy = "install it with: pip install 'pymixunlearn[tune]'"
    optuna = require("optuna", purpose="tuning", remedy=remedy)
    require("optuna.storages.journal", purpose="tuning", remedy=remedy)
    return optuna


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))
