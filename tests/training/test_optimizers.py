"""Optimisers: PyTorch's own to the last bit, without the import of torch._dynamo in their first step."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from pymixunlearn.training.optimizers import SGD, Adam

PROGRAM = """
import sys, torch
from pymixunlearn import data, methods, models, tasks, training
digits = data.load("digits")
few = digits.train.subset(torch.arange(64))
model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
snapshots = []
class Watching(training.Callback):
    def on_epoch_end(self, epoch, record, state):
        snapshots.append(state())
run = {"device": torch.device("cpu"), "callbacks": [Watching()]}
for optimizer in ("adam", "sgd"):
    config = training.TrainConfig(epochs=1, optimizer=optimizer)
    training.train(model, few, digits.preprocess, config, **run)
    training.train(model, few, digits.preprocess, config, **run, resume=snapshots[-1])
split = tasks.index_split(digits, list(range(40)))
for method in (methods.MixUnlearn(epochs=1), methods.NegGrad(epochs=1)):
    method.unlearn(model, split, **run)
print(len(snapshots), *(name for name in ("torch._dynamo", "sklearn", "matplotlib") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (Adam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "fused": True}),
        (Adam, torch.optim.Adam, {"lr": 0.01}),
        (SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "fused": True}),
    ],
)
def test_steps_and_states_are_those_of_pytorch(
    ours: type[torch.optim.Optimizer], theirs: type[torch.optim.Optimizer], settings: dict[str, object]
) -> None:
    torch.manual_seed(0)
    one = nn.Linear(7, 3)
    two = copy.deepcopy(one)
    optimizers = [kind(model.parameters(), **settings) for kind, model in ((ours, one), (theirs, two))]
    images = torch.randn(3, 5, 7)
    for step, batch in enumerate(images):
        if step == 2:  # goes on from a state that the other one saved
            states = [optimizer.state_dict() for optimizer in optimizers]
            for optimizer, state in zip(optimizers, reversed(states), strict=True):
                optimizer.load_state_dict(state)
        for optimizer, model in zip(optimizers, (one, two), strict=True):
            optimizer.zero_grad()
            model(batch).square().sum().backward()
            optimizer.step()
    assert torch.equal(one.weight, two.weight) and torch.equal(one.bias, two.bias)
    assert all(isinstance(optimizer, theirs) for optimizer in optimizers)


def test_training_and_unlearning_do_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    snapshots, *imported = done.stdout.split()
    assert int(snapshots) == 4 and imported == []
