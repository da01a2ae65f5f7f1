"""Unlearning method: a name, settings, and a way from a model and a split to an unlearned model.

A method sees networks and tensors only. It reads no files, knows no data set by name and prints nothing: progress goes
through callbacks.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import nn

from pymixunlearn.display import a_type
from pymixunlearn.divided import divide, undivide
from pymixunlearn.errors import UserError
from pymixunlearn.methods.accepted import AcceptedStopping
from pymixunlearn.methods.choosing import Chooser, Search
from pymixunlearn.methods.collapse import Collapse
from pymixunlearn.methods.config import MethodConfig
from pymixunlearn.methods.end_rules import end_rules
from pymixunlearn.methods.ending import EndingConfig, Endings
from pymixunlearn.methods.rollback import RollbackResult
from pymixunlearn.methods.stopping import Stopping
from pymixunlearn.methods.view import SplitView
from pymixunlearn.models.adapter import adapted, release
from pymixunlearn.models.autocast import compute_as_usual, compute_in, settled_precision
from pymixunlearn.models.copying import Layout, Precision, private_copy
from pymixunlearn.models.kinds import check_kind
from pymixunlearn.models.normalisation import frozen_norms, hold_norms, release_norms
from pymixunlearn.parallel import processes, shared
from pymixunlearn.tasks import Split
from pymixunlearn.training.cache import ModelStore
from pymixunlearn.training.device import resolve_device
from pymixunlearn.training.loop import Callback, StateDict
from pymixunlearn.training.recipes import defaults_of
from pymixunlearn.training.supervised import TrainConfig

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing itself from Python 3.11 on

__all__ = [
    "Method",
    "MethodConfig",
    "MethodOutput",
    "Preparation",
    "Recipe",
    "UnlearnJob",
    "UnlearnResult",
    "held_fixed",
]

EPOCHS = "epochs"
"""What the seconds of a method's epochs are counted as, unless its stages have names."""

_TRIED = 4
"""How many images the model is tried with before any work."""


class Preparation(NamedTuple):
    """What a method had to train before there was anything to forget: SISA's networks on all data.

    Attributes:
        seconds: What that took, also where it was in an earlier run.
        history: One record per epoch of what was trained in this run.
    """

    seconds: float
    history: list[dict[str, float]]


class Recipe(NamedTuple):
    """How the models around an unlearning are trained.

    Attributes:
        initial: The model that unlearns.
        retrain: Retrain.

    Example:
        >>> from pymixunlearn import models
        >>> recipe = Recipe.published(models.build("cnn", num_classes=10, in_channels=1, image_size=8))
        >>> recipe.initial.epochs, recipe.retrain.epochs
        (10, 20)
    """

    initial: TrainConfig
    retrain: TrainConfig

    @classmethod
    def published(cls, model: nn.Module) -> Recipe:
        """Return the settings of a network of ``models.build``; any other gets those of its kind."""
        return cls(defaults_of(model, "initial"), defaults_of(model, "retrain"))


class UnlearnResult(NamedTuple):
    """What :meth:`Method.unlearn` returns.

    Attributes:
        model: The unlearned network, a new object in eval mode on the device it was unlearned on.
        seconds: Time the method took, its set-up included, what callbacks did and ``preparation`` excluded.
        history: One record per epoch: "epoch", "seconds" and the method's own means.
        config: The settings that were used, with every default resolved.
        stopping: How the run ended, with ``stop="auto"`` or "accepted"; otherwise None.
        generator: What mixed images in the end, for methods that train such a network.
        preparation: For methods that do not start from the model they are given; otherwise None.
        search: What was tried, for methods that choose a setting by the acceptance test; otherwise None.
        rollback: What held-out images said, where the rollback watched the run; otherwise None.
        collapse: What ended the run where the model collapsed; otherwise None.
        parts: What the seconds went to: "setup", "epochs", and what the method names besides; they add up to
            ``seconds``.

    Example:
        >>> from pymixunlearn import methods
        >>> result = UnlearnResult(nn.Linear(2, 2), 1.5, [{"epoch": 1, "loss": 0.3}], methods.NegGradConfig())
        >>> result.seconds, result.config.lr
        (1.5, 0.0003)
    """

    model: nn.Module
    seconds: float
    history: list[dict[str, float]]
    config: MethodConfig
    stopping: Stopping | AcceptedStopping | None = None
    generator: nn.Module | None = None
    preparation: Preparation | None = None
    search: Search | None = None
    rollback: RollbackResult | None = None
    collapse: Collapse | None = None
    parts: Mapping[str, float] = MappingProxyType({})


class MethodOutput(NamedTuple):
    """What a method's own code returns; :class:`UnlearnResult` adds the time.

    ``earlier`` are the seconds that parts of the unlearning took in an earlier run, from which they were taken over.
    ``parts`` says what the seconds of the history went to; None counts them as "epochs".
    """

    model: nn.Module
    history: list[dict[str, float]]
    config: MethodConfig
    generator: nn.Module | None = None
    preparation: Preparation | None = None
    earlier: float = 0.0
    search: Search | None = None
    collapse: Collapse | None = None
    parts: Mapping[str, float] | None = None


