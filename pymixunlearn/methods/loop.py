"""The loop that the methods share: batches by epoch, stages, snapshots, progress and means.

A method's own file holds its settings and its equations. What does not tell one method from another is here.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.data.dataset import hold_out
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.methods.base import Job, Means, Method, Outcome
from pymixunlearn.methods.config import MethodConfig, setting
from pymixunlearn.methods.view import Images, labelled
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.loop import StateDict, StepDone, run_epochs
from pymixunlearn.training.supervised import drops_lone_image

Measured = Mapping[str, Tensor]
"""What one step measured: named 0-d tensors, still on the device."""


class Stateful(Protocol):
    """A part of a loop that a snapshot keeps: a module, an optimiser, :class:`Tensors`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Put the state back."""


class Tensors(dict[str, Tensor]):
    """Named tensors on one device, as a part that a snapshot keeps."""

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors."""
        return dict(self)

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take the tensors over, to where their namesakes are."""
        for name, value in state_dict.items():
            self[name] = value.to(self[name].device)


class Stage(NamedTuple):
    """Some epochs of one kind.

    Attributes:
        epochs: How many.
        steps: How many steps each of them has.
        run: Takes the epoch's index in the whole loop, and yields after each step what it measured.
    """

    epochs: int
    steps: int
    run: Callable[[int], Iterator[Measured]]


@dataclass(frozen=True)
class LoopConfig(MethodConfig):
    """The setting that all methods that run in a :class:`Loop` have."""

    batch_size: int = setting(32, "images per step, of each set where there are two", low=1)


C = TypeVar("C", bound=LoopConfig)


class Loop(ABC, Generic[C]):
    """The networks, optimisers and steps of one run. Subclasses add ``parts`` and say their :meth:`stages`.

    Args:
        config: The method's settings.
        job: The model to change, the split, the device and the seed.

    Attributes:
        model: The network that unlearns, in training mode.
        forget_set: D_f on the device, without labels if the method needs none.
        retain_set: D_r, likewise.
        parts: Everything that changes from epoch to epoch, by name; a snapshot keeps it.
        closing: What is undone when the run ends, such as hooks.

    Raises:
        UserError: The model's logits do not fit the split.
    """

    name: ClassVar[str]

    def __init__(self, config: C, job: Job) -> None:
        """Bring both sets to the job's device."""
        self.config, self.job = config, job
        self.device, self.seed = job.device, job.seed
        self.preprocess, self.num_classes = job.split.preprocess, job.split.num_classes
        self.forget_set: Images = job.split.forget.to(job.device)
        self.retain_set: Images = job.split.retain.to(job.device)
        self.example = self.preprocess.evaluation(
            self.retain_set.gather(torch.zeros(1, dtype=torch.int64)).to(job.device)
        )
        with torch.no_grad():
            check_logits(job.model.eval()(self.example), self.num_classes)
        self.model = job.model.train()
        self.parts: dict[str, Stateful] = {"model": self.model}
        self.closing = ExitStack()

    @abstractmethod
    def stages(self) -> list[Stage]:
        """Return what to do, in order."""

    def unlearned(self) -> nn.Module:
        """Return the result once all stages are done."""
        return self.model

    def run(self) -> list[dict[str, float]]:
        """Go through all stages and return the history."""
        epochs = [stage for stage in self.stages() for _ in range(stage.epochs)]

        def run_epoch(epoch: int, step_done: StepDone) -> dict[str, float]:
            means = Means()
            with seeded_layers(self.device, self.seed, self.name, "layers", epoch):
                for measured in epochs[epoch].run(epoch):
                    means.add(**measured)
                    if step_done():
                        break
            return finite(means.read(), epoch)

        return run_epochs(
            self.name,
            len(epochs),
            [stage.steps for stage in epochs],
            run_epoch,
            state=lambda: {name: part.state_dict() for name, part in self.parts.items()},
            load_state=self._load_state,
            callbacks=self.job.callbacks,
            resume=self.job.resume,
            stop=self.job.stop,
        )

    def _load_state(self, state: StateDict) -> None:
        if set(state) != set(self.parts):
            raise UserError(f"resume holds {', '.join(sorted(state))}; expected {', '.join(sorted(self.parts))}")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    # Data

    def hold_out(self, fraction: float) -> ImageSet:
        """Take a share of every class out of D_r, for validation, and return it; the test set is never looked at."""
        retain, held_out = hold_out(labelled(self.job.split.retain), fraction=fraction)
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
        walk = batches(
            images, self.preprocess, batch_size=size, device=self.device, seed=seed, augment=augment, labels=labels
        )
        return (batch for batch in walk if not (lone and len(batch.images) == 1))

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
        """Walk D_f and D_r side by side until the smaller one ends."""
        return zip(self.forget_batches(epoch), self.retain_batches(epoch), strict=False)

    def pair_steps(self) -> int:
        """Return how many pairs :meth:`pairs` gives."""
        return min(self.steps(self.forget_set), self.steps(self.retain_set))

    def cycled_pairs(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """Go once through D_r, with D_f beside it, which starts again, shuffled anew, as often as it ends."""
        forget = (batch for turn in itertools.count() for batch in self.forget_batches(epoch, turn))
        return ((next(forget), retain) for retain in self.retain_batches(epoch))

    def answers(self, images: ImageSet) -> Tensor:
        """Return the model's answers [N] to ``images`` in evaluation mode, without augmentation, on the CPU."""
        logits = predict_logits(self.model.eval(), images, self.preprocess, device=self.device)
        self.model.train()
        return logits.argmax(1)

    def generator(self, *stream: str | int) -> torch.Generator:
        """Return the random stream of these names, on the device."""
        return generator(self.seed, self.name, *stream, device=self.device)


class LoopMethod(Method):
    """A method whose work is a :class:`Loop`."""

    loop_class: ClassVar[type[Loop[Any]]]

    def resolve(self, model: nn.Module) -> LoopConfig:
        """Return the settings with those filled in that depend on the model or on each other."""
        assert isinstance(self.config, LoopConfig)
        return self.config

    def make_loop(self, job: Job) -> Loop[Any]:
        """Return the loop of one run."""
        return self.loop_class(self.resolve(job.model), job)

    def _run(self, job: Job) -> Outcome:
        loop = self.make_loop(job)
        with loop.closing:
            history = loop.run()
        return Outcome(loop.unlearned(), history, loop.config)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that nothing can train: the initial model f_D as a teacher."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Do one optimisation step that lowers ``loss``."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()


def targets_of(batch: Batch) -> Tensor:
    """Return the labels [N] of a batch of a method that needs them."""
    assert batch.targets is not None  # a method that needs labels is given them
    return batch.targets


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross entropy of logits [N, classes] with the batch's labels."""
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


def check_logits(logits: object, num_classes: int) -> None:
    """Check what a model makes of one image.

    Raises:
        UserError: It is not a tensor [1, num_classes].
    """
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [1, num_classes]:
        raise UserError(f"model maps one image to {shape}; expected logits [1, {num_classes}] for this split's classes")
