"""Resurfacing: a few steps of training on some of D_r, as a user would who goes on training.

Outputs can be matched to those of unseen images while the memory stays; it shows again after such steps. Where D_r has
no image of a forgotten class, no step on D_r alone teaches the model that class again, and what it knows of its samples
stays out of sight. So unseen images of such classes are shown beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Resurfacing:
    """Settings by which a copy of the model is trained before part (b).

    Attributes:
        steps: Steps of Adam.
        samples: Retain images that are shown, at most.
        batch_size: Images per step.
        lr: Learning rate: the one that the model was trained with.

    Example:
        >>> Resurfacing(lr=5e-5).steps
        40
    """

    steps: int = 40
    samples: int = 500
    batch_size: int = 64
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: One of them is not above 0.
        """
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"{name} is {value}; expected a value above 0")


def resurface(
    network: nn.Module,
    split: Split,
    settings: Resurfacing,
    *,
    device: torch.device,
    seed: int,
    beside: ImageSet | None = None,
) -> None:
    """Train ``network`` in place on some of D_r.

    Args:
        network: On ``device``; inside :func:`pymixunlearn.models.adapter.trainable`.
        split: Whose D_r.
        settings: How.
        device: Where to compute.
        seed: Fixes the images and their order.
        beside: Other images that half of each batch is made of; None shows D_r alone.
    """
    stream = generator(seed, "acceptance", "shown")
    retain = split.retained_training_set.labelled
    shown = [retain.subset(torch.randperm(len(retain), generator=stream)[: settings.samples]).to(device)]
    if beside is not None:
        shown.append(beside.to(device))
    share = max(1, settings.batch_size // len(shown))
    sources = [_rounds(images, split, share, device, (seed, number)) for number, images in enumerate(shown)]
    optimizer = make_optimizer(network, "adam", settings.lr)
    network.train()
    with seeded_layers(device, seed, "acceptance", "layers"):
        for parts in islice(zip(*sources, strict=False), settings.steps):
            images = torch.cat([part.images for part in parts])
            targets = torch.cat([part.targets for part in parts if part.targets is not None])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(F.cross_entropy(network(images), targets))
            optimizer.step()


def to_show(unseen: ImageSet, forget: ImageSet, split: Split, most: int, seed: int) -> ImageSet | None:
    """Return unseen images of the classes that ``forget`` has and D_r has not, at most ``most``; None without any.

    Args:
        unseen: Labelled images that no model was trained on, and that D_f is not compared with.
        forget: D_f, with the labels that it is judged by.
        split: Whose D_r.
        most: How many are drawn at most.
        seed: Fixes the draw.
    """
    retain = split.retained_training_set.labelled.targets
    lacking = forget.targets[~torch.isin(forget.targets, retain.to(forget.targets.device))].cpu()
    found = torch.isin(unseen.targets.cpu(), lacking).nonzero().squeeze(1)
    order = torch.randperm(len(found), generator=generator(seed, "acceptance", "shown beside"))
    return unseen.subset(found[order[:most]]) if len(found) else None


def _rounds(
    images: ImageSet, split: Split, batch_size: int, device: torch.device, key: tuple[int, int]
) -> Iterator[Batch]:
    """Yield batches of ``images`` for ever, in an order of its own in each round."""
    seed, number = key
    for epoch in count():
        order = derive_seed(seed, "acceptance", "order", epoch, *([number] if number else []))
        for batch in batches(images, split.preprocess, batch_size=batch_size, device=device, seed=order):
            # Batch normalisation cannot learn from a lone image.
            if len(batch.images) > 1 or min(len(images), batch_size) == 1:
                yield batch