@dataclass(frozen=True)
class UnlearnJob:
    """One request to unlearn. ``model`` is a private copy on ``device`` that the method may change.

    A method whose settings derive from ``EndingConfig`` changes ``model`` in place and gives ``stop`` to its loop; what
    is held out to judge by is no longer in ``split``. ``store`` holds networks that a later run can go on from,
    ``recipe`` says how the models were trained, and ``chooser`` makes the acceptance test where there is a validation
    set. ``guarded`` says whether a loop is watched for a collapse.
    """

    model: nn.Module
    split: SplitView
    device: torch.device
    seed: int
    callbacks: Sequence[Callback]
    resume: StateDict | None
    stop: Endings | None = None
    store: ModelStore | None = None
    given_recipe: Recipe | None = None
    chooser: Chooser | None = None
    guarded: bool = False

    @property
    def recipe(self) -> Recipe:
        """How the models were trained: as was said, or as is published for the network."""
        return Recipe.published(self.model) if self.given_recipe is None else self.given_recipe


class Method(ABC):
    """An unlearning method with its settings.

    Example:
        >>> from pymixunlearn import methods
        >>> method = methods.get("scrub")(variant="large")
        >>> method.name, method.needs_labels, method.config.variant
        ('scrub', True, 'large')

    Args:
        config: The settings; None takes the defaults.
        **fields: Single settings instead of, or on top of, ``config``: ``MixUnlearn(label_aware=True)``.

    Raises:
        UserError: A setting is unknown or out of range, or ``config`` belongs to another method.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    config_class: ClassVar[type[MethodConfig]]
    config: MethodConfig
    semi_supervised: ClassVar[bool] = False
    """Whether a method that needs labels also learns from images without them."""
    chooses: ClassVar[bool] = False
    """Whether a setting may be chosen by the acceptance test, on half of the validation set."""

    def __init__(self, config: MethodConfig | None = None, **fields: Any) -> None:
        """Check the settings."""
        if config is None:
            config = self.config_class()
        elif not isinstance(config, self.config_class):
            raise UserError(f"config is {a_type(config)}; expected a {self.config_class.__name__}")
        self.config = config.replace(**fields) if fields else config

    @property
    def needs_labels(self) -> bool:
        """Whether the method reads the labels of the training images; a method that does not is given none."""
        return True

    @property
    def in_one_process(self) -> str | None:
        """What cannot be done by several processes together, as a subject; None where everything can."""
        return f"method '{self.name}'"

    def check_split(self, split: Split) -> None:
        """Tell whether the method can unlearn ``split``.

        Raises:
            UserError: The method needs labels that the split withholds, or is to end by the acceptance test and there
                is no validation set.
        """
        if processes() > 1:
            self._check_processes(split)
        ends_by_test = isinstance(self.config, EndingConfig) and self.config.stop == "accepted"
        if ends_by_test and split.dataset.validation is None:
            raise UserError(
                f"stop is accepted, but the data set '{split.dataset.name}' has no validation set; expected one (where "
                "the initial model is trained here, --validation 0.1 takes some of the training images) or stop=epochs"
            )
        if split.unlabelled_indices is None or not self.needs_labels or self.semi_supervised:
            return
        raise UserError(
            f"method '{self.name}' needs labels here, and in task '{split.task}' "
            f"{len(split.unlabelled_indices)} of {len(split.train)} samples have none; expected a label-agnostic method"
        )

    @shared
    def unlearn(
        self,
        model: nn.Module,
        split: Split,
        *,
        device: torch.device | str | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: StateDict | None = None,
        store: ModelStore | None = None,
        recipe: Recipe | None = None,
        guard: bool = False,
    ) -> UnlearnResult:
        """Unlearn ``split.forget`` from ``model``, which is left as it is.

        Args:
            model: The initial model: images [N, C, H, W] to logits [N, classes], or to an object, tuple or dict with
                them. float16 and bfloat16 are unlearned in float32 and rounded at the end.
            split: What to forget and what to retain.
            device: Where to work; None takes CUDA where there is one.
            seed: Fixes every random choice: the same seed gives the same model bit for bit on the same machine, with
                the same number of threads.
            callbacks: Receive the events of steps and epochs.
            resume: A state that an earlier, interrupted run of the same job gave to ``Callback.on_epoch_end``.
            store: Where a method that trains networks of its own (SISA) looks for them and leaves them; a
                :class:`pymixunlearn.training.ModelCache` saves them in files. None trains them anew.
            recipe: How the model was trained, and Retrain would be, for methods that train likewise; None takes the
                published settings of the network.
            guard: Where the model collapses (a loss or a weight that is not finite, or no better than chance on D_r),
                give back the state before, and say so in ``collapse``; that costs a look at 100 images every 25 steps.
                Not for methods that train fresh weights, nor for a function. False raises an error where a loss is not
                finite.

        Returns:
            The unlearned network with the time, the history and the settings of the run.

        Raises:
            UserError: The device is not available or does not compute in the precision, the model does not fit the
                split, the method or the precision, cannot be copied, is a program (TorchScript, torch.export) or not
                finite, or the method refuses the split (:meth:`check_split`).

        Example:
            >>> from pymixunlearn import data, methods, models, tasks
            >>> split = tasks.class_split(data.load("digits"), [0])
            >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
            >>> result = methods.get("gradient-ascent")(epochs=1).unlearn(model, split, device="cpu")
            >>> len(result.history), result.config.epochs
            (1, 1)
        """
        self.check_split(split)
        set_up = _SetUp()
        where = resolve_device(device)
        check_kind(model)
        private = private_copy(model).to(where)
        hold_norms(private)
        layout, types = Layout(private), Precision(private)
        view, rules, chooser = SplitView.of(split, labels=self.needs_labels), None, None
        few = torch.arange(min(_TRIED, len(view.retain)))
        example = view.preprocess.evaluation(view.retain.gather(few).to(where))
        precision = settled_precision(self.config.precision, where)
        with adapted(private, example, view.num_classes, finite=True):
            compute_in(private, precision)
            divide(private, frozen=frozen_norms(private))
            job = UnlearnJob(
                private, view, where, seed, [set_up, *callbacks], resume, None, store, recipe, guarded=guard
            )
            if self.reads_validation and split.validation_halves is not None:
                choosing, lr = split.validation_halves.choosing, job.recipe.initial.lr
                chooser = Chooser(model, split, choosing, lr=lr, device=where, seed=seed)
            if isinstance(self.config, EndingConfig):
                options = {"labels": self.needs_labels, "device": where, "seed": seed}
                rules = end_rules(self.config, private, split, view, chooser, **options)  # type: ignore[arg-type]
                job = replace(job, split=rules.view, stop=rules.together)
            job = replace(job, chooser=chooser if self.chooses else None)
            done = self._settled(precision)._run(job)
        done.model.zero_grad(set_to_none=True)
        undivide(done.model)
        compute_as_usual(done.model)
        release_norms(done.model)
        release(done.model)
        types.restore(done.model)
        layout.restore(done.model)
        in_epochs = sum(record["seconds"] for record in done.history)
        parts = {"setup": set_up.seconds, **({EPOCHS: in_epochs} if done.parts is None else done.parts)}
        if done.earlier:
            parts["earlier"] = done.earlier
        seconds = done.earlier + set_up.seconds + in_epochs
        stopping = None if rules is None or rules.stop is None else rules.stop.result()
        rollback = None if rules is None or rules.rollback is None else rules.rollback.result()
        return UnlearnResult(
            done.model.eval(),
            seconds,
            done.history,
            done.config,
            stopping,
            done.generator,
            done.preparation,
            done.search,
            rollback,
            done.collapse,
            parts,
        )

    def _settled(self, precision: str) -> Self:
        """Return the method with the precision in its settings, where these leave it to the device."""
        if self.config.precision is not None:
            return self
        method = copy.copy(self)
        method.config = self.config.replace(precision=precision)
        return method

    def _check_processes(self, split: Split) -> None:
        """Tell whether several processes can unlearn together.

        Raises:
            UserError: They cannot.
        """
        reason = self.in_one_process
        if self.semi_supervised and split.unlabelled_indices is not None:
            reason = "training with unlabelled images"
        if self.reads_validation and split.validation_halves is not None:
            reason = "choosing by the acceptance test"
        if reason is not None:
            raise UserError(f"{reason} runs in one process only; start it without torchrun")

    @property
    def reads_validation(self) -> bool:
        """Whether the result depends on the half of a validation set that serves to choose by."""
        config = self.config
        if self.chooses or not isinstance(config, EndingConfig):
            return self.chooses
        return config.stop == "accepted" or (config.rollback is True and self.needs_labels)

    @property
    def reads_recipe(self) -> bool:
        """Whether the result depends on how the initial model was trained, and Retrain would be."""
        return self.reads_validation

    @abstractmethod
    def _run(self, job: UnlearnJob) -> MethodOutput:
        """Do the work on the private copy ``job.model``."""


class _SetUp(Callback):
    """Takes the time to the start of the method's last loop, from its making or from the end of the loop before."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.seconds = 0.0

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        self.seconds = time.perf_counter() - self._started

    def on_loop_end(self) -> None:
        self._started = time.perf_counter()


@contextmanager
def held_fixed(model: nn.Module) -> Iterator[None]:
    """Within the block nothing can change ``model``: eval mode, and no gradient reaches its parameters.

    Gradients still flow *through* it to its input. Modes and flags are put back as they were, module by module.
    """
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
