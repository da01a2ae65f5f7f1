"""Stopping when the acceptance test accepts the model, on the half of the validation set that nothing is judged by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pymixunlearn.methods.choosing import Chooser
from pymixunlearn.training.loop import StateDict

FIRST_LOOK, GROWTH = 32, 1.5
"""After how many steps of the last stage the first look is, at least, and how much later than one look the next is.

Looks are rarer than the checks of ``stop=auto``: each is an acceptance test, and each is another chance to pass one
by luck.
"""

CANNOT_TELL = "the acceptance test cannot tell here"


@dataclass(frozen=True)
class AcceptedStopping:
    """How a run ended that was to end when the acceptance test accepts.

    Attributes:
        met: Whether it was accepted.
        untested: Why no look was taken; None where there were some.
        step: After how many steps the run ended.
        budget: How many steps all epochs have.
        looks: One record per look: "step", "epoch" (a fraction), "seconds", "decision", "ks", "bound", and
            "ks_resurfaced", which is None where the outputs alone were refused.
    """

    met: bool
    untested: str | None
    step: int
    budget: int
    looks: list[dict[str, Any]]

    @property
    def checks(self) -> list[dict[str, float]]:
        """The numbers of the looks, for ``history.csv``."""
        return [{name: value for name, value in look.items() if isinstance(value, int | float)} for look in self.looks]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        seconds = sum(look["seconds"] for look in self.looks)
        fields = {name: getattr(self, name) for name in ("met", "untested", "step", "budget", "looks")}
        return {"rule": "accepted", **fields, "seconds": seconds}

    def sentence(self) -> str:
        """Say in a few words how the run ended."""
        if self.untested is not None:
            return f"all {self.budget} steps, untested: {self.untested}"
        looks = f"{len(self.looks)} look" + ("s" if len(self.looks) != 1 else "")
        if self.met:
            where = "accepted on the choosing half of the validation set"
            last = f"the last of {looks}" if len(self.looks) > 1 else "the first look"
            return f"{where} after {self.step} of {self.budget} steps, at {last}"
        if self.step < self.budget:
            return f"not accepted in {looks} by step {self.step} of {self.budget}"
        return f"the budget of {self.budget} steps is spent, not accepted in {looks}"


class AcceptedStop:
    """Ends a loop at the first look at which the acceptance test accepts the model: a loop's ``Stop``.

    It looks in the last stage of the loop, not before that stage's first epoch is over: by then every image of D_f has
    been dealt with. One look is after the last step, so that the result of a spent budget is known too.

    Args:
        model: The network that is trained in place.
        chooser: The acceptance test on the choosing half of the validation set.
    """

    def __init__(self, model: nn.Module, chooser: Chooser) -> None:
        """Look at nothing yet."""
        self.last_stage = 0
        self._model, self._chooser = model, chooser
        self._looks: list[dict[str, Any]] = []
        self._tells = True
        self._met = False
        self._step = self._budget = self._first = 0
        self._mean_length = 1.0

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Test the initial model, and go on from ``saved``; True if the model had been accepted by then."""
        self._budget = sum(lengths)
        self._mean_length = self._budget / max(len(lengths), 1)
        done = 0
        for length in lengths:
            done += length
            if done > self.last_stage:
                break
        self._first = done
        if saved is None:
            self._tells = self._chooser.tells()
        else:
            self._looks = [dict(look) for look in saved["looks"]]
            self._tells, self._met, self._step = saved["tells"], saved["met"], saved["step"]
        return self._met

    def after_step(self, step: int) -> bool:
        """Look, if it is time for that; True once the model is accepted."""
        self._step = step
        if not self._tells or not self._due(step):
            return False
        start = time.perf_counter()
        found = self._chooser(self._model)
        self._met = found.decision == "accepted"
        self._looks.append(
            {
                "epoch": step / self._mean_length,
                "step": step,
                "seconds": time.perf_counter() - start,
                "decision": found.decision,
                "ks": found.ks,
                "ks_resurfaced": found.ks_resurfaced,
                "bound": found.bound,
            }
        )
        return self._met

    def _due(self, step: int) -> bool:
        if step < self._first:
            return False
        # Later by a half than the last look, wherever that was: where the first epoch is long, so is the wait after it.
        due = GROWTH * (self._looks[-1]["step"] - self.last_stage) if self._looks else FIRST_LOOK
        return step == self._budget or step - self.last_stage >= due

    def state(self) -> StateDict:
        """Return what :meth:`begin` takes to go on."""
        return {"looks": self._looks, "tells": self._tells, "met": self._met, "step": self._step}

    def result(self) -> AcceptedStopping:
        """Return how the loop ended."""
        untested = None if self._tells else CANNOT_TELL
        return AcceptedStopping(self._met, untested, self._step, self._budget, self._looks)
