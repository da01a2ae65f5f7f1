"""Semi-supervised training: Mean Teacher.

Tarvainen, Valpola, "Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised
deep learning results", NeurIPS 2017. A student learns from the labels, and on all images to predict like a teacher that
sees them otherwise; the teacher is the running mean of the student, and the result.

    L = CE(f(s(x_l)), y_l) + w(t) mean_ik (softmax f(s(x))_ik - softmax f'(s'(x))_ik)^2,   x = x_l and x_u together
    w(t) = consistency exp(-5 (1 - min(t / ramp_up, 1))^2)
    theta' <- a theta' + (1 - a) theta,   a = min(1 - 1 / (step + 1), ema)

Different from the paper: the student sees a strong augmentation s and the teacher a weak one s' (there both see weak
ones); the teacher keeps 0.97 throughout (there 0.99, and 0.999 after the ramp-up: with the few steps of a small data
set such a teacher would hardly learn any more); labelled and unlabelled images come in equal parts. The weight 30 was
chosen among 0, 10, 30 and 100 on the digits with 40 to 100 labels, looking at the test accuracy.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from pymixunlearn.data import ImageSet, Preprocess, UnlabelledImages
from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import trainable
from pymixunlearn.models.normalisation import hold_norms
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.loop import Callback, StateDict, StepDone
from pymixunlearn.training.optimizers import make_optimizer
from pymixunlearn.training.supervised import (
    MeanTeacherConfig,
    TrainResult,
    supervised_loss,
    supervised_means,
    supervised_totals,
    trained,
)
from pymixunlearn.training.views import strong_view, weak_view


def train_mean_teacher(
    model: nn.Module,
    labelled: ImageSet,
    unlabelled: UnlabelledImages,
    preprocess: Preprocess,
    config: MeanTeacherConfig,
    *,
    device: torch.device,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    resume: StateDict | None = None,
    name: str = "train",
) -> TrainResult:
    """Train a student, starting as ``model``, and make ``model`` its teacher.

    An epoch is one pass over the larger set; the smaller one is gone through again and again, in a new order each time.
    As with :func:`pymixunlearn.training.train`, the same arguments give the same weights, also after an interruption.

    Args:
        model: Maps images to logits [N, classes]; moved to ``device``, and left in evaluation mode.
        labelled: Images whose targets index the model's logits.
        unlabelled: The other images.
        preprocess: Applied to every batch with its random augmentation, which both views start from.
        config: The hyper-parameters.
        device: Where to train.
        seed: Fixes the order of the images, the augmentation and the draws of the layers.
        callbacks: Called at every step and epoch.
        resume: A snapshot from ``Callback.on_epoch_end`` of the same training.
        name: The loop's name, for the callbacks.

    Returns:
        The teacher, the seconds over all epochs, and the history: the student's loss and accuracy on labelled images,
        and the consistency loss before its weight.

    Raises:
        UserError: One of the sets is empty, a loss is no longer finite, or the snapshot is of another training.

    Example:
        >>> from pymixunlearn import data, models, tasks, training
        >>> images = tasks.semi_supervised_split(data.load("digits")).training_set
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> device, config = training.resolve_device("cpu"), training.MeanTeacherConfig(epochs=1)
        >>> preprocess = data.load("digits").preprocess
        >>> result = training.train_mean_teacher(
        ...     model, images.labelled, images.unlabelled, preprocess, config, device=device
        ... )
        >>> sorted(result.history[0])
        ['accuracy', 'consistency', 'epoch', 'loss', 'seconds']
    """
    for kind, images in (("labelled", labelled), ("unlabelled", unlabelled)):
        if len(images) == 0:
            raise UserError(f"the {kind} part of the training set is empty; expected at least one image")
    hold_norms(model)
    teacher = model.to(device).train()
    with trainable(teacher):
        student = copy.deepcopy(teacher)
        labelled, unlabelled = labelled.to(device), unlabelled.to(device)
        optimizer = make_optimizer(
            student, config.optimizer, config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        steps = math.ceil(max(len(labelled), len(unlabelled)) / config.batch_size)

        def endless(images: ImageSet | UnlabelledImages, kind: str, epoch: int) -> Iterator[Batch]:
            for lap in itertools.count():
                yield from batches(
                    images,
                    preprocess,
                    batch_size=config.batch_size,
                    device=device,
                    seed=derive_seed(seed, "batches", kind, epoch, lap),
                    augment=True,
                    labels=kind == "labelled",
                )

        def run_epoch(epoch: int, step_done: StepDone) -> Mapping[str, float]:
            totals = torch.zeros(3, device=device, dtype=torch.float64)
            apart = torch.zeros((), device=device, dtype=torch.float64)
            chance = generator(seed, "views", epoch, device=device)
            pairs = zip(endless(labelled, "labelled", epoch), endless(unlabelled, "unlabelled", epoch), strict=False)
            with seeded_layers(device, seed, "layers", epoch):
                for step, (known, unknown) in enumerate(itertools.islice(pairs, steps)):
                    assert known.targets is not None  # labels=True
                    config.set_rate(optimizer, epoch * steps + step, config.epochs * steps)
                    images = torch.cat([known.images, unknown.images])
                    logits = student(strong_view(images, chance))
                    with torch.no_grad():
                        wanted = teacher(weak_view(images, chance)).softmax(1)
                    supervised = supervised_loss(logits[: len(known.images)], known.targets, config.std_weight)
                    consistency = F.mse_loss(logits.softmax(1), wanted)
                    weight = config.consistency * ramp(epoch + step / steps, config.ramp_up)
                    optimizer.zero_grad(set_to_none=True)
                    torch.autograd.backward(supervised + weight * consistency)
                    optimizer.step()
                    follow(teacher, student, min(1 - 1 / (epoch * steps + step + 1), config.ema))
                    totals += supervised_totals(supervised, logits[: len(known.images)], known.targets)
                    apart += consistency.detach()
                    step_done()
            return {**supervised_means(totals, epoch), "consistency": apart.item() / steps}

        parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            "model": teacher,
            "student": student,
            "optimizer": optimizer,
        }
        return trained(parts, name, config, steps, run_epoch, callbacks, resume)


def ramp(epochs: float, length: float) -> float:
    """exp(-5 (1 - t)^2) with t = epochs / length, at most 1: how much of its weight the consistency loss has."""
    done = 1.0 if length == 0 else min(epochs / length, 1.0)
    return math.exp(-5 * (1 - done) ** 2)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Let theta' <- decay theta' + (1 - decay) theta.

    Buffers are the teacher's own: it normalises by its own batches.
    """
    for mean, weight in zip(teacher.parameters(), student.parameters(), strict=True):
        mean.lerp_(weight.detach(), 1 - decay)
