"""Trainings of the tests of several processes: started by torchrun, or called in one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, divided, methods, parallel, tasks
from pymixunlearn.data import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.nn import MixContrastiveLoss, RealContrastiveLoss
from pymixunlearn.tasks import Split
from pymixunlearn.training import TrainConfig, train
from pymixunlearn.training.loop import Callback, EndLoop, StateDict

STEPS = 50
CPU = torch.device("cpu")

Found = dict[str, Tensor]


@parallel.shared
def use(dtype: torch.dtype) -> None:
    """Compute in ``dtype`` from here on, in all processes."""
    torch.set_default_dtype(dtype)


@contextmanager
def images_as_numbers() -> Iterator[None]:
    """Let images have the type of the weights; preprocessing gives float32."""
    normalise = Preprocess._normalise

    def converted(self: Preprocess, inputs: Tensor) -> Tensor:
        return normalise(self, inputs).to(torch.get_default_dtype())

    with mock.patch.object(Preprocess, "_normalise", converted):
        yield


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3, padding=1)]
    return nn.Sequential(*first, *layers, nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)).to(torch.get_default_dtype())


def split(forget: int = 17 * 10) -> Split:
    digits = data.load("digits")
    return tasks.index_split(digits, range(forget))


@parallel.shared
def step_of_losses(pairing: str, reduction: str, forget: int, retain: int) -> Found:
    """One network's passes over D_f, D_r and their mixes, through both losses, and the gradients of its weights."""
    stream = torch.Generator().manual_seed(1)
    model = network()
    divided.divide(model)
    shapes = [forget, retain, forget * retain if pairing == "grid" else retain]
    images = [torch.rand(count, 1, 8, 8, generator=stream, requires_grad=True) for count in shapes]
    targets = [torch.randn(count, 10, generator=stream) for count in shapes[:2]]
    z_f, z_r, z_mix = (model(part) for part in images)
    mixed = z_mix.reshape(forget, retain, 10) if pairing == "grid" else z_mix
    lam = torch.tensor(0.3)
    loss = MixContrastiveLoss(10.0, pairing, reduction, sharpen_T=0.3)(mixed, *targets, lam)
    loss = loss + 10 * RealContrastiveLoss(5.0, reduction, sharpen_T=0.3)(z_f, z_r, *targets)
    loss = loss + model[0].weight.square().sum()  # what is of no image counts once
    torch.autograd.backward(loss)
    weights = list(model.parameters())
    divided.average_gradients([{"params": [*weights, *images]}])
    return {"loss": loss.detach(), **{str(i): part.grad for i, part in enumerate((*weights, *images))}}


def losses() -> Found:
    cases = [("zip", "sum", 7, 7), ("zip", "mean", 1, 1), ("grid", "sum", 3, 5), ("grid", "mean", 4, 1)]
    found = {case: step_of_losses(*case) for case in cases}
    return {f"{case} {name}": tensor for case, tensors in found.items() for name, tensor in tensors.items()}


def supervised(*layers: nn.Module, **settings: object) -> Found:
    images = data.load("digits").train
    few = images.subset(torch.arange(STEPS * 13))
    config = TrainConfig(epochs=1, batch_size=13, **settings)  # type: ignore[arg-type]
    result = train(network(*layers), few, Preprocess(random_crop=True, flip=True), config, device=CPU, seed=3)
    history = {key: torch.tensor(result.history[-1][key]) for key in ("loss", "accuracy")}
    return {**result.model.state_dict(), **history}


def unlearned(name: str, **settings: object) -> Found:
    result = methods.get(name)(**settings).unlearn(network(), split(), device=CPU, seed=5)
    history = {f"history.{key}": torch.tensor(value) for key, value in result.history[-1].items() if key != "seconds"}
    return {**result.model.state_dict(), **history}


def mixunlearn(**settings: object) -> Found:
    # Not rolled back: it would end where it began.
    fixed = {"lr": 1e-4, "batch_size": 17, "epochs": 5, "feature_layer": "3", "rollback": False}
    return unlearned("mixunlearn", **fixed, **settings)


