"""Supervised training with cross entropy, by which initial and retrained models are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.divided import divide, undivide
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import trainable
from pymixunlearn.models.autocast import PRECISIONS, compute_as_usual, compute_in
from pymixunlearn.models.normalisation import frozen_norms, hold_norms, release_norms
from pymixunlearn.parallel import shared
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.loop import Callback, StateDict, StepDone, run_epochs
from pymixunlearn.training.optimizers import OptimizerName, make_optimizer

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing itself from Python 3.11 on

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (lambda value: isinstance(value, int) and value >= 0, "an integer of at least 0"),
    "lr": (lambda value: 0 < value < math.inf, "a number above 0"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "batch_size": (lambda value: isinstance(value, int) and value >= 1, "an integer of at least 1"),
    "optimizer": (lambda value: value in ("adam", "adamw", "sgd"), "adam, adamw or sgd"),
    "momentum": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "std_weight": (lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "consistency": (lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "ramp_up": (lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "ema": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "schedule": (lambda value: value in ("constant", "linear"), "constant or linear"),
    "precision": (lambda value: value in PRECISIONS, "float32 or bfloat16"),
}


@dataclass(frozen=True)
class TrainConfig:
    """The hyper-parameters of supervised training.

    Attributes:
        epochs: Passes over the images, at least 0.
        lr: Learning rate, above 0.
        weight_decay: Coefficient of the squared norm's gradient, of AdamW of the weights themselves; at least 0.
        batch_size: Images per step, at least 1.
        optimizer: "adam", "adamw" or "sgd".
        momentum: Momentum of SGD, in [0, 1); the others do not use it.
        std_weight: gamma, at least 0: the loss is CE + gamma mean_i sqrt(Var_k z_ik), with logits z and the variance
            over the classes k. Unrolling forgets a model better that was trained with it (Thudi et al. 2022).
        schedule: "constant", or "linear": the learning rate falls to 0 from step to step, so that the last epoch does
            not tilt between groups of classes.
        precision: "float32", or "bfloat16": the network's passes run under autocast; weights, losses and the
            optimiser stay in float32.

    Example:
        >>> TrainConfig(epochs=3, optimizer="sgd").to_dict()["optimizer"]
        'sgd'
        >>> TrainConfig(lr=0)
        Traceback (most recent call last):
        pymixunlearn.errors.UserError: lr is 0; expected a number above 0
    """

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 32
    optimizer: OptimizerName = "adam"
    momentum: float = 0.9
    std_weight: float = 0.0
    schedule: Literal["constant", "linear"] = "constant"
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: A value is out of its range.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            accepts, expected = _RANGES[field.name]
            try:
                valid = not isinstance(value, bool) and accepts(value)
            except TypeError:
                valid = False
            if not valid:
                raise UserError(f"{field.name} is {value!r}; expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values, but a constant schedule, and a precision of float32.

        Before there were others none was recorded: what was trained then is the same training.
        """
        usual = {"schedule": "constant", "precision": "float32"}
        return {name: value for name, value in asdict(self).items() if usual.get(name) != value}

    def share_of_rate(self, step: int, steps: int) -> float:
        """Return by which factor the learning rate is multiplied in a step, from 0, of so many.

        Example:
            >>> [TrainConfig(schedule="linear").share_of_rate(step, 4) for step in range(4)]
            [1.0, 0.75, 0.5, 0.25]
        """
        return 1.0 if self.schedule == "constant" else 1 - step / steps

    def set_rate(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Give an optimiser the learning rate of a step, from 0, of so many in the whole training."""
        if self.schedule != "constant":
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.share_of_rate(step, steps)

    def replaced(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with ``settings`` in place; those that are None stay as they are.

        Raises:
            UserError: A setting is that of another kind of training, or out of range.
        """
        chosen = {name: value for name, value in settings.items() if value is not None}
        for name in chosen:
            if not hasattr(self, name):
                raise UserError(f"the setting {name} belongs to semi-supervised training, that is to task 'semi'")
        return replace(self, **chosen)


@dataclass(frozen=True)
class MeanTeacherConfig(TrainConfig):
    """The hyper-parameters of :func:`pymixunlearn.training.mean_teacher.train_mean_teacher`.

    Attributes:
        epochs: Passes over the larger of the two sets, labelled and unlabelled.
        batch_size: Images per step, of each set.
        consistency: The largest weight w of the consistency loss, at least 0.
        ramp_up: Over how many epochs the weight rises to that, at least 0.
        ema: How much of itself the teacher keeps in every step, in [0, 1).

    Example:
        >>> MeanTeacherConfig(epochs=2).consistency
        30.0
    """

    consistency: float = 30.0
    ramp_up: float = 5.0
    ema: float = 0.97


@dataclass(frozen=True)
class TrainResult:
    """A trained model, the seconds its epochs took, and one record per epoch (loss, accuracy in percent).

    Example:
        >>> TrainResult(nn.Linear(2, 2), seconds=0.5, history=[{"epoch": 1, "loss": 0.7}]).history[-1]["loss"]
        0.7
    """

    model: nn.Module
    seconds: float
    history: list[dict[str, float]]


@shared
def train(
    model: nn.Module,
    images: ImageSet,
    preprocess: Preprocess,
    config: TrainConfig,
    *,
    device: torch.device,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    resume: StateDict | None = None,
    name: str = "train",
) -> TrainResult:
    """Train ``model`` in place on all of ``images`` with cross entropy.

    The same model, images, settings and seed give the same weights, bit for bit, on the same machine (device, number
    of threads, version of PyTorch), also when the training was interrupted and resumed.

    Args:
        model: Maps images to logits [N, classes]; moved to ``device``, and left in evaluation mode.
        images: The training set; its targets index the model's logits.
        preprocess: Applied to every batch, with its random augmentation.
        config: The hyper-parameters.
        device: Where to train.
        seed: Fixes the order of the images, the augmentation and the draws of the layers.
        callbacks: Called at every step and epoch.
        resume: A snapshot from ``Callback.on_epoch_end`` of the same training.
        name: The loop's name, for the callbacks.

    Returns:
        The model, the seconds over all epochs (before ``resume`` included), and the history.

    Raises:
        UserError: An empty training set, targets outside the logits, a loss that is no longer finite, or a snapshot of
            another training.

    Example:
        >>> from pymixunlearn import data, models, training
        >>> digits = data.load("digits")
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> device, config = training.resolve_device("cpu"), training.TrainConfig(epochs=2)
        >>> result = training.train(model, digits.train, digits.preprocess, config, device=device)
        >>> result.history[-1]["accuracy"] > 70
        True
    """
    if len(images) == 0:
        raise UserError("the training set is empty; expected at least one image")
    model.to(device)
    images = images.to(device)
    with trainable(model):
        optimizer = make_optimizer(
            model, config.optimizer, config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        lone = drops_lone_image(model, len(images), config.batch_size)
        steps = math.ceil(len(images) / config.batch_size) - lone

        def run_epoch(epoch: int, step_done: StepDone) -> Mapping[str, float]:
            model.train()
            totals = torch.zeros(3, device=device, dtype=torch.float64)
            order = derive_seed(seed, "batches", epoch)
            with seeded_layers(device, seed, "layers", epoch):
                every = batches(
                    images, preprocess, batch_size=config.batch_size, device=device, seed=order, augment=True
                )
                for step, batch in enumerate(batch for batch in every if not (lone and len(batch.images) == 1)):
                    config.set_rate(optimizer, epoch * steps + step, config.epochs * steps)
                    totals += _step(model, optimizer, batch, config.std_weight)
                    step_done()
            return supervised_means(totals, epoch)

        parts: dict[str, nn.Module | torch.optim.Optimizer] = {"model": model, "optimizer": optimizer}
        return trained(parts, name, config, steps, run_epoch, callbacks, resume)


def trained(
    parts: Mapping[str, nn.Module | torch.optim.Optimizer],
    name: str,
    config: TrainConfig,
    steps: int,
    run_epoch: Callable[[int, StepDone], Mapping[str, float]],
    callbacks: Sequence[Callback],
    resume: StateDict | None,
) -> TrainResult:
    """Run the epochs of a training; the result is the part "model". ``parts`` are what snapshots include."""

    def state() -> StateDict:
        return {part: value.state_dict() for part, value in parts.items()}

    def load_state(saved: StateDict) -> None:
        for part, value in parts.items():
            value.load_state_dict(saved[part])

    networks = [part for part in parts.values() if isinstance(part, nn.Module)]
    for network in networks:
        compute_in(network, config.precision)
        hold_norms(network)
        divide(network, frozen=frozen_norms(network))
    try:
        history = run_epochs(
            name,
            config.epochs,
            steps,
            run_epoch,
            state=state,
            load_state=load_state,
            callbacks=callbacks,
            resume=resume,
        )
    finally:
        for network in networks:
            compute_as_usual(network)
            undivide(network)
            release_norms(network)
    model = parts["model"]
    assert isinstance(model, nn.Module)
    return TrainResult(model.eval(), sum(record["seconds"] for record in history), history)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, std_weight: float) -> Tensor:
    """Do one step; return its totals, as :func:`supervised_totals` does."""
    assert batch.targets is not None  # labels=True
    optimizer.zero_grad(set_to_none=True)
    logits = model(batch.images)
    loss = supervised_loss(logits, batch.targets, std_weight)
    torch.autograd.backward(loss)
    optimizer.step()
    return supervised_totals(loss, logits, batch.targets)


def supervised_loss(logits: Tensor, targets: Tensor, std_weight: float) -> Tensor:
    """CE + gamma mean_i std_k(z_ik), 0-d; the standard deviation is over the classes, with their number below."""
    loss = F.cross_entropy(logits, targets)
    return loss + std_weight * logits.std(1, correction=0).mean() if std_weight else loss


def supervised_totals(loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return a step's summed loss, its number of hits and its number of images, still on the device [3]."""
    hits = (logits.detach().argmax(1) == targets).sum()
    return torch.stack([loss.detach() * len(targets), hits, torch.full_like(hits, len(targets))]).double()


def supervised_means(totals: Tensor, epoch: int) -> dict[str, float]:
    """Read an epoch's totals from the device, once.

    Raises:
        UserError: The loss is not finite.
    """
    loss, hits, count = totals.tolist()
    if not math.isfinite(loss):
        raise UserError(
            f"training diverged: the loss of epoch {epoch + 1} is {loss}; expected a smaller lr to prevent it"
        )
    return {"loss": loss / count, "accuracy": 100 * hits / count}


def drops_lone_image(model: nn.Module, count: int, batch_size: int) -> bool:
    """Tell whether the last batch must be left out: batch normalisation cannot train on a single image."""
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return normalises and batch_size > 1 and count > 1 and count % batch_size == 1
