"""Loop that the methods share: batches by epoch, stages, snapshots, progress and means.

A method's own file holds its settings and its equations. What does not tell one method from another is here.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.data.dataset import hold_out
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.methods.base import EPOCHS, Method, MethodOutput, UnlearnJob
from pymixunlearn.methods.by_network import NetworkConfig
from pymixunlearn.methods.collapse import INTERVAL, Collapse, Guard
from pymixunlearn.methods.config import PAPER, MethodConfig, setting
from pymixunlearn.methods.ending import EndingConfig, Endings
from pymixunlearn.methods.means import Means
from pymixunlearn.methods.view import Images, labelled
from pymixunlearn.models import architecture_name
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.loop import StateDict, StepDone, Stop, run_epochs, seconds_by_part
from pymixunlearn.training.optimizers import OptimizerName, load_optimizer, make_optimizer
from pymixunlearn.training.supervised import drops_lone_image

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing itself from Python 3.11 on

ORIGINAL = "original"
"""The loop, before the method's own, that trains on everything what a method has of its own to forget from."""

Measured = Mapping[str, Tensor]
"""What one step measured: named 0-d tensors, still on the device."""


class Stateful(Protocol):
    """Part of a loop that snapshots include: a module, an optimiser, :class:`~pymixunlearn.methods.parts.Tensors`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Put the state back."""


class Stage(NamedTuple):
    """Some epochs of one kind.

    Attributes:
        epochs: How many.
        steps: How many steps each of them has.
        run: Takes the epoch's index in the whole loop, and yields after each step what it measured.
        part: What its seconds are counted as.
    """

    epochs: int
    steps: int
    run: Callable[[int], Iterator[Measured]]
    part: str = EPOCHS


@dataclass(frozen=True)
class LoopConfig(MethodConfig):
    """Setting that all methods have that run in a :class:`Loop`.

    Example:
        >>> LoopConfig().batch_size
        32
    """

    batch_size: int = setting(32, "images per step, of each set where there are two", low=1, source=PAPER)


C = TypeVar("C", bound=LoopConfig)


EpochOf = Literal["forget", "retain", "pairs", "cycled"]
"""What an epoch is: once through D_f or through D_r; both side by side until the smaller one ends; or once through D_r,
with D_f beside it, which starts again, shuffled anew, as often as it ends."""


