"""Choice of a setting by the acceptance test, on the half of the validation set that nothing is judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.evaluation import Acceptance, Resurfacing, acceptance
from pymixunlearn.models.autocast import computing_as_usual
from pymixunlearn.seeding import derive_seed
from pymixunlearn.tasks import Split


class Chooser:
    """Acceptance test on the choosing half of V, for one model after the other; the initial model is tested once.

    The test reads the labels of D_f and V, whether or not the method that chooses by it does.

    Args:
        initial: The model before unlearning; it is left as it is.
        split: What is to be forgotten, of data with a validation set.
        choosing: The half of the validation set to choose by.
        lr: Learning rate of the initial model's own training.
        device: Where to compute.
        seed: Fixes which samples are looked at.
    """

    def __init__(
        self, initial: nn.Module, split: Split, choosing: ImageSet, *, lr: float, device: torch.device, seed: int
    ) -> None:
        """Test nothing yet."""
        self._initial, self._split, self._choosing = initial, split, choosing
        self._lr, self._device, self._seed = lr, device, derive_seed(seed, "choosing")
        self._before: Acceptance | None = None

    def tells(self) -> bool:
        """Return whether there is anything to choose by: whether the test refuses the initial model clearly enough."""
        if self._before is None:
            self._before = self._test(self._initial)
        distance, smallest = self._distance, self._before.smallest_ks
        if distance is None or smallest is None:
            return False
        return self._before.decision == "refused" and distance >= smallest

    @property
    def _distance(self) -> float | None:
        """The initial model's larger distance."""
        assert self._before is not None  # it has been tested
        distances = (self._before.ks, self._before.ks_resurfaced)
        return max((distance for distance in distances if distance is not None), default=None)

    def __call__(self, model: nn.Module) -> Acceptance:
        """Return the decision for ``model``: "cannot tell" where the initial model would not be seen."""
        tells, found = self.tells(), self._test(model)
        if found.decision == "refused" or not tells:
            return found
        reason = "The forgotten samples are not told apart from unseen images; the initial model's are."
        return replace(found, decision="accepted", reason=reason, initial_ks=self._distance)

    def _test(self, model: nn.Module) -> Acceptance:
        with computing_as_usual(model):  # the copies too that are trained on
            return acceptance(
                model,
                self._split,
                validation=self._choosing,
                device=self._device,
                seed=self._seed,
                resurfacing=Resurfacing(lr=self._lr),
                decision_only=True,
            )


@dataclass(frozen=True)
class Search:
    """What a method tried, and what it kept.

    Attributes:
        kept: The setting that the result comes from: "share 0.98", "Retrain".
        tested: Whether the acceptance test accepted it; False where ``untested`` says why it was not made, and where
            the search ended with its last attempt, fresh weights, for which none is made.
        untested: Why no test was made: "it was given", "there is no validation set", "the acceptance test cannot tell
            here"; None where one was.
        attempts: One record per attempt: "setting", "epochs", "seconds" (with its test), and of the test "decision",
            "ks", "ks_resurfaced", "bound" and "test_seconds"; these are None where it was not made, and "ks_resurfaced"
            where the outputs alone were refused.
    """

    kept: str
    tested: bool
    untested: str | None
    attempts: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain JSON-able values."""
        return {"kept": self.kept, "tested": self.tested, "untested": self.untested, "attempts": self.attempts}

    def sentence(self) -> str:
        """Say in a few words what was kept, and why."""
        if self.untested is not None:
            return f"{self.kept}, untested: {self.untested}"
        before = "".join(f"{attempt['setting']} refused, " for attempt in self.attempts[:-1])
        if not self.tested:
            return f"{before}so {self.kept}"
        return f"{before}{self.kept} accepted on the choosing half of the validation set"
