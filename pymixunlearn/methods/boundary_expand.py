"""Boundary Expanding: all forget images go to a class of their own, which is then taken away.

Chen, Gao, Liu, Peng, Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary",
CVPR 2023. Settings as released.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.base import Job, register
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.loop import Loop, LoopConfig, LoopMethod, Measured, Stage, descend
from pymixunlearn.models.layers import find_head
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.optimizers import make_optimizer

NAME = "boundary-expand"


@dataclass(frozen=True)
class BoundaryExpandConfig(LoopConfig):
    """Settings of :class:`BoundaryExpand`."""

    epochs: int = setting(10, "passes over the forget set", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    lr: float = setting(1e-5, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)


class BoundaryExpandLoop(Loop[BoundaryExpandConfig]):
    """Fine-tuning on D_f with the label C of the class that was added to C others."""

    name = NAME

    def __init__(self, config: BoundaryExpandConfig, job: Job) -> None:
        """Add the class to the head: a Xavier row without bias, beside the old rows."""
        super().__init__(config, job)
        self.head = find_head(self.model, self.example)
        old, bias = self.head.weight.detach(), self.head.bias
        with seeded_layers(self.device, self.seed, NAME, "head"):
            new = nn.init.xavier_uniform_(old.new_empty(self.num_classes + 1, old.shape[1]))
        new[:-1] = old
        _set_rows(self.head, new, None if bias is None else F.pad(bias.detach(), (0, 1)))
        self.optimizer = self.parts["optimizer"] = make_optimizer(
            self.model, "sgd", config.lr, momentum=config.momentum
        )

    def stages(self) -> list[Stage]:
        """Return passes over D_f."""
        return [Stage(self.config.epochs, self.steps(self.forget_set), self._epoch)]

    def _epoch(self, epoch: int) -> Iterator[Measured]:
        for forget in self.forget_batches(epoch):
            yield self.step(forget)

    def step(self, forget: Batch) -> Measured:
        """CE of the images with the added class."""
        shadow = torch.full_like(forget.indices, self.num_classes)
        loss = F.cross_entropy(self.model(forget.images), shadow)
        descend(self.optimizer, loss)
        return {"forget": loss}

    def unlearned(self) -> nn.Module:
        """Return the network without the added class."""
        bias = self.head.bias
        _set_rows(self.head, self.head.weight.detach()[:-1], None if bias is None else bias.detach()[:-1])
        return self.model


@register
class BoundaryExpand(LoopMethod):
    """Fine-tuning of the forget set on an added class; looks at no label, so that none is needed."""

    name = NAME
    summary = "moves the forgotten data to an added class and takes that away"
    config_class = BoundaryExpandConfig
    loop_class = BoundaryExpandLoop

    @property
    def needs_labels(self) -> bool:
        """False: all of D_f gets the same new label, and D_r is not looked at."""
        return False


def _set_rows(head: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give ``head`` other rows: weight [classes, features], bias [classes]."""
    head.weight = nn.Parameter(weight.clone(), requires_grad=head.weight.requires_grad)
    if bias is not None:
        head.bias = nn.Parameter(bias.clone(), requires_grad=head.bias.requires_grad)
    head.out_features = len(weight)
