"""Predictions of a model for every sample of a split: computed once, and read by every metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.models.adapter import adapted, check_predictions
from pymixunlearn.seeding import derive_seed
from pymixunlearn.tasks import Split

MAX_LOSS = -math.log(5e-324)
"""The loss of the smallest probability above 0 that a float64 holds, which stands for that of a masked class."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of one model in eval mode, float32 on the CPU.

    Attributes:
        split: Whose samples they are of.
        train: Of the training images as stored, ``[N, classes]``.
        test: Of the test images, ``[M, classes]``.
        augmented: Of the training images under the training augmentation, ``[N, classes]``; None where there is none.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> predictions = evaluation.predict(model, split, device="cpu")
        >>> predictions.train.shape, predictions.forget.shape
        (torch.Size([1438, 10]), torch.Size([142, 10]))
    """

    split: Split
    train: Tensor
    test: Tensor
    augmented: Tensor | None

    @cached_property
    def forget(self) -> Tensor:
        """Logits of D_f, ``[N_f, classes]``."""
        return self.train[self.split.forget_indices]

    @cached_property
    def forget_probabilities(self) -> Tensor:
        """Softmax of :attr:`forget`, in float64."""
        return self.forget.double().softmax(dim=1)

    @cached_property
    def train_targets(self) -> Tensor:
        """Labels of the training samples, ``[N]`` int64 on the CPU."""
        return self.split.train.targets.cpu()

    @cached_property
    def test_targets(self) -> Tensor:
        """Labels of the test samples, ``[M]`` int64 on the CPU."""
        return self.split.test.targets.cpu()

    @cached_property
    def forget_targets(self) -> Tensor:
        """Labels of D_f, ``[N_f]`` int64 on the CPU."""
        return self.train_targets[self.split.forget_indices]

    @cached_property
    def unseen_like_forget(self) -> Tensor:
        """Indices of the test samples whose class occurs in D_f: what D_f would look like had it never been seen.

        Comparing a forgotten class with test samples of *all* classes would tell the classes apart, not the members.
        """
        return torch.isin(self.test_targets, self.forget_targets).nonzero().squeeze(1)

    def cross_entropies(self) -> tuple[Tensor, Tensor]:
        """Return the losses of D_f, ``[N_f]``, and of :attr:`unseen_like_forget`, both float64 and finite."""
        unseen = self.unseen_like_forget
        return losses(self.forget, self.forget_targets), losses(self.test[unseen], self.test_targets[unseen])


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each row, float64 ``[N]``, at most :data:`MAX_LOSS`.

    Args:
        logits: ``[N, classes]``; -inf masks a class.
        targets: Class indices ``[N]``.
    """
    return F.cross_entropy(logits.double(), targets, reduction="none").clamp(max=MAX_LOSS)


def predict(
    model: nn.Module,
    split: Split,
    *,
    device: torch.device | str,
    seed: int = 0,
    batch_size: int = 512,
    augmented: bool = False,
) -> Predictions:
    """Pass every sample of ``split`` through ``model`` once; training samples a second time where they are augmented.

    Args:
        model: Maps images ``[N, C, H, W]`` to logits ``[N, classes]``; it must be on ``device``.
        split: The samples.
        device: Where to compute.
        seed: Fixes the augmentation.
        batch_size: Images per forward pass.
        augmented: Look at augmented training images in task "class" too, where no other metric needs them.

    Raises:
        UserError: The model cannot process the images or gives no logits for the split's classes; or a logit is NaN or
            infinite: only -inf, which masks a class, may stand beside finite ones.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> evaluation.predict(model, split, device="cpu").test.shape
        torch.Size([359, 10])
    """

    def logits_of_train(augment_seed: int | None) -> Tensor:
        return predict_logits(
            model, split.train, split.preprocess, device=device, batch_size=batch_size, augment_seed=augment_seed
        )

    augments = split.preprocess.augments and (augmented or split.task != "class")
    with adapted(model, example_images(split, device), split.num_classes):
        predictions = Predictions(
            split,
            logits_of_train(None),
            predict_logits(model, split.test, split.preprocess, device=device, batch_size=batch_size),
            logits_of_train(derive_seed(seed, "evaluate", "augmentation")) if augments else None,
        )
    for logits in (predictions.train, predictions.test, predictions.augmented):
        if logits is not None:
            check_predictions(model, logits)
    return predictions


def example_images(split: Split, device: torch.device | str, count: int = 4) -> Tensor:
    """Return the first training images as a network's input, ``[count, C, H, W]`` float32, to try a model with."""
    first = split.train.gather(torch.arange(min(count, len(split.train)))).to(device)
    return split.preprocess.evaluation(first)
