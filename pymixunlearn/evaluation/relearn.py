"""Relearn time: how soon a model knows the forgotten samples again when it is shown them.

A model from which they are really gone has to learn them as Retrain would; one that only hides them is quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.models.adapter import trainable
from pymixunlearn.models.copying import private_copy
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.optimizers import Adam

JUDGED = 2000


@dataclass(frozen=True)
class Relearning:
    """Settings by which the forgotten samples are shown again.

    Attributes:
        lr: Learning rate of Adam.
        batch_size: Samples per step.
        interval: Steps between two measurements of the accuracy; the result is a multiple of it.
        max_steps: Where to give up.

    Example:
        >>> Relearning(max_steps=100).interval
        5
    """

    lr: float = 1e-4
    batch_size: int = 32
    interval: int = 5
    max_steps: int = 2000


def relearn_steps(
    model: nn.Module,
    split: Split,
    target: float,
    *,
    device: torch.device | str,
    seed: int = 0,
    settings: Relearning | None = None,
) -> int | None:
    """Train a copy of ``model`` on D_f and return after how many steps it is as accurate on D_f as ``target``.

    Args:
        model: The model; it is left as it is.
        split: Whose forgetting set is shown, with its labels.
        target: Accuracy on D_f to reach, in percent: the initial model's.
        device: Where to compute.
        seed: Fixes the order of the samples, and which (at most :data:`JUDGED`) are looked at for the accuracy.
        settings: How to train.

    Returns:
        0 if the accuracy is there already, None if it is not after ``settings.max_steps``.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> settings = evaluation.Relearning(lr=1e-2, max_steps=100)
        >>> evaluation.relearn_steps(model, split, 99.0, device="cpu", settings=settings) <= 100
        True
    """
    settings = Relearning() if settings is None else settings
    where = torch.device(device)
    learner = private_copy(model).to(where)
    with trainable(learner):
        forget = split.forget.to(where)
        chosen = torch.randperm(len(forget), generator=generator(seed, "relearn", "judged"))[:JUDGED]
        judged = forget.subset(chosen)

        def knows_again() -> bool:
            reached = accuracy(predict_logits(learner, judged, split.preprocess, device=where), judged.targets)
            return reached is not None and reached >= target

        def rounds() -> Iterator[Batch]:
            for epoch in count():
                yield from batches(
                    forget,
                    split.preprocess,
                    batch_size=settings.batch_size,
                    device=where,
                    seed=derive_seed(seed, "relearn", epoch),
                    augment=True,
                )

        if knows_again():
            return 0
        optimizer = Adam((p for p in learner.parameters() if p.requires_grad), lr=settings.lr)
        learner.train()
        with seeded_layers(where, seed, "relearn", "layers"):
            for step, batch in enumerate(islice(rounds(), settings.max_steps), start=1):
                assert batch.targets is not None
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(F.cross_entropy(learner(batch.images), batch.targets))
                optimizer.step()
                if step % settings.interval == 0 and knows_again():
                    return step
    return None
