"""Collapse: a run that destroys the model is ended, and the state before comes back.

A loss or a weight that is not finite is one kind. The other is a model that classifies the remaining images no better
than a constant answer would. Looks are :data:`INTERVAL` steps apart. Falls to chance have to be seen twice running, so
that either kind is noticed within 50 steps. No image is held out, and no random stream is drawn from: a run that does
not collapse is the same, to the last bit, as one that nobody watches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.methods.view import Images, SplitView
from pymixunlearn.models.adapter import bad_weights
from pymixunlearn.seeding import generator
from pymixunlearn.training.loop import StateDict, Stop, copied

INTERVAL = 25
"""Steps from one look to the next."""

WATCHED = 100
"""Images of D_r that are looked at, at most: as many of every class."""

CONFIDENCE = 0.95
"""With which a model has to be better than a constant answer, one-sided, not to be at chance."""

HEADROOM = 0.2
"""By which share of hits the initial model has to be above that, or else accuracy is not looked at."""

_SEARCHED = 2000


@dataclass(frozen=True)
class Collapse:
    """What ended a run.

    Attributes:
        step: After how many steps it was noticed.
        good_step: Whose state the result is; 0 is the initial model.
        cause: What was seen, in a few words.
    """

    step: int
    good_step: int
    cause: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return {"step": self.step, "good_step": self.good_step, "cause": self.cause}

    def sentence(self) -> str:
        """Say in a few words what happened, and what to try."""
        state = (
            "the initial model: nothing is forgotten" if self.good_step == 0 else f"the model of step {self.good_step}"
        )
        return f"collapsed by step {self.step} ({self.cause}) and went back to {state}; try a smaller lr"


class Guard:
    """Watches a loop for a collapse, beside the rule that may end it: a loop's ``Stop``.

    Args:
        model: The initial model, which the loop goes on to change in place.
        split: What the method may train on.
        losses: Returns the name of a measured quantity that is not finite; None where all are.
        then: The rule that may end the loop otherwise.
        device: Where ``model`` is.
        seed: Fixes which images are looked at.

    Attributes:
        last_stage: After how many steps the last stage begins: what comes before may do harm on purpose, and there only
            what is not finite counts.
        collapse: What ended the run; None as long as nothing has.
    """

    def __init__(
        self,
        model: nn.Module,
        split: SplitView,
        losses: Callable[[], str | None],
        then: Stop | None,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        """Choose the images, and see whether the model is good enough to tell a fall to chance."""
        self.last_stage = 0
        self.collapse: Collapse | None = None
        self._model, self._split, self._losses, self._then, self._device = model, split, losses, then, device
        self._ends: set[int] = set()
        self._images, self._targets = self._choose(seed)
        shares = torch.bincount(self._targets).double() / max(len(self._targets), 1)
        self._least = _least_hits(len(self._targets), float(shares.max()) if len(shares) else 1.0)
        hits = self._hits()
        # Where a few classes are most of the images, a worse model is soon no better than a constant answer. So it is
        # with a model that predicts few classes, where its answers stand in for labels.
        classes = split.num_classes - len(split.forget_classes)
        if isinstance(split.retain, ImageSet):
            classes = int((shares > 0).sum())
        even = len(shares) > 0 and float(shares.max()) <= 2 / max(classes, 1)
        self._judges = even and hits is not None and hits >= self._least + HEADROOM * len(self._targets)
        self._good: StateDict = copied(model.state_dict())
        self._good_step = self._step = self._streak = 0
        self._sound = True

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Begin the other rule, or go on from ``saved``; True if the loop had been ended by then.

        Raises:
            UserError: ``saved`` is of a run that nobody watched.
        """
        if saved is not None and "then" not in saved:
            raise UserError("resume is a snapshot of another run: that one was not watched for a collapse")
        ends = torch.tensor(list(lengths), dtype=torch.int64).cumsum(0)
        self._ends = set(ends.tolist())
        ended = self._then is not None and self._then.begin(lengths, None if saved is None else saved["then"])
        if saved is not None:
            self._good, self._good_step = dict(saved["good"]), saved["good_step"]
            self._step, self._streak, self._sound = saved["step"], saved["streak"], saved["sound"]
            self.collapse = None if saved["collapse"] is None else Collapse(**saved["collapse"])
        return ended or self.collapse is not None

    def after_step(self, step: int) -> bool:
        """Look, if it is time for that, and ask the other rule; True once the loop is to end."""
        self._step = step
        if step % INTERVAL == 0:
            cause = self._look()
        else:  # an epoch's means are read, and gone, at its end
            cause = self._not_finite(0) if step in self._ends else None
        if cause is not None:
            self._go_back(cause)
            return True
        return self._then is not None and self._then.after_step(step)

    def finish(self, *, judged: bool) -> None:
        """Look once more when the loop is over.

        Args:
            judged: Whether the present state is the result, so that it may not be at chance.
        """
        if self.collapse is not None:
            return
        hits = self._hits()
        cause = self._not_finite(hits)
        if cause is None and judged:
            cause = self._at_chance(hits)
        if cause is not None:
            self._go_back(cause)

    def state(self) -> StateDict:
        """Return what :meth:`begin` takes to go on."""
        return {
            "good": self._good,
            "good_step": self._good_step,
            "step": self._step,
            "streak": self._streak,
            "sound": self._sound,
            "collapse": None if self.collapse is None else self.collapse.to_dict(),
            "then": None if self._then is None else self._then.state(),
        }

    def _look(self) -> str | None:
        """Return what is wrong; where nothing is, keep the state."""
        hits = self._hits()
        cause = self._not_finite(hits)
        if cause is not None:
            return cause
        fallen = self._at_chance(hits)
        if fallen is None:
            self._streak, self._sound = 0, True
            self._good, self._good_step = copied(self._model.state_dict()), self._step
            return None
        if self._step <= self.last_stage:
            self._sound = False  # the last stage may yet repair it
        elif self._sound:
            self._streak += 1
        return fallen if self._streak == 2 else None

    def _go_back(self, cause: str) -> None:
        self._model.load_state_dict(self._good)
        self.collapse = Collapse(self._step, self._good_step, cause)

    def _not_finite(self, hits: int | None) -> str | None:
        name = self._losses()
        if name is not None:
            return f"'{name}' was not finite"
        if bad_weights(self._model):
            return "weights were not finite"
        return "outputs were not finite" if hits is None else None

    def _at_chance(self, hits: int | None) -> str | None:
        if not self._judges or hits is None or hits >= self._least:
            return None
        return f"{hits} of {len(self._targets)} images of D_r were classified right, no more than by chance"

    def _hits(self) -> int | None:
        """Count the images that are classified as labelled, or as before; None where an output is not finite."""
        logits = self._logits(self._images)
        if not bool(logits.isfinite().all()):
            return None
        return int((logits.argmax(dim=1) == self._targets).sum()) if len(logits) else 0

    def _logits(self, images: Images) -> Tensor:
        """Return logits [N, classes]; an added class does not count."""
        logits = predict_logits(self._model, images, self._split.preprocess, device=self._device)
        return logits[:, : self._split.num_classes]

    def _choose(self, seed: int) -> tuple[Images, Tensor]:
        """Draw images of D_r, as many of every class, and say what counts as a hit."""
        retain = self._split.retain
        drawn = torch.randperm(len(retain), generator=generator(seed, "collapse", "retain"))
        if isinstance(retain, ImageSet):
            classes = retain.targets.cpu()[drawn]
        else:
            drawn = drawn[:_SEARCHED]
            classes = self._logits(retain.subset(drawn)).argmax(dim=1)
        chosen = balanced(classes, WATCHED)
        return retain.subset(drawn[chosen]).to(self._device), classes[chosen]


def balanced(classes: Tensor, count: int) -> Tensor:
    """Return the positions of ``count`` samples, or of all, as many of every class as there are.

    Args:
        classes: int64 [N].
        count: How many to take.

    Returns:
        int64, sorted; of each class those that come first.

    Example:
        >>> balanced(torch.tensor([0, 0, 0, 1, 2, 2]), 4).tolist()
        [0, 1, 3, 4]
    """
    rank = torch.zeros_like(classes)
    for label in set(classes.tolist()):
        own = (classes == label).nonzero().squeeze(1)
        rank[own] = torch.arange(len(own))
    return rank.argsort(stable=True)[:count].sort().values


def _least_hits(count: int, chance: float) -> int:
    """Return how many hits of ``count`` a model needs that is better than one that hits with the share ``chance``."""
    from scipy.stats import binom

    return int(binom.isf(1 - CONFIDENCE, count, chance)) + 1 if count else 1