class Loop(Method, Generic[C]):
    """Method whose work is steps on batches. An object holds settings; :meth:`begin` returns a copy with one run.

    A subclass has at least ``config_class``, whose settings include ``epochs``, :meth:`setup` with an optimiser,
    ``epoch_of`` and :meth:`step`. Methods of several stages have their own :meth:`stages`.

    Attributes:
        model: The network that unlearns, in training mode.
        forget_set: D_f on the device, without labels if the method needs none.
        retain_set: D_r, likewise.
        device: Where they are.
        job: The request: split, callbacks, snapshot.
        seed: What all random streams derive from.
        num_classes: How many logits the model has.
        preprocess: What turns stored images into network inputs.
        example: Network input [1, C, H, W] of one image.
        parts: Everything that changes from epoch to epoch, by name, for snapshots.
        means: The means of the present epoch, for what is not measured in every step.
        closing: What is undone when the run ends, such as hooks.
        stop: What can end the run before its last epoch; None runs all.
        guard: Ends it where the model collapses, and puts the state before that back; None where nobody asked for it.
        in_place: Whether it trains the model it is given, so that a state before a collapse is worth going back to.

    Raises:
        UserError: In :meth:`begin`: the model's logits do not fit the split.

    Example:
        >>> class Ascent(Loop[LoopConfig]):
        ...     config_class, epoch_of = LoopConfig, "forget"
        ...     def setup(self):
        ...         self.optimizer = self.add_optimizer("sgd", 0.1)
        ...     def step(self, forget):
        ...         loss = cross_entropy(self.model(forget.images), forget)
        ...         descend(self.optimizer, -loss)
        ...         return {"forget": loss}
        >>> Ascent(batch_size=8).config.batch_size
        8
    """

    config: C
    job: UnlearnJob
    model: nn.Module
    forget_set: Images
    retain_set: Images
    device: torch.device
    seed: int
    num_classes: int
    preprocess: Preprocess
    example: Tensor
    parts: dict[str, Stateful]
    means: Means
    closing: ExitStack
    stop: Stop | None
    guard: Guard | None
    in_place: ClassVar[bool] = True
    epoch_of: ClassVar[EpochOf] = "pairs"
    step: Callable[..., Measured]
    """One optimisation step on the batch, or the two batches (D_f's first), that ``epoch_of`` says."""

    def resolve(self, model: nn.Module) -> C:
        """Return the settings with those filled in that depend on the model or on each other."""
        if isinstance(self.config, NetworkConfig):
            return self.config.for_network(architecture_name(model))
        return self.config

    def begin(self, job: UnlearnJob) -> Self:
        """Return a copy of this object, set up for one run."""
        run = copy.copy(self)
        run.job = job
        run.config, run.stop, run.guard = run.resolve(job.model), job.stop, None
        run.device, run.seed = job.device, job.seed
        run.preprocess, run.num_classes = job.split.preprocess, job.split.num_classes
        run.forget_set, run.retain_set = job.split.forget.to(job.device), job.split.retain.to(job.device)
        run.example = run.preprocess.evaluation(run.retain_set.gather(torch.zeros(1, dtype=torch.int64)).to(job.device))
        run.model = job.model.train()
        run.parts = {"model": run.model}
        run.means = Means()
        run.closing = ExitStack()
        try:
            run.setup()
        except BaseException:
            run.closing.close()
            raise
        return run

    def setup(self) -> None:
        """Make what a run needs besides the model: optimisers, teachers."""

    def add_optimizer(
        self, name: OptimizerName, lr: float, *, of: nn.Module | None = None, part: str = "optimizer", **settings: float
    ) -> torch.optim.Optimizer:
        """Return an optimiser of the model, or of another network, that snapshots include as ``part``.

        Args:
            name: "adam", "adamw" or "sgd".
            lr: Learning rate.
            of: The network; None takes the model.
            part: Its name among the parts.
            **settings: As for :func:`pymixunlearn.training.optimizers.make_optimizer`.
        """
        optimizer = make_optimizer(self.model if of is None else of, name, lr, **settings)
        self.parts[part] = optimizer
        return optimizer

    def stages(self) -> list[Stage]:
        """Return what to do, in order: unless overridden, ``config.epochs`` times an epoch as ``epoch_of`` says."""
        if self.epoch_of == "pairs":
            steps = self.pair_steps()
        else:
            steps = self.steps(self.forget_set if self.epoch_of == "forget" else self.retain_set)
        epochs: int | None = getattr(self.config, "epochs", None)
        assert epochs is not None  # resolved
        return [Stage(epochs, steps, self.epoch)]

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Take the steps of one epoch (from 0) as ``epoch_of`` says."""
        if self.epoch_of in ("forget", "retain"):
            for batch in self.forget_batches(epoch) if self.epoch_of == "forget" else self.retain_batches(epoch):
                yield self.step(batch)
        else:
            for forget, retain in self.pairs(epoch) if self.epoch_of == "pairs" else self.cycled_pairs(epoch):
                yield self.step(forget, retain)

    @property
    def collapse(self) -> Collapse | None:
        """What the guard went back for: a method that would choose a state itself leaves that one."""
        return None if self.guard is None else self.guard.collapse

    def unlearned(self) -> nn.Module:
        """Return the result once all stages are done."""
        return self.model

    def output(self, history: list[dict[str, float]]) -> MethodOutput:
        """Return what the run gave."""
        parts = seconds_by_part(history, self._parts_of_epochs)
        return MethodOutput(self.unlearned(), history, self.config, collapse=self.collapse, parts=parts)

    def _run(self, job: UnlearnJob) -> MethodOutput:
        run = self.begin(job)
        with run.closing:
            history = run.run()
        return run.output(history)

    def run(self) -> list[dict[str, float]]:
        """Go through all stages and return the history."""
        epochs = [stage for stage in self.stages() for _ in range(stage.epochs)]
        self._parts_of_epochs = [stage.part for stage in epochs]
        stop, last_stage = self.stop, sum(stage.steps for stage in epochs if stage is not epochs[-1])
        if isinstance(stop, Endings):
            stop.enter_last_stage(last_stage)
        self.means = Means()
        if self.job.guarded and self.in_place:
            stop = self.guard = Guard(
                self.model, self.job.split, self._not_finite, stop, device=self.device, seed=self.seed
            )
            self.guard.last_stage = last_stage

        def run_epoch(epoch: int, step_done: StepDone) -> dict[str, float]:
            self.means = Means()
            with seeded_layers(self.device, self.seed, self.name, "layers", epoch):
                for step, measured in enumerate(epochs[epoch].run(epoch), start=1):
                    self.means.add(**measured)
                    if step_done():
                        break
                    if self.guard is None and step % INTERVAL == 0:
                        finite(self.means.read(), epoch)
            if self.guard is None:
                return finite(self.means.read(), epoch)
            return {name: value for name, value in self.means.read().items() if math.isfinite(value)}

        history = run_epochs(
            self.name,
            len(epochs),
            [stage.steps for stage in epochs],
            run_epoch,
            state=lambda: {name: part.state_dict() for name, part in self.parts.items()},
            load_state=self.load_state,
            callbacks=self.job.callbacks,
            resume=self.job.resume,
            stop=stop,
        )
        if self.guard is not None:
            chooses = isinstance(self.config, EndingConfig) and self.config.own_choice is not None
            self.guard.finish(judged=not chooses)
        return history

    def _not_finite(self) -> str | None:
        """Name a mean of the present epoch that is not finite."""
        return next((name for name, value in self.means.read().items() if not math.isfinite(value)), None)

    def load_state(self, state: StateDict) -> None:
        """Put back the states of all parts; a state of differently set up parts raises ``UserError``."""
        if set(state) != set(self.parts):
            raise UserError(f"resume holds {', '.join(sorted(state))}; expected {', '.join(sorted(self.parts))}")
        for name, part in self.parts.items():
            if isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])

    # Data

    def hold_out(self, fraction: float) -> ImageSet:
        """Take a share of every class out of D_r, for validation, and return it; the test set is never used."""
        retain, held_out = hold_out(labelled(self.job.split.retain), fraction=fraction, purpose="validation")
        self.retain_set = retain.to(self.device)
        return held_out.to(self.device)

    def batches(
        self, images: Images, *stream: str | int, batch_size: int | None = None, augment: bool = True
    ) -> Iterator[Batch]:
        """Go once through ``images``, shuffled (and augmented) by the random stream of these names.

        Labels come along exactly if the method needs them.
        """
        size = self.config.batch_size if batch_size is None else batch_size
        lone = drops_lone_image(self.model, len(images), size)
        seed = derive_seed(self.seed, self.name, *stream)
        labels = isinstance(images, ImageSet)
        every = batches(
            images, self.preprocess, batch_size=size, device=self.device, seed=seed, augment=augment, labels=labels
        )
        return (batch for batch in every if not (lone and len(batch.images) == 1))

    def steps(self, images: Images, batch_size: int | None = None) -> int:
        """Return how many batches :meth:`batches` gives."""
        size = self.config.batch_size if batch_size is None else batch_size
        return math.ceil(len(images) / size) - drops_lone_image(self.model, len(images), size)

    def forget_batches(self, epoch: int, turn: int = 0) -> Iterator[Batch]:
        """Go once through D_f."""
        return self.batches(self.forget_set, "forget", epoch, turn)

    def retain_batches(self, epoch: int) -> Iterator[Batch]:
        """Go once through D_r."""
        return self.batches(self.retain_set, "retain", epoch)

    def pairs(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """Iterate over D_f and D_r side by side until the smaller one ends."""
        return zip(self.forget_batches(epoch), self.retain_batches(epoch), strict=False)

    def pair_steps(self) -> int:
        """Return how many pairs :meth:`pairs` gives."""
        return min(self.steps(self.forget_set), self.steps(self.retain_set))

    def cycled_pairs(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """Go once through D_r, with D_f beside it, which starts again, shuffled anew, as often as it ends."""
        forget = (batch for turn in itertools.count() for batch in self.forget_batches(epoch, turn))
        return ((next(forget), retain) for retain in self.retain_batches(epoch))

    def predict(self, images: ImageSet) -> Tensor:
        """Return the predicted class [N] of each image, in evaluation mode, without augmentation, on the CPU."""
        logits = predict_logits(self.model.eval(), images, self.preprocess, device=self.device)
        self.model.train()
        return logits.argmax(1)

    def generator(self, *stream: str | int) -> torch.Generator:
        """Return the random stream of these names, on the device."""
        return generator(self.seed, self.name, *stream, device=self.device)


class LoopMethod(Method):
    """Method whose settings choose the :class:`Loop` that does the work."""

    @abstractmethod
    def loop(self) -> Loop[Any]:
        """Return the loop with this method's settings."""

    def begin(self, job: UnlearnJob) -> Loop[Any]:
        """Return the loop set up for one run."""
        return self.loop().begin(job)

    def _run(self, job: UnlearnJob) -> MethodOutput:
        return self.loop()._run(job)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that nothing can train: the initial model f_D as a teacher."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one optimisation step that lowers ``loss``.

    Example:
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> descend(torch.optim.SGD([w], lr=0.5), (w**2).sum())
        >>> w.item()
        0.0
    """
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()


def targets_of(batch: Batch) -> Tensor:
    """Return the labels [N] of a batch of a method that needs them."""
    assert batch.targets is not None  # a method that needs labels is given them
    return batch.targets


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross entropy of logits [N, classes] with the batch's labels.

    Example:
        >>> batch = Batch(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), torch.arange(2))
        >>> round(cross_entropy(torch.zeros(2, 4), batch).item(), 4)
        1.3863
    """
    return F.cross_entropy(logits, targets_of(batch))


def kl_divergence(teacher: Tensor, student: Tensor, T: float = 1.0) -> Tensor:
    """Return ``T^2 KL(softmax(teacher / T) || softmax(student / T))``, the mean over rows of logits [N, classes].

    The factor keeps the size of the gradient when T changes (Hinton et al. 2015).
    """
    p, q = torch.log_softmax(teacher / T, 1), torch.log_softmax(student / T, 1)
    return T**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def finite(record: dict[str, float], epoch: int) -> dict[str, float]:
    """Return an epoch's means, after the check that training has not diverged.

    Raises:
        UserError: One of them is infinite or not a number.
    """
    for name, value in record.items():
        if not math.isfinite(value):
            raise UserError(f"unlearning diverged: {name} is {value} in epoch {epoch + 1}; expected a smaller lr")
    return record
