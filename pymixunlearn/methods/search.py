"""Loop that tries settings in order, each in a training of its own, until the acceptance test accepts one.

The last attempt is a training from fresh weights on the retain set alone, whatever the others show the network. With
labels it is Retrain and needs no test. Without labels its targets are the initial model's, which saw D_f, and it is
named so. Without a validation set there is one attempt, a documented one, which is then said to be untested. Attempts
that were refused count as cost.
"""

from __future__ import annotations

import copy
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.methods.base import MethodOutput
from pymixunlearn.methods.choosing import Chooser, Search
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, Stage, descend, frozen_copy, targets_of
from pymixunlearn.methods.parts import Tensors
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.fresh import fresh_weights
from pymixunlearn.training.loop import StateDict
from pymixunlearn.training.supervised import supervised_loss

RETRAIN = "Retrain"
FRESH = "fresh weights on the initial model's outputs"
"""Name of the last attempt without labels."""


class Attempt(NamedTuple):
    """One training of a search.

    Attributes:
        setting: What is tried, for people: "share 0.95".
        epochs: Passes over the retain set.
        begin: Puts the network, which has the initial weights, where the training starts, and makes its optimiser.
        rate: The share of the learning rate that a step (from 0) of so many has.
        batch_size: Images per step; None is the method's own.
    """

    setting: str
    epochs: int
    begin: Callable[[], None]
    rate: Callable[[int, int], float]
    batch_size: int | None = None


@dataclass(frozen=True)
class SearchConfig(LoopConfig):
    """Settings that all methods have that search."""

    label_aware: bool = setting(
        True, "train on the labels of D_r; otherwise on the initial model's softmax, forgotten classes masked"
    )
    epochs: int | None = setting(
        None, "passes over the retain set; none takes the method's share of the initial model's", low=1
    )
    lr: float | None = setting(
        None, "highest learning rate (Adam); none takes the method's multiple of the initial model's", above=0
    )
    weight_decay: float = setting(1e-4, "coefficient of the squared norm's gradient", low=0)


C = TypeVar("C", bound=SearchConfig)


