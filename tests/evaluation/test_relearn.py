from __future__ import annotations

import torch

from pymixunlearn import data, models, tasks
from pymixunlearn.evaluation import Relearning, relearn_steps
from pymixunlearn.training import TrainConfig, train

CPU = torch.device("cpu")


def test_what_was_learnt_before_is_relearnt_sooner() -> None:
    split = tasks.class_split(data.load("digits"), (0,))
    network = models.build("cnn", in_channels=1, image_size=8, num_classes=10, seed=1)
    knowing = train(network, split.train, split.preprocess, TrainConfig(epochs=3, lr=1e-3), device=CPU, seed=0).model
    blank = models.build("cnn", in_channels=1, image_size=8, num_classes=10, seed=1)
    before = {name: tensor.clone() for name, tensor in blank.state_dict().items()}
    assert relearn_steps(knowing, split, 90.0, device="cpu") == 0
    steps = relearn_steps(blank, split, 90.0, device="cpu")
    assert steps is not None and steps > 0 and steps % Relearning().interval == 0
    assert steps == relearn_steps(blank, split, 90.0, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in blank.state_dict().items())


def test_it_gives_up_and_says_so() -> None:
    split = tasks.class_split(data.load("digits"), (0,))
    blank = models.build("cnn", in_channels=1, image_size=8, num_classes=10)
    assert relearn_steps(blank, split, 101.0, device="cpu", settings=Relearning(max_steps=10)) is None