DOUBLE: dict[str, Callable[[], Found]] = {
    "losses": losses,
    "supervised": lambda: supervised(optimizer="adam"),
    "dropout": lambda: supervised(nn.Dropout2d(0.3), nn.Dropout(0.2), optimizer="sgd", lr=0.05),
    "batch norm": lambda: supervised(nn.BatchNorm2d(8), optimizer="sgd", lr=0.05),
    "mixunlearn": lambda: mixunlearn(),
    "mixunlearn plain": lambda: mixunlearn(fast=False, adversary="ema", ema_momentum=0.9, generator="mixblock-lam"),
    "mixunlearn grid": lambda: unlearned(
        "mixunlearn", lr=1e-4, batch_size=4, epochs=1, feature_layer="3", pairing="grid", label_aware=True
    ),
    "fine-tune": lambda: unlearned("fine-tune", epochs=1, batch_size=25),
    "neggrad": lambda: unlearned("neggrad", epochs=1, batch_size=25, form="convex", lr=0.01),
    "prune-reset": lambda: unlearned("prune-reset", share=0.7, epochs=1, batch_size=25),
    "eu-k": lambda: unlearned("eu-k", frozen=0.05, epochs=1, batch_size=25),
    "retrain": lambda: unlearned("retrain", epochs=1, batch_size=25, optimizer="adam", lr=1e-3),
}
SINGLE: dict[str, Callable[[], Found]] = {
    "float32 supervised": lambda: supervised(optimizer="adam"),
    "float32 mixunlearn": lambda: mixunlearn(adversary="ema"),
}
HALF: dict[str, Callable[[], Found]] = {
    "bfloat16 batch norm": lambda: supervised(nn.BatchNorm2d(8), optimizer="sgd", lr=0.05, precision="bfloat16"),
    "bfloat16 mixunlearn": lambda: mixunlearn(precision="bfloat16"),
    "bfloat16 eu-k": lambda: unlearned("eu-k", frozen=0.05, epochs=1, batch_size=25, precision="bfloat16"),
}


class End(Callback):
    """Leaves a training in the middle of an epoch, in process 0 alone."""

    def on_step_end(self, step: int) -> None:
        if step == 3:
            raise EndLoop


def recover() -> None:
    """Trainings that end early, of which the other processes have to hear."""
    images = data.load("digits").train
    config, arguments = TrainConfig(epochs=1, batch_size=100), {"device": CPU, "seed": 0}
    train(network(), images, Preprocess(), config, callbacks=[End()], **arguments)
    with pytest.raises(UserError, match="the training set is empty"):
        train(network(), images.subset(torch.arange(0)), Preprocess(), config, **arguments)


class Snapshots(Callback):
    def __init__(self) -> None:
        self.taken: list[StateDict] = []

    def on_epoch_end(self, epoch: int, record: dict[str, float], state: Callable[[], StateDict]) -> None:
        self.taken.append(state())


def resumed(snapshot: StateDict | None, *callbacks: Callback) -> Found:
    """Return the weights after the second of two epochs."""
    images = data.load("digits").train.subset(torch.arange(200))
    config = TrainConfig(epochs=2, batch_size=13)
    made = train(network(), images, Preprocess(), config, device=CPU, seed=1, resume=snapshot, callbacks=callbacks)
    return made.model.state_dict()


def half_way() -> StateDict:
    """Return the state after the first of two epochs."""
    snapshots = Snapshots()
    resumed(None, snapshots)
    return snapshots.taken[0]


def run() -> dict[str, Found]:
    with images_as_numbers():
        use(torch.float64)
        try:
            found = {name: case() for name, case in DOUBLE.items()}
        finally:
            use(torch.float32)
    return found | {name: case() for name, case in (SINGLE | HALF).items()}


def main() -> None:
    """Write the results of process 0."""
    if os.environ["RANK"] == "0":
        with parallel.lead():
            recover()
            found = run()
            torch.save({"found": found, "snapshot": half_way()}, sys.argv[1])
    else:
        with images_as_numbers():
            parallel.serve()


if __name__ == "__main__":
    # Functions are known by their module, which is not the main one where messages are read.
    from tests.training import together

    together.main()