class SearchedLoop(Loop[C]):
    """Loop over attempts, which are trainings of the same network on D_r.

    A subclass has :meth:`tries` and :meth:`untested`, and may have a :meth:`prologue` and a :meth:`loss` of its own.

    Attributes:
        initial: The model before unlearning, frozen.
        optimizer: Of the present attempt.
        epochs: Passes of an attempt.
        lr: Its highest learning rate.
    """

    epoch_of = "retain"
    chooses = True
    in_place = False
    initial: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    lr: float

    @property
    def needs_labels(self) -> bool:
        """Whether it trains on labels; the acceptance test that chooses a setting reads some in either case."""
        return self.config.label_aware

    @abstractmethod
    def tries(self) -> list[Attempt]:
        """Return what is tried before Retrain, in order, where there is a test."""

    @abstractmethod
    def untested(self) -> Attempt:
        """Return what is done where there is no test, or where the settings leave nothing to choose."""

    @property
    def pace(self) -> tuple[float, float]:
        """The share of the initial model's epochs that an attempt has, and the multiple of its learning rate."""
        return 1.0, 1.0

    @property
    def fixed(self) -> bool:
        """Whether the settings leave nothing to choose."""
        return False

    def prologue(self) -> list[Stage]:
        """Return what comes before the first attempt."""
        return []

    def setup(self) -> None:
        """Keep the initial model, and settle what is tried."""
        (share, factor), recipe = self.pace, self.job.recipe.initial
        self.epochs = self.config.epochs or math.ceil(share * recipe.epochs)
        self.lr = self.config.lr or factor * recipe.lr
        self.config = self.config.replace(epochs=self.epochs, lr=self.lr)
        self.initial = frozen_copy(self.model)
        self.soft_targets = None if self.config.label_aware else SoftTargets(self)
        self.attempt = self.parts["attempt"] = Tensors(number=torch.tensor(-1))
        why = self._why_untested()
        chooser = self.job.chooser if why is None else None
        self.attempts = [self.untested()] if chooser is None else [*self.tries(), self.retrain()]
        before = self.prologue()
        lengths = [stage.steps for stage in before for _ in range(stage.epochs)]
        self._first = [len(lengths) + sum(a.epochs for a in self.attempts[:n]) for n in range(len(self.attempts))]
        lengths += [self._steps_of(attempt) for attempt in self.attempts for _ in range(attempt.epochs)]
        done = [0, *accumulate(lengths)]
        ends = [done[first + attempt.epochs] for first, attempt in zip(self._first, self.attempts, strict=True)]
        self.choice = self.stop = Choice(self.model, self.attempts, ends, chooser, why)

    def _why_untested(self) -> str | None:
        if self.fixed:
            return "it was given"
        if self.job.chooser is None:
            return "there is no validation set"
        return None if self.job.chooser.tells() else "the acceptance test cannot tell here"

    def retrain(self) -> Attempt:
        """Return the last attempt: fresh weights, other ones than Retrain's own, and Retrain's training."""
        name, recipe = RETRAIN if self.config.label_aware else FRESH, self.job.recipe.retrain
        return Attempt(name, recipe.epochs, self._begin_retrain, recipe.share_of_rate, recipe.batch_size)

    def stages(self) -> list[Stage]:
        """Return the prologue and the attempts."""
        attempts = [
            Stage(attempt.epochs, self._steps_of(attempt), self._epoch_of(n), "attempts")
            for n, attempt in enumerate(self.attempts)
        ]
        return [*self.prologue(), *attempts]

    def train_epoch(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch."""
        return self.retain_batches(epoch)

    def step(self, retain: Batch) -> Measured:
        """CE_r."""
        loss = self.loss(retain)
        descend(self.optimizer, loss)
        return {"retain": loss}

    def loss(self, retain: Batch) -> Tensor:
        """Return what a step descends on."""
        return F.cross_entropy(self.logits(retain), self.targets(retain))

    def logits(self, retain: Batch) -> Tensor:
        """Return the logits [N, classes] of a batch."""
        found: Tensor = self.model(retain.images)
        return found

    def targets(self, retain: Batch) -> Tensor:
        """Return labels [N], or the initial model's probabilities [N, classes]."""
        return targets_of(retain) if self.soft_targets is None else self.soft_targets(retain)

    def output(self, history: list[dict[str, float]]) -> MethodOutput:
        """Return the network that was kept, and what was tried."""
        done = super().output(history)
        tests, parts = self.choice.seconds, dict(done.parts or {})
        if tests:  # they were made at the ends of attempts
            parts.update(attempts=parts["attempts"] - tests, choosing=tests)
        return done._replace(search=self.choice.result(history, self._first), parts=parts)

    def load_state(self, state: StateDict) -> None:
        """Begin the attempt that was interrupted before its state is put back."""
        number = int(state["attempt"]["number"]) if "attempt" in state else -1
        if 0 <= number < len(self.attempts):
            self.start(number)
        super().load_state(state)

    def begin_training(self) -> None:
        """Make the optimiser of an attempt."""
        self.optimizer = self.add_optimizer("adam", self.lr, weight_decay=self.config.weight_decay)

    def _begin_retrain(self) -> None:
        seed = derive_seed(self.seed, self.name, "retrain")
        fresh = fresh_weights(copy.deepcopy(self.model), seed, keep_frozen=True)
        self.model.load_state_dict(fresh.state_dict())
        recipe = self.job.recipe.retrain
        self.optimizer = self.add_optimizer(
            recipe.optimizer, recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )

    def start(self, number: int) -> None:
        """Begin an attempt, from the initial weights."""
        self.model.load_state_dict(self.initial.state_dict())
        self.attempt["number"].fill_(number)
        self.attempts[number].begin()
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    def _steps_of(self, attempt: Attempt) -> int:
        return self.steps(self.retain_set, attempt.batch_size)

    def _retrain_step(self, retain: Batch) -> Measured:
        """Train as Retrain does; what a method shows beside D_r is no part of it."""
        logits, targets = SearchedLoop.logits(self, retain), self.targets(retain)
        if self.config.label_aware:
            loss = supervised_loss(logits, targets, self.job.recipe.retrain.std_weight)
        else:
            loss = F.cross_entropy(logits, targets)
        descend(self.optimizer, loss)
        return {"retain": loss}

    def _epoch_of(self, number: int) -> Callable[[int], Iterator[Measured]]:
        attempt, first = self.attempts[number], self._first[number]
        plain = attempt.setting in (RETRAIN, FRESH)

        def run(epoch: int) -> Iterator[Measured]:
            if epoch == first:
                self.start(number)
            steps = self._steps_of(attempt)
            if plain:
                every = self.batches(self.retain_set, "retain", epoch, batch_size=attempt.batch_size)
            else:
                every = self.train_epoch(epoch)
            for step, retain in enumerate(every):
                share = attempt.rate((epoch - first) * steps + step, steps * attempt.epochs)
                for group, lr in zip(self.optimizer.param_groups, self._rates, strict=True):
                    group["lr"] = share * lr
                yield self._retrain_step(retain) if plain else self.step(retain)

        return run


class SoftTargets:
    """The initial model's softmax on D_r, with the classes that are to be forgotten masked: targets without labels.

    Without random augmentation they are computed once.
    """

    def __init__(self, loop: SearchedLoop[Any]) -> None:
        """Look at D_r once, where that will do."""
        self._initial, self._device = loop.initial, loop.device
        self._forgotten = torch.tensor(loop.job.split.forget_classes, dtype=torch.int64)
        self._table: Tensor | None = None
        if not loop.preprocess.augments:
            logits = predict_logits(loop.initial, loop.retain_set, loop.preprocess, device=loop.device)
            self._table = self._probabilities(logits).to(loop.device)

    def __call__(self, batch: Batch) -> Tensor:
        """Return probabilities [N, classes]."""
        if self._table is not None:
            return self._table[batch.indices.to(self._device)]
        with torch.no_grad():
            return self._probabilities(self._initial(batch.images))

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.index_fill(1, self._forgotten.to(logits.device), -torch.inf).softmax(1)


class Choice:
    """Ends the loop after the first attempt that is not refused: the loop's ``Stop``."""

    def __init__(
        self,
        model: nn.Module,
        attempts: Sequence[Attempt],
        ends: Sequence[int],
        chooser: Chooser | None,
        untested: str | None,
    ) -> None:
        """Test nothing yet; ``ends`` are the steps after which the attempts end."""
        self._model, self._attempts, self._ends = model, attempts, list(ends)
        self._chooser, self._untested = chooser, untested
        self._tests: list[dict[str, Any]] = []
        self._done = False

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Go on from ``saved``; True if an attempt had been kept by then."""
        if saved is not None:
            self._tests, self._done = [dict(test) for test in saved["tests"]], saved["done"]
        return self._done

    def after_step(self, step: int) -> bool:
        """Test the network at the end of an attempt but the last; True once it is not refused."""
        if self._chooser is None or step not in self._ends[:-1]:
            return False
        start = time.perf_counter()
        found = self._chooser(self._model)
        self._tests.append(
            {
                "decision": found.decision,
                "ks": found.ks,
                "ks_resurfaced": found.ks_resurfaced,
                "bound": found.bound,
                "test_seconds": time.perf_counter() - start,
            }
        )
        self._done = found.decision != "refused"
        return self._done

    @property
    def seconds(self) -> float:
        """What the tests took."""
        return sum((test["test_seconds"] for test in self._tests), start=0.0)

    def state(self) -> StateDict:
        """Return what :meth:`begin` takes to go on."""
        return {"tests": self._tests, "done": self._done}

    def result(self, history: Sequence[dict[str, float]], first: Sequence[int]) -> Search:
        """Return what was tried, with the seconds that the history has for it."""
        records = []
        for number, attempt in enumerate(self._attempts):
            epochs = history[first[number] : first[number] + attempt.epochs]
            if not epochs:
                break
            untested = dict.fromkeys(("decision", "ks", "ks_resurfaced", "bound", "test_seconds"))
            test = self._tests[number] if number < len(self._tests) else untested
            seconds = sum(record["seconds"] for record in epochs)
            records.append({"setting": attempt.setting, "epochs": len(epochs), "seconds": seconds, **test})
        kept = records[-1]
        return Search(kept["setting"], kept["decision"] == "accepted", self._untested, records)
