"""What the method tests share: the embedded digits, a network trained on them, and a tiny job without any data set."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, models, tasks
from pymixunlearn.methods.base import UnlearnJob
from pymixunlearn.methods.view import SplitView
from pymixunlearn.training import TrainConfig, train

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def digits_class(digits: data.Dataset) -> tasks.Split:
    return tasks.class_split(digits)


@pytest.fixture(scope="session")
def digits_model(digits: data.Dataset) -> nn.Module:
    """A network that knows all ten digits."""
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    return train(model, digits.train, digits.preprocess, TrainConfig(epochs=8), device=CPU).model


class Tiny(nn.Module):
    """A network with batch normalisation and dropout, as a user might bring it: no attributes beyond its layers."""

    def __init__(self, classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        layers = {
            # No bias before the normalisation: its gradient would be rounding noise only.
            "conv": nn.Conv2d(2, 6, 3, padding=1, bias=False),
            "norm": nn.BatchNorm2d(6),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
        }
        self.body = nn.Sequential(OrderedDict(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6 * 16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.body(images).flatten(1)))


class TinyWorld:
    """Makes tiny jobs: noise images [2, 8, 8] in four classes and a network for them."""

    def split(self, forget: int = 10, retain: int = 14, seed: int = 0) -> tasks.Split:
        """The first ``forget`` of the samples are to be forgotten."""
        stream = torch.Generator().manual_seed(seed)
        images = torch.rand(forget + retain, 2, 8, 8, generator=stream)
        targets = torch.randint(4, (forget + retain,), generator=stream)
        dataset = data.from_tensors(images, targets, images[:4], targets[:4], classes=tuple("abcd"))
        return tasks.index_split(dataset, list(range(forget)))

    def model(self, seed: int = 0, dropout: float = 0.0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Tiny(dropout=dropout)

    def job(self, split: tasks.Split | None = None, model: nn.Module | None = None, labels: bool = True) -> UnlearnJob:
        view = SplitView.of(split or self.split(), labels=labels)
        return UnlearnJob(model or self.model(), view, CPU, 0, (), None)

    def double_job(self, split: tasks.Split | None = None, labels: bool = True, seed: int = 5) -> UnlearnJob:
        """A job whose images reach the network in double precision, for exact comparisons."""
        job = self.job(split, self.model(seed).double(), labels)
        return replace(job, split=replace(job.split, preprocess=DoublePreprocess()))


class DoublePreprocess(data.Preprocess):
    """Network inputs in double precision."""

    def evaluation(self, images: Tensor) -> Tensor:
        return super().evaluation(images).double()


@pytest.fixture(scope="session")
def tiny() -> TinyWorld:
    return TinyWorld()


@pytest.fixture(scope="session")
def same_weights() -> Callable[[nn.Module, nn.Module], bool]:
    """Tells whether two networks agree in every bit of parameters and buffers."""

    def same(one: nn.Module, other: nn.Module) -> bool:
        mine, theirs = one.state_dict(), other.state_dict()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    return same
